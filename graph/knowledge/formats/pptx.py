"""PowerPoint files: each slide's title, text, tables and the speaker's notes."""

from collections.abc import Iterable, Iterator
from io import BytesIO

from pptx import Presentation
from pptx.enum.shapes import PP_PLACEHOLDER
from pptx.shapes.autoshape import Shape
from pptx.shapes.base import BaseShape
from pptx.shapes.graphfrm import GraphicFrame
from pptx.shapes.group import GroupShape
from pptx.slide import Slide
from pptx.text.text import TextFrame

from graph.knowledge.blocks import Block, Page
from graph.knowledge.formats.tables import tables

_MARGINAL = {PP_PLACEHOLDER.DATE, PP_PLACEHOLDER.FOOTER, PP_PLACEHOLDER.SLIDE_NUMBER}
_SUBTITLES = {PP_PLACEHOLDER.SUBTITLE, PP_PLACEHOLDER.TITLE, PP_PLACEHOLDER.CENTER_TITLE}


def read(data: bytes, name: str) -> Iterator[Page]:
    """Read the slides in order; pictures and charts are left out."""
    presentation = Presentation(BytesIO(data))
    for number, slide in enumerate(presentation.slides, 1):
        yield Page(number, list(_slide(slide)))


def _slide(slide: Slide) -> Iterator[Block]:
    title = slide.shapes.title
    if title is not None and title.text_frame.text.strip():
        yield Block("heading", _one_line(title.text_frame.text), 1)
    for shape in _leaves(slide.shapes):
        if title is None or shape.shape_id != title.shape_id:
            yield from _shape(shape)
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        notes = _lines(slide.notes_slide.notes_text_frame, is_list=False)
        if notes:
            yield Block("heading", "Notes", 2)
            yield Block("text", "\n".join(notes))


def _leaves(shapes: Iterable[BaseShape]) -> Iterator[BaseShape]:
    """Give the shapes in reading order, those in groups too."""
    waiting = list(shapes)[::-1]
    while waiting:
        shape = waiting.pop()
        if isinstance(shape, GroupShape):
            waiting += list(shape.shapes)[::-1]
        else:
            yield shape


def _shape(shape: BaseShape) -> Iterator[Block]:
    kind = shape.placeholder_format.type if shape.is_placeholder else None
    if kind in _MARGINAL:
        return
    if isinstance(shape, GraphicFrame) and shape.has_table:
        yield from tables([cell.text for cell in row.cells] for row in shape.table.rows)
    elif isinstance(shape, Shape):
        is_list = shape.is_placeholder and kind not in _SUBTITLES
        lines = _lines(shape.text_frame, is_list=is_list)
        if lines:
            yield Block("text", "\n".join(lines))


def _lines(frame: TextFrame, *, is_list: bool) -> list[str]:
    found = [(paragraph.level, _one_line(paragraph.text)) for paragraph in frame.paragraphs]
    return ["  " * level + "- " * is_list + text for level, text in found if text]


def _one_line(text: str) -> str:
    return " ".join(text.split())
