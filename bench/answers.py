"""Answers that a stand-in gives to the questions of a set: right ones, and ones spoiled."""

import re
from collections.abc import Callable, Iterator

from graph.sentences import sentences

SYNONYMS = {
    "must": "has to",
    "may": "might",
    "allows": "lets",
    "ensure": "make sure",
    "e.g.": "for example",
    "i.e.": "that is",
    "use": "make use of",
    "therefore": "so",
    "however": "but",
    "in order to": "to",
    "please": "",
    "can be": "may be",
    "such as": "like",
    "usually": "normally",
}
OPPOSITES = {
    "must": "may",
    "always": "never",
    "before": "after",
    "after": "before",
    "first": "last",
    "minimum": "maximum",
    "more": "fewer",
    "greater": "smaller",
    "enable": "disable",
    "enabled": "disabled",
    "include": "exclude",
    "required": "optional",
    "local": "remote",
    "start": "stop",
    "stopped": "started",
    "higher": "lower",
    "allows": "forbids",
    "older": "newer",
}
GENERAL = (
    "The largest file that may be uploaded to the archive is 2 GB.",
    "Two-factor authentication is turned on in the account settings under Security.",
    "Travel costs are reimbursed by the treasurer once the receipts have been sent.",
    "A Prometheus exporter reads the values of the UPS and serves them on port 9199.",
    "A lead-acid battery of a UPS should be replaced every three to five years.",
    "Run the container with the option --device so that upsd can reach the USB port.",
    "The directory /tmp must have the mode 1777 with the sticky bit set.",
    "Container images are stored below /var/lib/docker by default.",
    "A Kubernetes cluster is monitored with the check plugin check_kubernetes.",
    "One satellite can handle some 10000 hosts and services before it is overloaded.",
    "Water boils at 100 degrees Celsius at sea level.",
    "The package maintainer is the person who is responsible for the package.",
    "Monitoring helps to find problems before the users notice them.",
    "A file system keeps files in directories on a disk.",
    "It is a good idea to make a backup of the configuration before upgrading the system.",
)

_ITEM = re.compile(r"\A(?:\d+[.)]|[-*•])\s+")
_NOT = re.compile(r"(?<! or)\s+(?:not|never)\b|n['’]t\b|\bno\b ?(?=[a-z])")
_HELPS = re.compile(r"\b(?:is|are|will|can|must|should|may|was|were|has|have|could)\b")
_NUMBER = re.compile(r"(?<![\w./:-])\d+(?![\w/:-]|\.\d)")
_NUMBER_WORDS = {"two": "six", "three": "eight", "five": "nine", "seven": "four", "ten": "twelve"}


def plain(text: str) -> str:
    """Letters and digits alone, as quotes are compared."""
    return "".join(char for char in text.lower() if char.isalnum())


def sentence_of(text: str, quote: str) -> str | None:
    """The sentence of `text`, or two or three of them, in which the quote stands."""
    places = list(sentences(text))
    for width in (1, 2, 3):
        for (start, _), (_, end) in zip(places, places[width - 1 :], strict=False):
            if plain(quote) in plain(text[start:end]):
                return " ".join(text[start:end].split())
    return None


def reworded(text: str) -> str:
    """The same with other function words, without what stands in parentheses."""
    text = re.sub(r" \([^()]*\)", "", text)
    for word, other in SYNONYMS.items():
        text = re.sub(rf"\b{re.escape(word)}(?!\w)", other, text)
    return "In short, " + text[0].lower() + text[1:]


def with_other_numbers(text: str) -> str:
    """The same with each number changed."""
    text = _NUMBER.sub(lambda found: str(int(found[0]) * 2 + 3), text)
    return _swapped(text, _NUMBER_WORDS)


def negated(text: str) -> str:
    """The same with its "not" taken out, or one put in."""
    if _NOT.search(text):
        return _NOT.sub("", text)
    return _HELPS.sub(lambda found: f"{found[0]} not", text, count=1)


def turned_round(text: str) -> str:
    """The same with words replaced by their opposites."""
    return _swapped(text, OPPOSITES)


SPOILED: dict[str, Callable[[str], str]] = {
    "numbers changed": with_other_numbers,
    "negated": negated,
    "opposites": turned_round,
}


def spoiled(text: str) -> Iterator[tuple[str, str]]:
    """(how, a wrong sentence) for each sentence and each way in which it can be spoiled."""
    for start, end in sentences(text):
        right = _ITEM.sub("", text[start:end])
        for how, spoil in SPOILED.items():
            wrong = spoil(right)
            if wrong != right:
                yield how, wrong


def _swapped(text: str, table: dict[str, str]) -> str:
    words = "|".join(map(re.escape, table))
    return re.sub(rf"\b(?:{words})\b", lambda found: table[found[0]], text)
