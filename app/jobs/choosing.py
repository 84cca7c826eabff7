"""Which job is meant by what was typed: a whole id, or the beginning of one.

Invariant: a beginning that fits several jobs means none of them.
"""

from typing import Final

from app.core.jobs import Job, NotFoundError
from app.db.jobs import PostgresJobs
from app.db.standing import MOST_CANDIDATES, PostgresStandings
from app.errors import PermanentError
from app.jobs.producer import find_job

ID_CHARACTERS: Final = 36


class AmbiguousError(PermanentError):
    """Several jobs' ids begin so."""


def choose_job(jobs: PostgresJobs, standings: PostgresStandings, typed: str) -> Job:
    """The job whose id is `typed`, or begins with these digits (lower case, without hyphens).

    Raises `NotFoundError`, or `AmbiguousError` that names the candidates.
    """
    if len(typed) == ID_CHARACTERS:
        return find_job(jobs, typed)
    ids = standings.find_ids(typed)
    if not ids:
        raise NotFoundError(f"there is no job whose id begins with {typed}")
    if len(ids) > 1:
        most = f"{MOST_CANDIDATES} or more" if len(ids) == MOST_CANDIDATES else str(len(ids))
        raise AmbiguousError(f"the ids of {most} jobs begin with {typed}, type more of one: {', '.join(ids)}")
    return find_job(jobs, ids[0])
