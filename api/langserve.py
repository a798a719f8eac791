"""Mounts LangServe's routes and playground for the pipeline, for admins."""

from fastapi import Depends, FastAPI
from langserve import add_routes

from api.dependencies import require_admin
from graph.pipeline import Pipeline
from graph.state import Turn

PATH = "/langserve/pipeline"


def mount(app: FastAPI, pipeline: Pipeline) -> None:
    """Add `/langserve/pipeline/{invoke,batch,stream,stream_log,playground,...}` to the app."""
    add_routes(
        app,
        pipeline.with_types(input_type=Turn),
        path=PATH,
        dependencies=[Depends(require_admin)],
        playground_type="default",
        enable_feedback_endpoint=False,
        enable_public_trace_link_endpoint=False,
    )
