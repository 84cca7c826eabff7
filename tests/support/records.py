"""A job's segments as they are read for `show`: one with relations, one that failed, one that waits."""

import json
from datetime import UTC, datetime
from typing import Any, Final

from app.core.jobs import Job, SegmentRecord

NOW: Final = datetime(2026, 1, 2, tzinfo=UTC)
JOB: Final = Job("550e8400-e29b-41d4-a716-446655440000", "text & <one>", 3, 1, 1, "FAILED", NOW, NOW, None)
RELATED: Final[list[dict[str, Any]]] = [
    {"manifestation_id": "other", "segments": [{"segment_id": "o,1", "span": {"start": 3, "end": 9}}]},
    {"manifestation_id": "bare", "segments": []},
]
RECORDS: Final = (
    SegmentRecord("s1", 0, 5, "COMPLETED", json.dumps(RELATED), None),
    SegmentRecord("s2", 5, 9, "FAILED", None, 'broken "here"\n'),
    SegmentRecord("s3", None, None, "QUEUED", None, None),
)
