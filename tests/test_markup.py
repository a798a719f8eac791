"""HTML and Markdown become plain blocks: what a reader sees, without mark-up."""

import pytest

from graph.checks.outline import outline_of
from graph.knowledge.blocks import Block
from graph.knowledge.parsing import parse

MARKDOWN = """---
title: not shown
---
# Valve *manual* <a id="valve"></a>

The `valve` opens at
**3 bar**, see [here](https://example.org) &amp; below.\\
It closes itself.

Setext
------

- first
  item
- second

  more of it
  1. inner
  2. other

| Part | Bar |
|------|----:|
| `A`  | 3   |
| B \\| C |   |

> **Note**
>
> quoted

```sh
# no heading
open  --valve
```

![picture](p.png)<br>
<div>raw <b>HTML</b></div>
"""
HTML = """<!DOCTYPE html><html><head><title>no</title><style>p {}</style></head>
<body><nav><a href="/">Home</a></nav><div class="toc"><p>Contents</p></div>
<h1><a name="x"></a>Pump<a class="headerlink" href="#x">¶</a></h1>
<p>It   delivers<br>12&nbsp;l, <i>al</i>ways <span hidden>never</span>.
<script>alert("no")</script><p style="display: none">unseen</p>
loose text <a href="#n">§</a>
<dl><dt>bar</dt><dd><p>unit of pressure</p></dd><dt>alone</dt><dt>litre</dt><dd>unit</dd></dl>
<ol start="3"><li>three<ul><li>deep</li></ul></li><li><p>four</p><pre>
 x &lt; 1
   y</pre>after</li></ol>
<table><caption>Parts</caption><tr><th>Part<th colspan=2>Size<tr><td>A<p>big</p><td>1<br>2<td>
<tr><td></td><td></td></tr></table>
<table><tr><td><h2>Layout</h2></td><td>not data</td></tr></table>
<svg><text>drawn</text></svg><textarea>typed</textarea>
</body></html>"""


def blocks_of(text: str, name: str) -> list[Block]:
    [page] = parse(text.encode(), name).pages
    assert page.number is None
    return page.blocks


def test_markdown_becomes_plain_blocks() -> None:
    assert blocks_of(MARKDOWN, "valve.md") == [
        Block("heading", "Valve manual", 1),
        Block("text", "The valve opens at 3 bar, see here & below.\nIt closes itself."),
        Block("heading", "Setext", 2),
        Block("text", "- first item\n- second\n  more of it\n  1. inner\n  2. other"),
        Block("table", "| Part | Bar |\n| --- | --- |\n| A | 3 |\n| B | C |  |"),
        Block("text", "Note"),
        Block("text", "quoted"),
        Block("code", "# no heading\nopen  --valve"),
        Block("text", "raw HTML"),
    ]


@pytest.mark.parametrize(
    ("front", "shown"),
    [
        ("---\ntitle: x\n\n# note\n---\n", []),
        ("---\n# yaml-language-server: x\n'a-b':\n  - c\n--- \n", []),
        ('+++\n# x\n[params]\n"a" = 1\n+++\n', []),
        ("---\n\nImportant: oil it once a week.\n\n---\n", ["Important: oil it once a week."]),
        ("---\nThree states: open, shut.\n\n---\n", ["Three states: open, shut."]),
        ("---\n## Oil\n\nNote: weekly.\n\n---\n", ["Oil", "Note: weekly."]),
        ("---\nAt:http://a.b/c\n\n---\n", ["At:http://a.b/c"]),
        ("+++\n\nMore.\n\n+++\n", ["+++", "More.", "+++"]),
        ("---\ntitle: x\n", ["title: x"]),
    ],
)
def test_front_matter_begins_with_a_key_and_a_rule_begins_none(
    front: str, shown: list[str]
) -> None:
    texts = [block.text for block in blocks_of(f"{front}\n# Guide", "guide.md")]
    assert texts == [*shown, "Guide"]
    assert bool(outline_of(front).prose) == bool(shown)


def test_html_becomes_what_a_reader_sees() -> None:
    assert blocks_of(HTML, "pump.html") == [
        Block("heading", "Pump", 1),
        Block("text", "It delivers\n12 l, always ."),
        Block("text", "loose text"),
        Block("text", "- bar: unit of pressure\n- alone\n- litre: unit"),
        Block("text", "3. three\n  - deep\n4. four"),
        Block("code", " x < 1\n   y"),
        Block("text", "  after"),
        Block("text", "Parts"),
        Block("table", "| Part | Size |\n| --- | --- |\n| A big | 1 2 |"),
        Block("heading", "Layout", 2),
        Block("text", "not data"),
    ]


@pytest.mark.parametrize("name", ["script", "TITLE", "iframe", "nav", "plaintext", "xmp"])
def test_a_tag_that_prose_names_is_shown_and_takes_nothing_that_follows(name: str) -> None:
    prose = f"# Threats\n\nPut <{name}> there, or <video/>.\n\n## *Limits*\n\nIt </{name}> ends."
    assert blocks_of(prose, "a.md") == [
        Block("heading", "Threats", 1),
        Block("text", f"Put <{name}> there, or ."),
        Block("heading", "Limits", 2),
        Block("text", "It ends."),
    ]
    assert blocks_of(f"<{name}> is *bad*.\n\n<!-- more", "a.md")[0].text.startswith(f"<{name}>")


def test_what_tags_of_markdown_take_up_to_their_end_is_not_shown() -> None:
    whole = "<nav>\n\n[a](b)\n\n<svg>\n<title>c</title>\n</svg>\n\n</nav>\n\n<!-- <nav> -->\n\n"
    assert blocks_of(f"{whole}An <svg><title>x</title></svg> icon <!-- y -->.", "a.md") == [
        Block("text", "An icon ."),
    ]
    assert blocks_of("Open:\n\n<!-- one\n\n<!-- two\n\n# More", "a.md") == [
        Block("text", "Open:"),
        Block("text", "<!-- one <!-- two # More"),
    ]


def test_a_long_table_is_cut_and_each_part_has_the_header() -> None:
    rows = "".join(f"|{number}|x|\n" for number in range(1, 82))
    tables = [block.text.split("\n") for block in blocks_of(f"|No|Name|\n|-|-|\n{rows}", "a.md")]
    assert [(len(lines), lines[0], lines[2]) for lines in tables] == [
        (42, "| No | Name |", "| 1 | x |"),
        (42, "| No | Name |", "| 41 | x |"),
        (3, "| No | Name |", "| 81 | x |"),
    ]


def test_what_spans_rows_stands_in_each_and_what_is_beside_it_keeps_its_column() -> None:
    plans = """<table><tr><th>Plan<th>Region<th>Price
        <tr><td rowspan=2>Basic<td>EU<td>5<tr><td>US<td>7
        <tr><td>Pro<td rowspan=65534 colspan=2>any<tr><td rowspan=0>Max<tr></tr><tr><td></table>"""
    assert blocks_of(f"<html>{plans}", "a.html") == [
        Block(
            "table",
            "| Plan | Region | Price |\n| --- | --- | --- |\n"
            "| Basic | EU | 5 |\n| Basic | US | 7 |\n"
            "| Pro | any |  |\n| Max | any |  |\n| Max | any |  |",
        )
    ]


def test_a_long_cell_is_told_once_and_no_cell_is_lost_for_its_span() -> None:
    long = "word " * 50
    table = f"<table><tr><td rowspan=2>{long}<td>1<tr><td>2</table>"
    layout = "<table><tr><td rowspan=2><h2>A</h2><td colspan=0>B<tr><td>C</table>"
    assert blocks_of(f"<html>{table}{layout}", "a.html") == [
        Block("table", f"| {long.strip()} | 1 |\n| --- | --- |\n|  | 2 |"),
        Block("heading", "A", 2),
        Block("text", "B"),
        Block("text", "C"),
    ]


@pytest.mark.parametrize("tag", ["div", "ul><li", "table><tr><td", "b><i", "blockquote", "pre"])
def test_elements_may_be_nested_without_end(tag: str) -> None:
    assert blocks_of("<html>" + f"<{tag}>" * 20_000 + "deep", "a.html")[-1].text.endswith("deep")


def test_entities_that_a_page_declares_itself_are_not_expanded() -> None:
    bomb = '<!DOCTYPE html [<!ENTITY a "aaaaaaaa"><!ENTITY b SYSTEM "file:///etc/passwd">]>'
    assert blocks_of(f"{bomb}<svg>&a;</svg><p>&a; &b;", "a.html")[-1] == Block("text", "&a; &b;")
