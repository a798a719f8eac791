import { ArchwrightError, readable } from "archwright-client";

/** What is wrong with a form: by field, and what belongs to none of its fields. */
export interface Wrong {
  fields: Record<string, string>;
  other: string | null;
}

/** Nothing is wrong. */
export const NOTHING_WRONG: Wrong = { fields: {}, other: null };

/** What a refused request says about the fields of a form, as sentences. */
export function wrongWith(error: unknown, fields: string[]): Wrong {
  const wrong: Wrong = { fields: {}, other: null };
  const issues = error instanceof ArchwrightError ? error.issues : [];
  for (const { path, message } of issues) {
    const field = String(path[0]);
    if (fields.includes(field)) wrong.fields[field] ??= asSentence(message);
  }
  if (Object.keys(wrong.fields).length < 1) wrong.other = readable(error);
  return wrong;
}

function asSentence(message: string): string {
  const text = message.charAt(0).toUpperCase() + message.slice(1);
  return /[.!?…]$/.test(text) ? text : `${text}.`;
}
