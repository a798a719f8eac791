"""Checks that what a draft refers to is there: documents, headings and numbered items."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from posixpath import dirname, join, normpath, relpath
from urllib.parse import unquote

from rapidfuzz import process
from rapidfuzz.distance import OSA

from graph.checks.findings import Finding, gathered
from graph.checks.numbering import number_findings
from graph.checks.outline import Link, Outline, plain
from graph.checks.project import Kind, Project, file_name

_LINK_TARGET = re.compile(r"\]\([ \t]*<?([^\s()<>]+\.(?:md|markdown|json|txt))\b", re.IGNORECASE)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)
_HTML_ANCHOR = re.compile(r"""\b(?:id|name)=["']([^"'<>]{1,200})["']""")
_NO_SLUG = re.compile(r"[^\w\- ]")
_PATH = re.compile(r"[\w./-]+")
_TYPE_NAME = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*")
# Files of a repository that are no documents of the project.
_USUAL_FILES = frozenset(
    ["CHANGELOG.md", "LICENSE.md", "LICENCE.md", "SECURITY.md", "CODE_OF_CONDUCT.md", "NOTICE.md"]
)
_SHORTEST_NAME = 8
_SHORTEST_FILE = 5


def linked_names(text: str, output_path: str) -> list[str]:
    """Names under which the documents may lie that a draft links to."""
    found = dict.fromkeys(
        name
        for link in _LINK_TARGET.finditer(text)
        if not _SCHEME.match(link[1])
        for name in (_resolved(link[1], output_path), file_name(_resolved(link[1], output_path)))
    )
    return list(found)


def reference_findings(text: str, outline: Outline, kind: Kind, project: Project) -> list[Finding]:
    """References of a draft to what is not there. Addresses in the web are not visited."""
    anchors = _anchors(text, (heading.title for heading in outline.headings))
    return gathered(
        [
            *(found for link in outline.links for found in _link(link, anchors, kind, project)),
            *_names(outline, kind, project),
            *number_findings(text, outline, kind, project),
        ]
    )


def _link(link: Link, anchors: set[str], kind: Kind, project: Project) -> Iterator[Finding]:
    target = unquote(link.target)
    if not target or _SCHEME.match(target):
        return
    path, _, anchor = target.partition("#")
    if not path:
        if anchor and anchor.lower() not in anchors:
            message = f"The link to '#{anchor}' leads nowhere: no heading has this anchor."
            yield Finding("broken_reference", message, link.line)
        return
    path = _resolved(path, kind.output_path)
    if path == kind.output_path or not _is_document(path):
        return
    found = _document(path, project)
    if found is not None:
        if anchor and anchor.lower() not in _anchors_of_text(found):
            message = f"The document {path} has no heading for the link to '#{anchor}'."
            yield Finding("broken_reference", message, link.line)
    elif project.type_at(path):
        yield from _not_written(path, link.line, project)
    else:
        hint = _hint(path, kind.output_path, project.output_paths)
        message = f"The link to {link.target!r} leads nowhere: there is no {path}.{hint}"
        yield Finding("broken_reference", message, link.line)


def _resolved(target: str, output_path: str) -> str:
    path = unquote(target).partition("?")[0].partition("#")[0]
    if path.startswith("/"):
        return normpath(path.lstrip("/"))
    return normpath(join(dirname(output_path), path))


def _is_document(path: str) -> bool:
    """Whether a path names a document, rather than code, a picture or the like."""
    if file_name(path) in _USUAL_FILES:
        return False
    in_docs = path.startswith("docs/")
    return path.endswith((".md", ".markdown")) or (in_docs and path.endswith((".json", ".txt")))


def _document(path: str, project: Project) -> str | None:
    """The text of the document at a path; one that the project has without a folder is at any."""
    if kind := project.type_at(path):
        return project.document_of(kind)
    name = file_name(path)
    found = project.documents.get(path)
    if found is None and name not in map(file_name, project.output_paths.values()):
        found = project.documents.get(name)
    return found


def _not_written(path: str, line: int, project: Project) -> Iterator[Finding]:
    if project.is_whole:
        message = f"The project has no {path} yet; write it, or take the reference out."
        yield Finding("reference_not_written", message, line)


def _hint(path: str, output_path: str, output_paths: Mapping[str, str]) -> str:
    """What may have been meant."""
    paths = {file_name(one): one for one in output_paths.values()}
    name = _nearest(file_name(path), paths, _SHORTEST_FILE)
    if name is None:
        return ""
    return f" Did you mean {relpath(paths[name], dirname(output_path) or '.')!r}?"


def _nearest(name: str, known: Iterable[str], shortest: int) -> str | None:
    if len(name) < shortest:
        return None
    most = max(len(name) // 6, 1)
    found = process.extractOne(name, list(known), scorer=OSA.distance, score_cutoff=most)
    return found[0] if found else None


def _names(outline: Outline, kind: Kind, project: Project) -> Iterator[Finding]:
    """Names of documents in the text, outside of links."""
    told: dict[str, tuple[str, str] | None] = {}
    pieces = [(prose.text, prose.line) for prose in outline.prose]
    pieces += [(code.text, code.line) for code in outline.code]
    for text, first_line in pieces:
        line, done = first_line, 0
        for found in _PATH.finditer(text):
            name = found[0].strip(".-/")
            if not file_name(name)[:2].isupper():
                continue
            if name not in told:
                told[name] = _told_of_name(name, kind, project)
            if about := told[name]:
                line += text.count("\n", done, found.start())
                done = found.start()
                yield Finding(*about, line)


def _told_of_name(name: str, kind: Kind, project: Project) -> tuple[str, str] | None:
    """Code and message for a name of a document that is not there."""
    stem, dot, suffix = file_name(name).partition(".")
    if not _TYPE_NAME.fullmatch(stem) or (dot and suffix not in ("md", "json")):
        return None
    written = {file_name(one) for one in project.documents} | {file_name(kind.output_path)}
    if dot:
        paths = {file_name(path): path for path in project.output_paths.values()}
        if f"{stem}.{suffix}" in written | _USUAL_FILES:
            return None
        if path := paths.get(f"{stem}.{suffix}"):
            if _document(path, project) is not None:
                return None
            found = next(_not_written(path, 0, project), None)
            return (found.code, found.message) if found else None
        meant = _nearest(f"{stem}.{suffix}", paths, _SHORTEST_FILE)
    else:
        known = {*project.output_paths, *(one.partition(".")[0] for one in written)}
        if "_" not in stem or stem in known:
            return None
        meant = _nearest(stem, known, _SHORTEST_NAME)
    if meant is None:
        return None
    return "broken_reference", f"There is no document {file_name(name)}. Did you mean {meant}?"


def _anchors(text: str, titles: Iterable[str]) -> set[str]:
    """The anchors that GitHub gives to headings, and those that the HTML in a text sets."""
    anchors = {found[1].lower() for found in _HTML_ANCHOR.finditer(text)} | {"top", ""}
    seen: dict[str, int] = {}
    for title in titles:
        slug = _NO_SLUG.sub("", title.strip().lower()).replace(" ", "-")
        times = seen.get(slug, 0)
        seen[slug] = times + 1
        anchors.add(f"{slug}-{times}" if times else slug)
    return anchors


def _anchors_of_text(text: str) -> set[str]:
    lines: Sequence[str] = text.split("\n")
    return _anchors(text, (plain(line.strip("# \r\t")) for line in lines if line.startswith("#")))
