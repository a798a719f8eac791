"""What routes ask for by type: the parts of the service."""

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from api.access.credentials import Credentials
from api.erasure import Erasure
from api.fair_use import FairUse
from api.ingestion import Ingestion
from api.measuring import Metrics
from api.runs.engine import Runs
from api.settings import Settings
from api.turns import Turns
from graph.knowledge.library import Library
from graph.models import Models
from graph.pipeline import Pipeline
from graph.postgres import Pool
from graph.providers import Providers
from graph.texts.texts import Texts


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that is opened at start and closed at the end, as the routes see it.

    `forgetful_pipeline` remembers no conversations.
    """

    settings: Settings
    credentials: Credentials
    pool: Pool
    fair_use: FairUse
    texts: Texts
    library: Library
    models: Models
    providers: Providers
    forgetful_pipeline: Pipeline
    runs: Runs
    turns: Turns
    ingestion: Ingestion
    erasure: Erasure
    metrics: Metrics


async def get_parts(request: Request) -> Parts:
    """The parts of the service."""
    return cast(Parts, request.state.parts)


Service = Annotated[Parts, Depends(get_parts)]
