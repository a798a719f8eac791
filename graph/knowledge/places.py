"""Where a chunk stands, and what it is called in the vector store."""

Place = tuple[str, int]
"""A chunk: its document's id and its position in it."""


def record_of(place: Place) -> str:
    """The id of a chunk's vector."""
    document_id, position = place
    return f"{document_id}/{position}"


def place_of(record: str) -> Place:
    """The chunk of a vector's id."""
    document_id, _, position = record.partition("/")
    return document_id, int(position)
