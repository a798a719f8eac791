"""What the service prints once it runs: what is embedded, where the data lies, a line to try."""

import json
import shlex
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from rich.text import Text

from api.settings import PAGE, Settings

if TYPE_CHECKING:
    from api.dependencies import Parts

_BEST_KNOWN = "PROJECT_MANIFESTO"
_WITH_CREDENTIALS = ", for those who send their credentials with each request"


@dataclass(frozen=True)
class Opened:
    """What is known once the parts are open: the default model, the types of documents."""

    model: str
    document_types: tuple[str, ...]

    @classmethod
    def of(cls, parts: "Parts") -> Self:
        """What `parts` say."""
        types = parts.texts.files().document_types()
        return cls(parts.models.resolve(None, None).name, tuple(one.name for one in types))


def welcome(settings: Settings, here: str, opened: Opened, workers: int = 1) -> Text:
    """What runs where, and one line to try it."""
    lines = [
        Text.assemble((f"Archwright {version('archwright')}", "bold"), " is running.\n"),
        *(
            Text.assemble((f"  {label:<16}", "dim"), value)
            for label, value in _facts(settings, here, opened.model, workers)
        ),
        Text("\nTry it from another terminal (Ctrl-C here stops the service):\n"),
        Text(_curl_line(settings, here, opened.document_types)),
    ]
    return Text("\n").join(lines)


def _curl_line(settings: Settings, here: str, names: Sequence[str]) -> str:
    """One line for a shell that has a document drafted by the service at `here`."""
    body = {
        "conversation_id": str(uuid.uuid4()),
        "project_id": str(uuid.uuid4()),
        "doc_type": _BEST_KNOWN if _BEST_KNOWN in names else next(iter(names), None),
        "message": "Draft this for a network of buoys that warns a harbour of floods.",
    }
    key = ""
    if settings.needs_credentials:
        shown = "X-API-Key: $API_KEY" if settings.api_key else "Authorization: Bearer $TOKEN"
        key = f' -H "{shown}"'
    return (
        f"curl -N {here}/api/v1/chat/stream -H 'Content-Type: application/json'{key} "
        f"-d {shlex.quote(json.dumps(body))}"
    )


def _facts(settings: Settings, here: str, model: str, workers: int) -> list[tuple[str, str]]:
    database = settings.database_url.get_secret_value() if settings.database_url else None
    return [
        ("Database", _place("Postgres", database)),
        ("Vectors", _place("Chroma", settings.chroma_url)),
        ("Embeddings", _embeddings(settings)),
        ("Language model", _language_model(settings, model)),
        ("Web search", "Tavily, external" if settings.tavily_api_key else "off: no TAVILY_API_KEY"),
        ("Data", str(settings.data_dir.resolve())),
        ("Callers", _callers(settings)),
        *([("Workers", f"{workers} processes")] if workers > 1 else []),
        ("Address", here),
        ("Page", f"{here}/" if (PAGE / "index.html").exists() else "none: make page makes it"),
        ("API", f"{here}/docs{_WITH_CREDENTIALS if settings.needs_credentials else ''}"),
    ]


def _place(name: str, url: str | None) -> str:
    if not url:
        return f"{name}, embedded"
    # Without user and password.
    return f"{name} at {urlsplit(url).netloc.rpartition('@')[2]}, external"


def _embeddings(settings: Settings) -> str:
    if settings.embedding_base_url:
        return _place(settings.embedding_model or "", settings.embedding_base_url)
    return _place("WordLlama and MiniLM", None)


def _language_model(settings: Settings, name: str) -> str:
    if not settings.embeds_model:
        return _place(name, settings.openai_base_url or "https://api.openai.com")
    small = "" if settings.local_model_path else ": a small model for demonstration"
    return f"{_place(name, None)}{small}"


def _callers(settings: Settings) -> str:
    if settings.api_key:
        with_tokens = settings.jwt_secret or settings.jwt_jwks_url
        also = ", or a bearer token" if with_tokens else ""
        return f"those who send the X-API-Key (below: export API_KEY first){also}"
    if settings.needs_credentials:
        return "those who send a bearer token (below: export TOKEN first)"
    if settings.allow_anonymous:
        return "everybody who reaches the address, as admin: no credentials are set"
    return "everybody on this machine, as admin: no credentials are set"


def embedded_parts(settings: Settings) -> str:
    """The parts that take a while to start here."""
    here = {
        "Postgres": settings.database_url is None,
        "Chroma": not settings.chroma_url,
        "the language model": settings.embeds_model,
    }
    return ", ".join(name for name, embedded in here.items() if embedded) or "the service"
