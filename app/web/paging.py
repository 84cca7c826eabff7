"""Pages of long lists: a cursor says after which row the next page begins.

Invariant: a cursor is opaque and holds the sort key of the last row that was given, so that rows which come or go
meanwhile neither repeat nor hide others; one that is not of ours is refused and never reaches a statement.
"""

import base64
import binascii
from typing import Annotated, Final

from fastapi import Query

from app.web.problems import FieldError

MOST_ON_A_PAGE: Final = 500
USUALLY_ON_A_PAGE: Final = 50
_SEPARATOR: Final = "\n"
LONGEST_CURSOR: Final = 2_000

Limit = Annotated[
    int, Query(ge=1, le=MOST_ON_A_PAGE, description="How many at most; `next_cursor` of the answer asks for more.")
]
Cursor = Annotated[
    str | None, Query(max_length=LONGEST_CURSOR, description="`next_cursor` of the page before; none: the first page.")
]


def encode_cursor(*key: str) -> str:
    """The sort key of a page's last row, for a URL."""
    return base64.urlsafe_b64encode(_SEPARATOR.join(key).encode()).decode().rstrip("=")


def decode_cursor(cursor: str, parts: int) -> list[str]:
    """The key that `encode_cursor` was given, of so many parts. Raises `FieldError`."""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        key = base64.b64decode(padded, altchars=b"-_", validate=True).decode().split(_SEPARATOR, parts - 1)
    except (UnicodeError, binascii.Error):
        key = []
    if len(key) != parts or "\x00" in cursor or any("\x00" in part for part in key):
        raise FieldError("cursor", "is not one that this service has given; leave it out for the first page")
    return key
