"""The API's own description, `/openapi.json` and `/docs`, which loads nothing from elsewhere."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.routing import iter_route_contexts
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response

from api.access.rules import Caller, GuardedRoute, needs_of
from api.browsers import POLICY, policy, scripts_of
from api.errors import not_found

router = APIRouter(include_in_schema=False, route_class=GuardedRoute)

_ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}


@router.get("/openapi.json")
async def get_openapi(request: Request, caller: Caller) -> JSONResponse:
    """The OpenAPI document; `x-needs` says what a caller needs for an operation."""
    schema: dict[str, Any] = request.app.openapi()
    for route in iter_route_contexts(request.app.routes):
        for method in route.methods or ():
            operation = schema["paths"].get(route.path_format, {}).get(method.lower())
            if operation is not None:
                operation["x-needs"] = sorted(needs_of(route.dependant))
    return JSONResponse(schema)


@router.get("/docs")
async def get_docs(caller: Caller) -> HTMLResponse:
    """The OpenAPI document as a page to read and try."""
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="Archwright",
        swagger_js_url="/docs/swagger-ui-bundle.js",
        swagger_css_url="/docs/swagger-ui.css",
        swagger_favicon_url="/docs/favicon.png",
    )
    page.headers[POLICY] = policy(
        scripts_of(bytes(page.body).decode()),
        "style-src 'self'",
        # Its style sheet has its icons in itself.
        "img-src 'self' data:",
        "connect-src 'self'",
    )
    return page


@router.get("/docs/{name}")
async def get_asset(name: str, caller: Caller) -> Response:
    """A file of the page, from the package that brings it."""
    if name not in _ASSETS:
        raise not_found("file")
    path = Path(str(files("fastapi_offline"))) / "static" / name
    return FileResponse(path, media_type=_ASSETS[name])
