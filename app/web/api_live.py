"""What is related to a span, straight from the graph.

Invariant: the JSON is that of a job's result for the same span.
"""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Response

from app.core.jobs import NotFoundError
from app.jobs.wiring import GRAPH, require
from app.models import MAX_OFFSET, RelatedText
from app.web.ids import TextId, check_text
from app.web.parts import Services
from app.web.problems import FieldError, may_answer

router: Final = APIRouter(tags=["relations"])

EXAMPLE: Final = [
    {
        "manifestation_id": "translation-en",
        "segments": [{"segment_id": "translation-en.segmentation.0", "span": {"start": 0, "end": 60}}],
    }
]
ANSWERS: Final = {**may_answer(404), 200: {"content": {"application/json": {"example": EXAMPLE}}}}
Offset = Annotated[int, Query(ge=0, le=MAX_OFFSET, description="In characters; the span is half-open.", examples=[0])]


@router.get("/relation/{manifestation_id:path}/segments", response_model=list[RelatedText], responses=ANSWERS)
def read_related(manifestation_id: TextId, start: Offset, end: Offset, parts: Services) -> Response:
    """Every segment of every other text that belongs to this span, as the graph is now; no job is made."""
    check_text(manifestation_id)
    if start > end:
        raise FieldError("start", f"must not be greater than end: it is {start}, end is {end}")
    require(*GRAPH)
    extent = parts.graph.find_extent(manifestation_id)
    if extent is None:
        raise NotFoundError(f"the manifestation {manifestation_id!r} does not exist in the graph")
    for field, offset in (("start", start), ("end", end)):
        if extent.end is not None and offset > extent.end:
            reason = f"{offset} is outside the text {manifestation_id!r}, whose last segment ends at {extent.end}"
            raise FieldError(field, reason)
    return Response(parts.live.relate(manifestation_id, start, end).encode(), media_type="application/json")
