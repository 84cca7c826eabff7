"""Ids in paths and queries.

Invariant: an id that can name nothing is answered as an unknown one, with the reason, before any service is asked.
"""

import uuid
from typing import Annotated, Final

from fastapi import Path

from app.core.jobs import NotFoundError
from app.errors import PermanentError
from app.jobs.producer import check_id
from app.web.bodies import EXAMPLE_JOB

EXAMPLE_TEXT: Final = "root-bo"

JobId = Annotated[str, Path(description="A job's id, a UUID.", examples=[EXAMPLE_JOB])]
TextId = Annotated[
    str, Path(description="A manifestation's id, percent-encoded where it holds a slash.", examples=[EXAMPLE_TEXT])
]


def read_job_id(text: str) -> str:
    """The id as the tables spell it. Raises `NotFoundError`."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise NotFoundError(f"there is no job {text!r:.60}: a job's id is a UUID") from None


def check_text(manifestation_id: str) -> None:
    """Raise `NotFoundError` for what can't be the id of a text."""
    try:
        check_id(manifestation_id)
    except PermanentError as error:
        raise NotFoundError(str(error)) from None
