/** Have the browser save something as a file. */
export function save(content: Blob, name: string): void {
  const address = URL.createObjectURL(content);
  const anchor = document.createElement("a");
  anchor.href = address;
  anchor.download = name;
  anchor.click();
  // The download has begun by then; without it, the content would be kept until the page closes.
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
