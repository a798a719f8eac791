const SIZES = ["byte", "kilobyte", "megabyte", "gigabyte"] as const;
const STEPS: [Intl.RelativeTimeFormatUnit, number][] = [
  ["year", 31_557_600],
  ["month", 2_629_800],
  ["week", 604_800],
  ["day", 86_400],
  ["hour", 3600],
  ["minute", 60],
];
const RELATIVE = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const MOMENT = new Intl.DateTimeFormat("en", { dateStyle: "long", timeStyle: "short" });
const NUMBER = new Intl.NumberFormat("en");

/** A number with separators: `12,400`. */
export const number = (value: number): string => NUMBER.format(value);

/** A size as people read it: `1.4 MB`. */
export function bytes(size: number): string {
  const power = Math.min(Math.floor(Math.log10(Math.max(size, 1)) / 3), SIZES.length - 1);
  return new Intl.NumberFormat("en", {
    style: "unit",
    unit: SIZES[power]!,
    unitDisplay: power ? "short" : "long",
    maximumSignificantDigits: 3,
  }).format(size / 1000 ** power);
}

/** `1 document`, `3 documents`, `no documents`. */
export function count(value: number, one: string, many = `${one}s`): string {
  return `${value === 0 ? "no" : number(value)} ${value === 1 ? one : many}`;
}

/** How long ago a time was: `3 hours ago`, `yesterday`. */
export function ago(time: string | Date, now = Date.now()): string {
  const seconds = (new Date(time).getTime() - now) / 1000;
  for (const [unit, length] of STEPS) {
    if (Math.abs(seconds) >= length) return RELATIVE.format(Math.round(seconds / length), unit);
  }
  return "just now";
}

/** A time in full: `14 August 2026 at 09:30`. */
export const moment = (time: string | Date): string => MOMENT.format(new Date(time));
