"""The two folders of texts, to be edited in tests."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from graph.texts.texts import Texts
from graph.texts.wording import Wording

FRONT = """---
title: Plan
phase: planning
order: 5
output_path: {output_path}
depends_on: []
required_headings: [Why]
good: [Every step has a date.]
---
"""
PLAN = "templates/planning/PLAN/template.md"
ANSWER = "prompts/answer.md"


@dataclass(frozen=True)
class Folders:
    """The two folders of a service, to be edited."""

    root: Path

    @property
    def settings(self) -> dict[str, Path]:
        """Where they are."""
        return {"prompts_dir": self.root / "prompts", "templates_dir": self.root / "templates"}

    def write(self, path: str, text: str | bytes) -> None:
        """Write a file as an editor does that writes in place."""
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(text.encode() if isinstance(text, str) else text)

    def write_all(self) -> None:
        """Short prompts, and one type without an example."""
        shutil.rmtree(self.root / "templates", ignore_errors=True)
        self.write(ANSWER, "Answer {{ user_name }}.")
        self.write("prompts/draft.md", "Draft {{ title }} as {{ format }}.")
        self.write("prompts/question.md", "{{ material }}\n{{ question }}")
        self.write_type("# {{ project_name }}\n\n## Why\n")

    def write_type(self, body: str, output_path: str = "docs/planning/PLAN.md") -> str:
        """Write the template of PLAN and give its source."""
        source = FRONT.format(output_path=output_path) + body
        self.write(PLAN, source)
        return source

    def files(self) -> Wording:
        """All texts as their files are."""
        return Texts(**self.settings).files()
