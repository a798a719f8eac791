"""Unicode's form NFKC in a time that grows with the text.

Marks behind one letter are put into an order by their pairs: a hundred thousand of them take ten
seconds, in which no other thread does anything. Source: UAX #15, section 3.1.
"""

import re
from unicodedata import normalize

# An ASCII character never joins with what stands before it.
_PIECES = re.compile(r"(?s).{1,256}[^\x00-\x7f]{0,256}")


def nfkc(text: str) -> str:
    """`text` in compatibility form; only a run of over 256 marks or so may come out otherwise."""
    if text.isascii():
        return text
    return "".join(normalize("NFKC", piece) for piece in _PIECES.findall(text))
