"""Prompts and templates as files: what is read, when, and what is wrong with it."""

import asyncio
import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from folders import ANSWER, FRONT, PLAN, Folders
from timed import timed

from graph.context import Context
from graph.errors import TemplateFailed
from graph.pinning import Pinning, pin
from graph.prompting import Prompting
from graph.settings import ROOT
from graph.state import State
from graph.texts.document_types import version_of
from graph.texts.files import Files, _Stamp
from graph.texts.rendering import render
from graph.texts.texts import Texts
from graph.texts.wording import type_of

NO_FRONT_MATTER = (
    "the front matter is missing: keys between two lines of ---, the first of them line 1"
)
_LONG_AGO = 1_700_000_000


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    made = Folders(tmp_path)
    made.write_all()
    return made


def test_a_type_is_its_folder_its_front_matter_and_its_example(folders: Folders) -> None:
    source = folders.write_type("# {{ project_name }}\n\n## Why\n")
    kind = folders.files().document_type("PLAN")
    assert (kind.example, kind.version) == (None, version_of(source))
    folders.write("templates/planning/PLAN/example.md", "# Ours\n")
    folders.write("templates/planning/PLAN/example.json", "{}")
    kind = folders.files().document_type("PLAN")
    assert (kind.example, kind.version) == ("# Ours\n", version_of(source, "# Ours\n"))
    assert (kind.about.order, kind.body, kind.first_line) == (
        5,
        "# {{ project_name }}\n\n## Why",
        10,
    )
    folders.write_type("{}", "docs/planning/PLAN.json")
    kind = folders.files().document_type("PLAN")
    assert kind.example == "{}"


def test_types_come_in_their_order_and_then_by_name(folders: Folders) -> None:
    for name, order in (("LATE", 9), ("B", 5), ("A", 5), ("EARLY", 1)):
        source = FRONT.format(output_path=f"{name}.md").replace("order: 5", f"order: {order}")
        folders.write(f"templates/planning/{name}/template.md", source)
    wording = folders.files()
    assert [kind.name for kind in wording.document_types()] == ["EARLY", "A", "B", "PLAN", "LATE"]
    assert list(wording.output_paths()) == ["EARLY", "A", "B", "PLAN", "LATE"]
    paths = ("A.md", "x/B.txt", "docs/planning/PLAN.md", "c")
    assert [type_of(path, wording.output_paths()) for path in paths] == ["A", "B", "PLAN", None]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("# Plan", f" in line 1: {NO_FRONT_MATTER}"),
        ("---\ntitle: x\n", f" in line 1: {NO_FRONT_MATTER}"),
        ("---\n- a\n---\n", " in line 2: the front matter must be keys with values"),
        (
            "---\ntitle: [\n---\n",
            " in line 3: this is no YAML: expected the node content, but found '<stream end>'. "
            "Indent with spaces, close quotes and brackets, and quote what holds a colon or "
            "begins with a sign",
        ),
        (
            "---\na: &a [x]\nb: *a\n---\n",
            " in line 2: anchors and aliases (& and *) cannot be used here",
        ),
        ("---\na: !!bool x\n---\n", " in line 2: the value of 'a' cannot be read"),
        ("---\na: " + "[" * 600 + "\n---\n", " in line 2: the front matter is nested too deeply"),
        (
            FRONT.replace("order: 5\n", ""),
            " in line 1: the key 'order' is missing from the front matter",
        ),
        (
            FRONT.replace("order: 5", "order: true"),
            " in line 4: the value of 'order' must be a whole number",
        ),
        (
            FRONT.replace("title: Plan", "title: 2026-01-01"),
            " in line 2: the value of 'title' must be text; put it in quotes",
        ),
        (
            FRONT.replace("[Why]", "[Why, 7]"),
            " in line 7: entry 2 of 'required_headings' must be text; put it in quotes",
        ),
        (
            FRONT.replace("---\n", "---\nowner: me\n", 1),
            " in line 2: there is no key 'owner'; the nearest is 'order'",
        ),
    ],
)
def test_front_matter_that_is_not_in_order_is_a_fault_of_that_type_alone(
    folders: Folders, source: str, reason: str
) -> None:
    folders.write("templates/planning/BAD/template.md", source.replace("{output_path}", "BAD.md"))
    wording = folders.files()
    told = f"The front matter of templates/planning/BAD/template.md is wrong{reason}."
    assert wording.faulty() == {"BAD": told}
    assert wording.knows("BAD")
    assert [kind.name for kind in wording.document_types()] == ["PLAN"]
    with pytest.raises(TemplateFailed, match=re.escape(told)):
        wording.document_type("BAD")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"one\ncaf\xe9", "is not UTF-8 in line 2."),
        (b"x" * 1_000_001, "is larger than 1000000 bytes."),
        (b"a\0b", "holds a NUL character in line 1."),
        (b" \n", "is empty."),
    ],
)
def test_a_file_that_cannot_be_used_is_a_fault_of_that_text_alone(
    folders: Folders, content: bytes, reason: str
) -> None:
    folders.write("prompts/draft.md", content)
    wording = folders.files()
    assert sorted(wording.texts) == [ANSWER, "prompts/question.md", PLAN]
    assert wording.prompt("answer").content == "Answer {{ user_name }}."
    with pytest.raises(TemplateFailed, match=re.escape(f"prompts/draft.md {reason}")):
        pin(wording, "PLAN", Context())


def test_the_operator_is_told_which_prompts_are_missing(
    folders: Folders, caplog: pytest.LogCaptureFixture
) -> None:
    (folders.root / ANSWER).unlink()
    (folders.root / "prompts/question.md").unlink()
    asyncio.run(Texts(**folders.settings).wording())
    assert caplog.messages == [
        "prompts/answer.md is missing, and is needed to ask the model",
        "prompts/question.md is missing, and is needed to ask the model",
    ]


def test_what_is_no_file_or_leads_out_of_its_folder_is_not_read(
    folders: Folders, tmp_path: Path
) -> None:
    folders.write("secret/X/template.md", FRONT.format(output_path="X.md"))
    templates, prompts = tmp_path / "templates", tmp_path / "prompts"
    (templates / "secret").symlink_to(tmp_path / "secret")
    (templates / "planning" / "COPY").symlink_to(templates / "planning" / "PLAN")
    (templates / "planning" / "OUT").mkdir()
    (templates / "planning" / "OUT" / "template.md").symlink_to(tmp_path / "secret/X/template.md")
    (prompts / "draft.md").unlink()
    os.mkfifo(prompts / "draft.md")
    folders.write("prompts/notes.md", "No prompt.")
    folders.write("templates/planning/lower/template.md", FRONT)
    wording = folders.files()
    assert sorted(wording.texts) == [
        ANSWER, "prompts/question.md", "templates/planning/COPY/template.md", PLAN,
    ]  # fmt: skip
    with pytest.raises(TemplateFailed, match=r"prompts/draft.md is no file\."):
        wording.prompt("draft")
    with pytest.raises(TemplateFailed, match=r"prompts/answer.md is missing\."):
        Texts(tmp_path / "nowhere", tmp_path / "nowhere").files().prompt("answer")


def test_unchanged_folders_are_the_same_snapshot_and_a_change_is_seen_at_once(
    folders: Folders,
) -> None:
    files = Files(**folders.settings)
    first = files.read()
    assert files.read() is first
    folders.write(ANSWER, "News.")
    second = files.read()
    assert (first.contents[ANSWER], second.contents[ANSWER]) == ("Answer {{ user_name }}.", "News.")
    shutil.rmtree(folders.root / "templates")
    assert sorted(files.read().contents) == [ANSWER, "prompts/draft.md", "prompts/question.md"]


def test_any_change_of_what_was_still_for_long_is_seen_at_once(folders: Folders) -> None:
    folders.write("templates/common/draft.md", "Shared.")
    folders.write("templates/common/other.md", "Other.")
    plan = folders.root / "templates/planning/PLAN"
    (plan / "example.md").symlink_to("../../common/draft.md")
    files = Files(**folders.settings)

    def write_as_before() -> None:
        """As many bytes as before, at the time of before."""
        folders.write(ANSWER, "Reply. {{ user_name }}")
        os.utime(folders.root / ANSWER, (_LONG_AGO, _LONG_AGO))

    def point_elsewhere() -> None:
        (plan / "example.md").unlink()
        (plan / "example.md").symlink_to("../../common/other.md")

    seen = []
    for change in (
        lambda: folders.write(ANSWER, "Answer {{ user_name }}"),
        write_as_before,
        lambda: folders.write("templates/planning/PLAN/example.json", "{}"),
        lambda: folders.write("templates/planning/NEXT/template.md", FRONT),
        lambda: folders.write("templates/build/LAST/template.md", FRONT),
        lambda: folders.write("templates/common/draft.md", "Shared by all."),
        point_elsewhere,
        lambda: shutil.rmtree(folders.root / "templates/build"),
        lambda: (folders.root / "prompts/draft.md").unlink(),
        lambda: folders.write("prompts/draft.md", "Draft {{ title }}."),
    ):
        _age(folders.root)
        before = files.read()
        assert files.read() is before
        change()
        after = files.read()
        paths = {*before.contents, *after.contents}
        seen.append([p for p in sorted(paths) if before.contents.get(p) != after.contents.get(p)])
    assert seen == [
        [ANSWER],
        [ANSWER],
        ["templates/planning/PLAN/example.json"],
        ["templates/planning/NEXT/template.md"],
        ["templates/build/LAST/template.md"],
        ["templates/planning/PLAN/example.md"],
        ["templates/planning/PLAN/example.md"],
        ["templates/build/LAST/template.md"],
        ["prompts/draft.md"],
        ["prompts/draft.md"],
    ]


def _age(folder: Path) -> None:
    for one in [folder, *folder.rglob("*")]:
        os.utime(one, (_LONG_AGO, _LONG_AGO))
    # The grain of the system's clock.
    time.sleep(0.02)


def test_a_change_within_the_grain_of_the_file_system_is_seen(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Files(**folders.settings)

    def in_seconds(place: str) -> _Stamp:
        """As from a file system that knows whole seconds, so that nothing is waited for."""
        found = os.stat(place)
        return found.st_mtime_ns // 10**9 * 10**9, found.st_size

    monkeypatch.setattr("graph.texts.files._stamp", in_seconds)
    files.read()
    folders.write(ANSWER, "Answer {{ user_name }}!")
    assert files.read().contents[ANSWER] == "Answer {{ user_name }}!"


@timed
def test_a_file_that_is_half_written_is_waited_for(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.texts.files._SETTLED_S", 0.3)
    files = Files(**folders.settings)
    files.read()
    with (folders.root / ANSWER).open("w") as file:
        file.write("Half")
        file.flush()

        def finish() -> None:
            time.sleep(0.02)
            file.write(" and half.")
            file.flush()

        late = threading.Thread(target=finish)
        late.start()
        assert files.read().contents[ANSWER] == "Half and half."
        late.join()


@timed
def test_a_file_that_is_written_without_end_is_waited_for_once(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.texts.files._SETTLED_S", 1.0)
    monkeypatch.setattr("graph.texts.files._PATIENCE_S", 0.2)
    files = Files(**folders.settings)
    waited = []
    for number in range(4):
        folders.write(ANSWER, f"Answer {number}.")
        began = time.monotonic()
        assert files.read().contents[ANSWER] == f"Answer {number}."
        waited.append(time.monotonic() - began > 0.4)
    assert waited == [True, False, False, False]


def test_each_prompt_and_template_of_ours_can_be_used() -> None:
    wording = Texts(ROOT / "prompts", ROOT / "templates").files()
    assert (wording.problems, wording.faulty()) == ({}, {})
    for kind in wording.document_types():
        pin(wording, kind.name, Context())


class _Counting(ThreadPoolExecutor):
    """The threads of an event loop, which count what they are given to do."""

    tasks = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.tasks += 1
        return super().submit(fn, *args, **kwargs)


def _forget_texts() -> None:
    """Render so many long texts that no other is in memory any more."""
    for number in range(30):
        render(f"{number:05}" + "x" * 99_000)


def test_only_what_is_in_memory_is_pinned_in_the_event_loop(folders: Folders) -> None:
    folders.write_type("# {{ project_name }}\n\n## Why\n")

    async def tasks() -> list[int]:
        threads = _Counting()
        asyncio.get_running_loop().set_default_executor(threads)
        wording, pinning, counted = folders.files(), Pinning(), []
        for forget in (False, False, True, False):
            if forget:
                _forget_texts()
            pinned, _ = await pinning.pin(wording, "PLAN", Context(project_name="Tidewatch"))
            assert pinned == pin(wording, "PLAN", Context(project_name="Tidewatch"))[0]
            counted.append(threads.tasks)
        return counted

    assert asyncio.run(tasks()) == [1, 1, 2, 2]


def test_only_prompts_that_are_in_memory_are_filled_in_the_event_loop(folders: Folders) -> None:
    pinned, _ = pin(folders.files(), "PLAN", Context())
    state: State = {"messages": [{"role": "user", "content": "Draft it."}], **pinned}
    prompting = Prompting()
    _forget_texts()
    assert prompting.short(state, Context(), 32_768) is None
    composed = prompting.compose(state, Context(), 32_768)
    assert prompting.short(state, Context(), 32_768) == composed
