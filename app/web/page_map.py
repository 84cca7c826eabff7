"""``/ui/map``: related texts as bars, the way that led to each, and a link from each to walk on.

Invariant: every bar says in words what it shows, and what is asked for wrongly is told by the name of its field.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import RedirectResponse

from app.errors import PermanentError, ProcessorError
from app.jobs.producer import check_id
from app.jobs.wiring import GRAPH, require
from app.models import MAX_OFFSET
from app.web.page_login import asks_for_session
from app.web.page_render import HEADERS, InputError, PageRoute, link, render
from app.web.page_words import span
from app.web.parts import Services
from app.web.relation_map import TEXTS_A_PAGE, Related, RelationMap, ShownText

TEXTS_LISTED: Final = 50
"""To begin with."""
WIDTH: Final = 1_000
LEAST_WIDTH: Final = 3.0
"""Of the unit in which a bar has `WIDTH`: less could not be seen."""

router = APIRouter(route_class=PageRoute, dependencies=[Depends(asks_for_session)], include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a bar, from `x` on, in the unit in which a bar has `WIDTH`."""

    x: float
    width: float


@dataclass(frozen=True, slots=True)
class Bar:
    """The whole text, the span of it that is shown, and the segments that overlap it; `label`: the same in words."""

    whole: Stretch
    span: Stretch
    segments: tuple[Stretch, ...]
    label: str


@router.get("/ui/map")
def show_map(
    request: Request,
    parts: Services,
    manifestation: str = "",
    segment: str = "",
    start: str = "",
    end: str = "",
    scale: Annotated[str, Query(pattern="^(own|one)$")] = "own",
    first: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    after: Annotated[str, Query(max_length=512)] = "",
) -> Response:
    """The map of a span; of the whole text without one; without a text the texts that there are."""
    asked = {"manifestation": manifestation, "segment": segment, "start": start, "end": end, "scale": scale}
    if not manifestation:
        texts = _list_texts(parts, after)
        more = link("/ui/map", after=texts[TEXTS_LISTED - 1][0]) if len(texts) > TEXTS_LISTED else None
        return render(request, "map.html", map=None, asked=asked, texts=texts[:TEXTS_LISTED], more=more)
    try:
        check_id(manifestation)
    except PermanentError as error:
        raise InputError(f"manifestation: {error}") from None
    low, high = _offset("start", start), _offset("end", end)
    require(*GRAPH)
    if segment:
        low, high = parts.maps.find_segment(manifestation, segment)
        return RedirectResponse(_address(manifestation, low, high, scale), 303, HEADERS)
    drawn = parts.maps.draw(manifestation, low, high, first)
    asked |= {"start": str(drawn.start.low), "end": str(drawn.start.high)}
    longest = drawn.longest if scale == "one" else None
    return render(
        request,
        "map.html",
        map=drawn,
        asked=asked,
        bars={text.manifestation_id: draw_bar(text, longest) for text in _texts(drawn)},
        address=lambda name, low, high: _address(name, low, high, scale),
        other_scale=_address(manifestation, drawn.start.low, drawn.start.high, "own" if scale == "one" else "one"),
        more=_more(drawn, scale),
        name=lambda name: drawn.titles.get(name, name),
    )


def _list_texts(parts: Services, after: str) -> list[tuple[str, str]]:
    """One more than are shown, where there are more; none where the graph can't be read: the form does without."""
    texts: list[tuple[str, str]] = []
    with suppress(ProcessorError):
        texts = parts.maps.list_texts(after, TEXTS_LISTED + 1)
    return texts


def draw_bar(text: ShownText, longest: int | None) -> Bar:
    """To the text's own scale, or to that of a text of `longest` characters."""
    scale = WIDTH / max(1, longest or text.extent)

    def stretch(low: int, high: int) -> Stretch:
        width = max(LEAST_WIDTH, (high - low) * scale)
        return Stretch(round(min(low * scale, WIDTH - width), 2), round(width, 2))

    return Bar(
        whole=Stretch(0, round(max(LEAST_WIDTH, text.extent * scale), 2)),
        span=stretch(text.low, text.high),
        segments=tuple(stretch(each.start, each.end) for each in text.shown),
        label=f"{text.name}: {span(text.low, text.high)} of {text.extent:,} characters",
    )


def _texts(drawn: RelationMap) -> list[ShownText]:
    related: tuple[Related, ...] = drawn.related
    return [drawn.start, *(each.text for each in related)]


def _address(manifestation_id: str, low: int, high: int, scale: str) -> str:
    chosen = scale if scale == "one" else None
    return link("/ui/map", manifestation=manifestation_id, start=low, end=high, scale=chosen)


def _more(drawn: RelationMap, scale: str) -> str | None:
    """Where the texts are that did not fit."""
    after = drawn.first + TEXTS_A_PAGE
    if after >= drawn.total:
        return None
    return f"{_address(drawn.start.manifestation_id, drawn.start.low, drawn.start.high, scale)}&first={after}"


def _offset(field: str, text: str) -> int | None:
    """The number in a field; None when it is empty."""
    text = text.strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= MAX_OFFSET):
        raise InputError(f"{field}: must be a whole number of characters from 0 on, not {text!r:.40}")
    return int(text)
