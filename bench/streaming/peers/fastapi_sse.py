"""What FastAPI and the openai SDK give: each token an event."""

import os
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.sse import EventSourceResponse, ServerSentEvent
from openai import AsyncOpenAI
from pydantic import BaseModel

from bench.streaming.model import NAME

app = FastAPI()
client = AsyncOpenAI(base_url=os.environ["MODEL_URL"], api_key="none", max_retries=0)


class Asked(BaseModel):
    """A question."""

    message: str


@app.post("/chat", response_class=EventSourceResponse)
async def chat(asked: Asked) -> AsyncIterator[ServerSentEvent]:
    """The model's answer, token by token."""
    stream = await client.chat.completions.create(
        model=NAME, messages=[{"role": "user", "content": asked.message}], stream=True
    )
    async for chunk in stream:
        if chunk.choices and (token := chunk.choices[0].delta.content):
            yield ServerSentEvent(event="token", data={"token": token})
    yield ServerSentEvent(event="done", data={})
