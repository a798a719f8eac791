import type { Project } from "archwright-client";
import type { Tier } from "$/api.ts";

/** The tiers from less to more, each with what it lets one do. */
export const TIERS: { tier: Tier; label: string; may: string }[] = [
  { tier: "use", label: "Use", may: "Read the project and its documents, ask, and draft." },
  {
    tier: "edit",
    label: "Edit",
    may: "Also add and delete documents, and change name, description, colour and instructions.",
  },
  {
    tier: "full",
    label: "Full",
    may: "Also share the project, change its settings, prompts and templates, and delete it.",
  },
];

const SOURCES: Record<Project["accessSource"], string> = {
  platform: "because you are an admin",
  owner: "because you own this project",
  direct: "because it was given to you by name",
  group: "because it was given to a group of yours",
  public: "because this project is open to everybody who is signed in",
};

/** What the caller may do in a project, and why. */
export function standingIn({ accessTier, accessSource }: Project): string {
  const { label } = TIERS.find(({ tier }) => tier === accessTier)!;
  return `You have tier ${label.toLowerCase()}, ${SOURCES[accessSource]}.`;
}
