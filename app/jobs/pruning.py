"""``python -m app.jobs prune``: old jobs are deleted with all that is stored of them.

Invariant: what has not ended is never touched; each transaction is small, and stopping between two loses nothing else.
"""

import argparse
from typing import Final

from app.db.pruning import PostgresPruning
from app.errors import ProcessorError
from app.jobs.printing import say, tell
from app.jobs.wiring import LazyParts

CHUNK_SEGMENTS: Final = 500


def run(parts: LazyParts, options: argparse.Namespace) -> int:
    """The command; its exit code."""
    pruning, days = PostgresPruning(parts.database), options.older_than
    found = pruning.find(days)
    if options.dry_run:
        tell(f"{_counts(len(found), sum(each.segments for each in found))} would be deleted.")
        return 0
    jobs = segments = 0
    try:
        for each in found:
            while pruned := pruning.prune(each.job_id, days, CHUNK_SEGMENTS):
                segments += pruned.segments
                jobs += pruned.is_gone
                if pruned.is_gone:
                    break
    except (ProcessorError, KeyboardInterrupt):
        say(f"{_counts(jobs, segments)} deleted before that; the same command deletes the rest.")
        raise
    tell(f"{_counts(jobs, segments)} deleted.")
    return 0


def _counts(jobs: int, segments: int) -> str:
    return f"{jobs} job{'' if jobs == 1 else 's'} with {segments} segment{'' if segments == 1 else 's'}"
