"""Word files, by way of the HTML that mammoth makes of them."""

from io import BytesIO
from zipfile import ZipFile

import mammoth  # type: ignore[import-untyped]

from graph.knowledge.blocks import Page
from graph.knowledge.formats.html import blocks

_PROLOGUE = 65_536
# Beside mammoth's own; the names are those in the file, which Word does not translate.
_STYLES = "\n".join(
    [
        "p[style-name='Title'] => h1:fresh",
        *(f"p[style-name='heading {level}'] => h6:fresh" for level in (7, 8, 9)),
        *(
            f"p[style-name='{name}'] => pre:separator('\\n')"
            for name in ("HTML Preformatted", "Preformatted Text", "Source Code", "Code")
        ),
        "p[style-name='TOC Heading'] => !",
        *(f"p[style-name='toc {level}'] => !" for level in range(1, 10)),
    ]
)


def read(data: bytes, name: str) -> list[Page]:
    """Read a Word file: body, tables, text boxes and notes, without pictures and comments."""
    _refuse_entities(data)
    result = mammoth.convert_to_html(
        BytesIO(data),
        style_map=_STYLES,
        include_embedded_style_map=False,
        convert_image=_no_image,
    )
    return [Page(None, blocks(result.value))]


def _refuse_entities(data: bytes) -> None:
    """Raise ValueError where XML declares a document type: Word never does.

    Entities that stand for more and more others take the XML parser that mammoth uses long.
    """
    with ZipFile(BytesIO(data)) as archive:
        for member in archive.namelist():
            if member.endswith((".xml", ".rels")):
                with archive.open(member) as file:
                    if b"<!DOCTYPE" in file.read(_PROLOGUE):
                        raise ValueError("a document type")


def _no_image(image: object) -> list[object]:
    return []
