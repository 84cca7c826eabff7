"""Claims with new tokens, as a worker makes them."""

import uuid
from collections.abc import Sequence

from app.core.ports import ClaimStore
from app.core.segments import ClaimAnswer, SegmentRequest


def ask(
    claims: ClaimStore, requests: Sequence[SegmentRequest], lease_seconds: float, *, alone: bool = False
) -> list[ClaimAnswer]:
    """An answer a request."""
    return claims.claim(requests, [str(uuid.uuid4()) for _ in requests], lease_seconds, alone=alone)
