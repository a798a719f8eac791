"""The page for people at `/`, made by `make page` from `web/`; and what answers there, for others.

Where nobody has made it, `/` says what answers at this address, as it does to programs.
"""

import hashlib
import mimetypes
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from api.access.rules import GuardedRoute, open_to_all
from api.browsers import POLICY, policy
from api.errors import DRAFTING_PREFIX, not_found
from api.etags import etag, names
from api.settings import PAGE

router = APIRouter(tags=["service"], route_class=GuardedRoute, dependencies=[Depends(open_to_all)])

_POLICY = policy(
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    # No string becomes HTML, but through Svelte's own templates and the sanitizer.
    "require-trusted-types-for 'script'",
    "trusted-types svelte-trusted-html dompurify",
)
_ENCODINGS = {"br": ".br", "gzip": ".gz"}
"""What is made beside each text of the page, the smaller one first."""

_WEIGHT = re.compile(r"[01](\.\d{0,3})?")
_ASSET = re.compile(r"[\w-][\w.-]{0,99}-[\w-]{8}\.\w{1,9}", re.ASCII)


class About(BaseModel):
    """What answers at this address."""

    name: str = "Archwright"
    version: str
    status: Literal["running"] = "running"
    docs: str = "/docs"
    api_v1: str = DRAFTING_PREFIX


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    digest: str


@router.head("/", include_in_schema=False)
@router.get("/", response_model=About)
async def about(request: Request) -> Response:
    """What answers at this address; to a browser, the page for people."""
    headers = {"Vary": "Accept, Accept-Encoding"}
    if _quality(request, "accept", "text/html") > _quality(request, "accept", "application/json"):
        headers |= {POLICY: _POLICY, "Cache-Control": "no-cache"}
        if page := _answer(request, PAGE / "index.html", headers):
            return page
    told = About(version=version("archwright")).model_dump_json()
    return Response(told, media_type="application/json", headers={"Vary": headers["Vary"]})


@router.get("/assets/{name}", include_in_schema=False)
async def get_asset(name: str, request: Request) -> Response:
    """A script, style or picture of the page. It has another name where it has other content."""
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
    # No other names are made, and none of them leads to another folder.
    is_asset = _ASSET.fullmatch(name)
    if not is_asset or not (answer := _answer(request, PAGE / "assets" / name, headers)):
        raise not_found("file")
    return answer


def _answer(request: Request, path: Path, headers: dict[str, str]) -> Response | None:
    """The file in the encoding that is accepted; null where there is none."""
    encoding = next((one for one in _ENCODINGS if _quality(request, "accept-encoding", one)), None)
    file = _read(path.with_name(path.name + _ENCODINGS[encoding])) if encoding else None
    if file:
        headers = {**headers, "Content-Encoding": str(encoding)}
    elif not (file := _read(path)):
        return None
    headers = {**headers, "ETag": etag(file.digest)}
    if names(request.headers.get("if-none-match", ""), file.digest, weak=True):
        return Response(status_code=304, headers=headers)
    kind = mimetypes.guess_type(path.name)[0]
    return Response(file.content, media_type=kind, headers=headers)


def _read(path: Path) -> _File | None:
    try:
        return _read_version(path, path.stat().st_mtime_ns)
    except FileNotFoundError:
        return None


@lru_cache(maxsize=256)
def _read_version(path: Path, _changed: int) -> _File:
    content = path.read_bytes()
    return _File(content, hashlib.sha256(content).hexdigest()[:32])


def _quality(request: Request, header: str, wanted: str) -> float:
    """How much the client likes what it names there, from 0 to 1; a wildcard names nothing."""
    for one in request.headers.get(header, "").lower().split(","):
        name, *parameters = (part.strip() for part in one.split(";"))
        if name == wanted:
            weights = [part[2:] for part in parameters if part.startswith("q=")]
            return float(weights[0]) if weights and _WEIGHT.fullmatch(weights[0]) else 1.0
    return 0.0
