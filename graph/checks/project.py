"""What a draft is checked against."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from graph.texts.paths import document_names


@dataclass(frozen=True, slots=True)
class Kind:
    """The document type of a draft; of JSON types the headings are the keys of the object."""

    name: str
    output_path: str
    required_headings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Project:
    """The project that a draft belongs to.

    `documents` is name to text; a name is a path or a file name. `output_paths` is the known
    document types with their paths. `is_whole`: a type of which no document is here has none.
    """

    documents: Mapping[str, str] = field(default_factory=dict)
    output_paths: Mapping[str, str] = field(default_factory=dict)
    is_whole: bool = True

    def document_of(self, kind: str) -> str | None:
        """The text of the document of a type; null if there is none."""
        paths = document_names(kind, self.output_paths.get(kind, f"{kind}.md"))
        names = {file_name(path) for path in paths}
        found = (text for name, text in self.documents.items() if file_name(name) in names)
        return next(found, None)

    def type_at(self, path: str) -> str | None:
        """The document type whose output path this is."""
        return next((kind for kind, one in self.output_paths.items() if one == path), None)


def file_name(path: str) -> str:
    """The last part of a path."""
    return path.rsplit("/", 1)[-1]
