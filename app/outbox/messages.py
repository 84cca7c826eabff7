"""The bodies of the two messages that this project sends (docs/formats.md, "Messages")."""

import json

from app.core.endings import Announcement
from app.core.unsent import UnsentSegment


def segment_message(segment: UnsentSegment) -> str:
    """The body of the message that asks for `segment`."""
    return json.dumps(
        {
            "job_id": segment.job_id,
            "manifestation_id": segment.manifestation_id,
            "segment_id": segment.segment_id,
            "start": segment.start,
            "end": segment.end,
        }
    )


def completion_message(announcement: Announcement) -> str:
    """The body of the message that tells of a completed job."""
    return json.dumps({"job_id": announcement.job_id, "manifestation_id": announcement.manifestation_id})
