"""What a question asks for, once its "it" is known: no model is asked."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from graph.knowledge.terms import terms, words

_FURTHEST = 3
_FEW_WORDS = 1
_EARLIER_WEIGHT = 0.4
_LEANS = re.compile(
    r"""(?ix)
    \b(?: its? | they | them | theirs? | this | these | those | he | she | him | his | hers? )\b
    | \b (?: is | was | do | does | did | can | could | will | would | has | had ) \s+ that \b
    | \b that (?: \s+ (?:one|case|then) \b | \s*+ [?.!,]?+ \s*+ $ )
    | ^\W* (?: and | but | or | so | then | also | else | what \s+ (?:about|else|if)
             | how \s+ (?:about|come) ) \b
    | \b the \s+ (?: same | others? | former | latter | first | second | last ) \b
    | \b (?: instead | otherwise ) \b
    """
)


@dataclass(frozen=True)
class Question:
    """A question and, where it leans on them, the questions before it (`earlier`, else "")."""

    text: str
    earlier: str = ""

    @property
    def whole(self) -> str:
        """The text whose vector is searched for."""
        return f"{self.earlier}\n{self.text}" if self.earlier else self.text

    @property
    def terms(self) -> dict[str, float]:
        """The terms to look up, each with its weight."""
        earlier = dict.fromkeys(terms(self.earlier), _EARLIER_WEIGHT)
        return {**earlier, **dict.fromkeys(terms(self.text), 1.0)}


def understood(text: str, before: Sequence[str] = ()) -> Question:
    """`text` with what it leans on. `before`: the questions of the conversation, oldest first.

    "Which package ships it?" says little alone: the terms of the question before it count too, and
    of that before, if that leans as well.
    """
    earlier: list[str] = []
    asked = text
    for question in [*reversed(before)][:_FURTHEST]:
        if not _leans(asked):
            break
        earlier.insert(0, question)
        asked = question
    return Question(text, "\n".join(earlier))


def _leans(text: str) -> bool:
    return bool(_LEANS.search(text)) or len(set(words(text))) <= _FEW_WORDS
