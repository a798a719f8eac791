"""The least that a server can do: hand on what the model sends, read by read."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Connections to the model, for as long as the app runs."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as app.state.session:
        yield


async def relay(request: Request) -> StreamingResponse:
    """The model's stream as it is."""
    url = f"{os.environ['MODEL_URL']}/chat/completions"
    body = await request.body()
    headers = {"Content-Type": "application/json"}

    async def reads() -> AsyncIterator[bytes]:
        async with request.app.state.session.post(url, data=body, headers=headers) as response:
            async for read in response.content.iter_any():
                yield read

    return StreamingResponse(reads(), media_type="text/event-stream")


app = Starlette(routes=[Route("/chat/completions", relay, methods=["POST"])], lifespan=lifespan)
