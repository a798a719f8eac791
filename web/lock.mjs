// Takes out of package-lock.json what npm writes into it for people only, such as where to give
// money: a lock names packages by version and hash, and no address. `npm ci` needs none of it.
import { readFileSync, writeFileSync } from "node:fs";

const PATH = new URL("package-lock.json", import.meta.url);
const FOR_PEOPLE = ["funding", "deprecated"];

const lock = JSON.parse(readFileSync(PATH, "utf8"));
for (const entry of Object.values(lock.packages)) {
  for (const name of FOR_PEOPLE) delete entry[name];
}
writeFileSync(PATH, `${JSON.stringify(lock, null, 2)}\n`);
