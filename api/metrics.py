"""The metrics over HTTP, for Prometheus."""

import asyncio
from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from api.access.rules import GuardedRoute, admin
from api.dependencies import Service

router = APIRouter(tags=["service"], route_class=GuardedRoute, dependencies=[Depends(admin)])

_DOCS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A line for each value; OpenMetrics for who asks for it.",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
}


@router.get("/metrics", response_class=Response, responses=_DOCS)
async def get_metrics(request: Request, service: Service) -> Response:
    """Metrics in Prometheus' format, of all workers together."""
    service.metrics.look(service.runs, service.pool)
    # In a thread: with many workers it takes milliseconds.
    body, kind = await asyncio.to_thread(service.metrics.told, request.headers.get("accept", ""))
    return Response(body, media_type=kind)
