"""Checks that a draft names no technology that contradicts the project's TECH_STACK."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from graph.checks.findings import Finding, gathered
from graph.checks.outline import Outline, Prose, Table, outline_of, plain
from graph.checks.phrases import Signs, first_sentence, word_set, words_of
from graph.checks.technologies import Named, Technology, catalogue, technologies_in

TECH_STACK = "TECH_STACK"
# They weigh technologies against each other.
_WEIGHING_TYPES = frozenset([TECH_STACK, "TECH_STACK_DECISION", "ARCH_DECISION_RECORDS"])

_OTHERWISE = re.compile(
    r"\b(?:reject\w*|alternativ\w*|compar\w*|instead|rather|migrat\w*|replac\w*|no|not|never|none"
    r"|nor|neither|without|unlike|versus|vs|consider\w*|dropp?\w*|remov\w*|avoid\w*|excluded?"
    r"|former\w*|previous\w*|legacy|existing|earlier|would|might|vendors?|suppliers?|partners?"
    r"|external|third[- ]part\w*|evaluat\w*|candidates?|options?|leaves? out|left out|retired?"
    r"|way out|reopens?|source of truth|exceptions?)\b"
    r"|n['’]t\b",
    re.IGNORECASE,
)
_OUTSIDE = re.compile(r"\b(?:surroundings|neighbou?rs?|integrations?|history)\b", re.IGNORECASE)
_REJECTED = re.compile(
    r"\W*(?:rejected|ruled out|not chosen|dismissed|alternatives?(?: considered)?)\W*:",
    re.IGNORECASE,
)
_REJECTED_COLUMN = re.compile(r"\b(?:rejected|alternatives?|instead of|not chosen)\b", re.I)
_LEFT_OUT = re.compile(
    r"\W*(?:no|without|not|we (?:do not|don['’]t) (?:use|need|have))\s+"
    r"([^\n]{1,200}?)(?=,|;|:|\.\s|\.?$|\s(?:because|since|as|for)\b|\s[–—-]\s)",
    re.IGNORECASE | re.MULTILINE,
)
# "No scan is lost" leaves out nothing.
_STATES = re.compile(r"\b(?:is|are|was|may|must|can|should|shall|will|has|have|does)\b", re.I)
_LEFT_OUT_HEADING = re.compile(r"\b(?:leave out|left out|not use|not used|do without)\b", re.I)
_ARTICLE = re.compile(r"^(?:an?|the) ", re.I)
_VERSION = re.compile(
    r"[ \t]?(?:[ (,]?version[ ]|v|@|==|:)?(\d{1,4}(?:\.\d{1,4}){0,3})(?![\w%])(?!\.\d)",
    re.IGNORECASE,
)
_VERSION_HEAD = re.compile(r"\W*versions?\b", re.I)
_VERSION_CELL = re.compile(r"\W*v?(\d{1,4}(?:\.\d{1,4}){0,3})\b")
_MOVING = re.compile(
    r"\b(?:upgrad\w*|updat\w*|end of life|eol|support\w*|from|until|since|after|before|at least"
    r"|newer|later|older|above|below|minimum|next|successor)\b|\d\+|[<>≥≤]",
    re.IGNORECASE,
)
_UNITS = word_set(
    "year month week day hour minute second millisecond ms s min h gb mb kb tb time percent user"
    " developer machine server node worker process instance replica table row scan request query"
    " job of to and x euro"
)


@dataclass(slots=True)
class Stack:
    """What a project has chosen, rejected and left out.

    `left_out` is a category's name to the words of the stack; `versions` is a technology's name
    to its version.
    """

    allowed: dict[str, Technology] = field(default_factory=dict)
    rejected: set[str] = field(default_factory=set)
    left_out: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def tech_stack_findings(outline: Outline, kind: str, stack_text: str) -> list[Finding]:
    """Technologies and versions in a draft of a type that are not those of TECH_STACK."""
    stack = _stack_of(stack_text)
    found: list[Finding] = []
    for table in outline.tables:
        found += _versions_in_table(table, stack)
    for prose in outline.prose:
        found += _in_prose(prose, stack, weighing=kind in _WEIGHING_TYPES)
    return gathered(found)


# The same document is read for each draft of a project.
@lru_cache(maxsize=16)
def _stack_of(text: str) -> Stack:
    """Read a document of the type TECH_STACK."""
    outline, stack = outline_of(text), Stack()
    for prose in outline.prose:
        if prose.kind != "cell" and (rejected := _REJECTED.match(prose.text)):
            _reject(prose, rejected.end(), stack)
        elif prose.kind == "cell" and _REJECTED_COLUMN.search(prose.column):
            _reject(prose, 0, stack)
        elif left := _left_out(prose):
            _leave_out(left, stack)
        else:
            _allow(prose, stack)
    for name in list(stack.allowed):
        for brought in catalogue().brings.get(name, []):
            stack.allowed.setdefault(brought, Technology(brought, ""))
    for table in outline.tables:
        stack.versions.update((name, version) for name, version, _ in _versions(table))
    stack.rejected -= stack.allowed.keys()
    return stack


def _allow(prose: Prose, stack: Stack) -> None:
    names = list(technologies_in(prose, trusting=prose.kind == "cell"))
    otherwise = Signs(prose.text, _OTHERWISE) if names else None
    for named in names:
        if prose.kind == "cell" or not (otherwise and otherwise.near(named.start)):
            stack.allowed[named.technology.name] = named.technology
            if prose.kind == "cell" and (version := _version_after(prose, named)):
                stack.versions.setdefault(named.technology.name, version)


def _reject(prose: Prose, start: int, stack: Stack) -> None:
    """The first sentence names what was rejected, the others say why."""
    sentence = Prose(first_sentence(prose.text, start), prose.line, "text")
    stack.rejected |= {named.technology.name for named in technologies_in(sentence, trusting=True)}


def _left_out(prose: Prose) -> str:
    """What an item or row says the stack does without; "" where it says no such thing."""
    in_section = any(_LEFT_OUT_HEADING.search(title) for title in prose.headings[-1:])
    if prose.kind == "cell":
        return prose.text if in_section and prose.first else ""
    if prose.kind != "item":
        return ""
    found = _LEFT_OUT.match(prose.text)
    if found:
        return found[1] if in_section or not _STATES.search(found[1]) else ""
    if in_section:
        return re.split(r"[,:;.–—]|\bbecause\b", prose.text, maxsplit=1)[0]
    return ""


def _leave_out(phrase: str, stack: Stack) -> None:
    named = Prose(phrase, 1, "text")
    stack.rejected |= {one.technology.name for one in technologies_in(named, trusting=True)}
    for match in catalogue().nouns.find(words_of(phrase)):
        for category in match.value:
            stack.left_out.setdefault(category, _ARTICLE.sub("", plain(phrase)))


def _in_prose(prose: Prose, stack: Stack, *, weighing: bool) -> Iterator[Finding]:
    names = list(technologies_in(prose))
    titles = [*prose.headings[1:], prose.column]
    if not names or any(_OTHERWISE.search(one) or _OUTSIDE.search(one) for one in titles):
        return
    otherwise, moving = Signs(prose.text, _OTHERWISE), Signs(prose.text, _MOVING)
    for named in names:
        if otherwise.near(named.start):
            continue
        if not moving.near(named.start):
            yield from _other_version(prose, named, stack)
        if not weighing:
            yield from _contradiction(prose, named, stack)


def _contradiction(prose: Prose, named: Named, stack: Stack) -> Iterator[Finding]:
    name, category = named.technology
    if name in stack.allowed:
        return
    chosen = [one.name for one in stack.allowed.values() if one.category == category]
    if name in stack.rejected:
        says = "TECH_STACK rejects it; take it out"
    elif category in stack.left_out and not chosen:
        says = f"TECH_STACK says: no {stack.left_out[category]}; take it out"
    elif chosen and category not in catalogue().together:
        says = f"the {category} in TECH_STACK is {_listed(chosen)}; name that"
    else:
        return
    message = f"{name} is named here, but {says}, or change the stack."
    yield Finding("contradicts_tech_stack", message, prose.line_at(named.start))


def _other_version(prose: Prose, named: Named, stack: Stack) -> Iterator[Finding]:
    due = stack.versions.get(named.technology.name)
    found = _version_after(prose, named) if due else None
    if due and found:
        yield from _unlike(named.technology.name, found, due, prose.line_at(named.start))


def _version_after(prose: Prose, named: Named) -> str | None:
    found = _VERSION.match(prose.text, named.end)
    if found is None:
        return None
    after = words_of(prose.text[found.end() : found.end() + 20])
    return None if after and after[0].form in _UNITS else found[1]


def _versions_in_table(table: Table, stack: Stack) -> Iterator[Finding]:
    if any(_OTHERWISE.search(title) for title in table.headings[1:]):
        return
    for name, version, line in _versions(table):
        if name in stack.versions:
            yield from _unlike(name, version, stack.versions[name], line)


def _unlike(name: str, found: str, due: str, line: int) -> Iterator[Finding]:
    pairs = zip(found.split("."), due.split("."), strict=False)
    if any(one != other for one, other in pairs):
        message = f"{name} has version {found} here, but {due} in TECH_STACK; correct one of them."
        yield Finding("contradicts_tech_stack", message, line)


def _versions(table: Table) -> Iterator[tuple[str, str, int]]:
    """(technology, version, line) of a table that has a column for versions."""
    at = next((at for at, title in enumerate(table.head) if _VERSION_HEAD.match(title)), 0)
    for row in table.rows if at else ():
        versions = row.cells[at].split(",")
        for cell in row.cells[:at]:
            names = cell.split(",")
            if len(names) == len(versions):
                yield from _paired(names, versions, row.line)


def _paired(
    names: Sequence[str], versions: Sequence[str], line: int
) -> Iterator[tuple[str, str, int]]:
    for name, version in zip(names, versions, strict=True):
        found = list(technologies_in(Prose(name.strip(), line, "cell"), trusting=True))
        number = _VERSION_CELL.match(version)
        if len(found) == 1 and number:
            yield found[0].technology.name, number[1], line


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
