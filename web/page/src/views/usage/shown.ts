import { number } from "$/words.ts";

const DAY = new Intl.DateTimeFormat("en", { day: "numeric", month: "short", timeZone: "UTC" });
const COST = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });

/** A day as in `Aug 14`. */
export const shownDay = (day: string): string => DAY.format(new Date(day));

/** A cost in the unit of the prices; a dash where no price is known. */
export const shownCost = (cost: number | null): string => (cost === null ? "–" : COST.format(cost));

/** A number of a measure: tokens and runs whole, costs with four digits. */
export function shownMeasure(measure: string, value: number): string {
  return measure === "cost" ? shownCost(value) : number(value);
}
