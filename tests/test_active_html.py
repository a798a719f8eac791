"""What is taken out of Markdown, against what CommonMark reads as HTML and as code."""

import random

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from test_sanitizing import Active

from api.active_html import strip_active_html

LEADS = ["", "", "  ", "    ", "\t", "      ", "- ", "1. ", "10. ", ">     ", "-     ", "  - "]
LINES = [
    *(
        "",
        "",
        "a",
        "```",
        "````",
        "~~~",
        "```x",
        "<div>",
        "</div>",
        "<!--",
        "-->",
        "<pre>",
        "[a]: b",
    ),
    *(
        "<script>x</script>",
        "<b onclick=x>",
        "<a href='javascript:x'>y</a>",
        "<embed>",
        "# h",
        "---",
    ),
    *("a `b", "<script>", "</script>", "<x-y onfocus=z>", "<?", "===", "2. <img onerror=y>"),
]
BLOCKS = [
    *("a", "<b onclick=x>b</b>", "> a\n> b", "- a\n  - b", "# h", "a <script>b</script>"),
    *(
        "    <b onclick=x>",
        "\t<script>\n\n\tx</script>",
        "```\n<script>x\n```",
        "~~~\n\n<embed>\n~~~",
    ),
    *(
        "- a\n\n  - ```\n    <embed>\n\n    ```",
        "> ```\n> <embed>\n> ```",
        "1. ~~~\n   <embed>\n   ~~~",
    ),
]


def tokens(text: str) -> list[Token]:
    """What CommonMark reads in `text`."""
    blocks = MarkdownIt("commonmark").parse(text + "\n")
    return [token for block in blocks for token in (block, *(block.children or ()))]


@pytest.mark.parametrize("seed", range(5))
def test_what_commonmark_takes_for_html_is_never_active(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(200):
        lines = [rng.choice(LEADS) + rng.choice(LINES) for _ in range(rng.randint(1, 8))]
        stripped = strip_active_html("\n".join(lines))
        html = [one.content for one in tokens(stripped) if one.type.startswith("html")]
        assert [Active(content).found for content in html] == [[]] * len(html), repr(lines)
        assert strip_active_html(stripped) == stripped, repr(lines)


@pytest.mark.parametrize("seed", range(5))
def test_what_commonmark_takes_for_code_stays(seed: int) -> None:
    rng = random.Random(100 + seed)
    for _ in range(100):
        text = "\n\n".join(rng.choices(BLOCKS, k=rng.randint(1, 6)))
        before, after = (
            [one.content for one in tokens(each) if one.type in ("fence", "code_block")]
            for each in (text, strip_active_html(text))
        )
        assert after == before, repr(text)
