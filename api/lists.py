"""How every list is paged: `limit` and `before`."""

from datetime import datetime
from typing import Annotated

from fastapi import Query

Limit = Annotated[int, Query(ge=1, le=200, description="How many at most.")]
Before = Annotated[datetime | None, Query(description="Only what is older than this ISO time.")]
