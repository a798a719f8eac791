"""Mounts LangServe's routes and playground for the pipeline, for admins."""

import warnings
from typing import Annotated

from fastapi import Depends, FastAPI
from langserve import add_routes
from pydantic import AfterValidator

from api.dependencies import require_admin
from graph.pipeline import Pipeline
from graph.sanitizing import clean
from graph.state import Message, Turn

PATH = "/langserve/pipeline"


def _checked(turn: Turn) -> Turn:
    if not turn["messages"]:
        raise ValueError("the last of messages must be the question, and there is none")
    messages: list[Message] = [
        {**message, "content": clean(message["content"])} for message in turn["messages"]
    ]
    return {**turn, "messages": messages}


def mount(app: FastAPI, pipeline: Pipeline) -> None:
    """Add `/langserve/pipeline/{invoke,batch,stream,stream_log,playground,...}` to the app."""
    # LangServe's playground lives on it, and nobody who reads our log can change that.
    warnings.filterwarnings("ignore", "astream_log is deprecated")
    add_routes(
        app,
        pipeline.with_types(input_type=Annotated[Turn, AfterValidator(_checked)]),
        path=PATH,
        # A request brings a turn and nothing else: no thread, no key of LangGraph's own.
        config_keys=(),
        dependencies=[Depends(require_admin)],
        enable_feedback_endpoint=False,
        enable_public_trace_link_endpoint=False,
    )
