"""The worker as it was at an earlier commit, as one more contestant in the same run.

Invariant: it runs by the same interpreter with the same packages, on the same services and tables; only its code is
the earlier commit's. Needs a checkout with its history.
"""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.ground import ROOT, BenchError

EARLIER: Final = "b5c581d"
"""The last commit before the calls of a batch were made cheaper, by which "half the cost" is measured."""
EARLIER_WORKER: Final = "1 worker, earlier"
"""Its label among the variants of a profile."""


@contextmanager
def worker_of(commit: str) -> Iterator[Path]:
    """The tree of the project as it was, for as long as the context lasts. Raises `BenchError`."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        archive = Path(name) / "tree.tar"
        made = subprocess.run(
            ["git", "archive", f"--output={archive}", commit], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if made.returncode:
            raise BenchError(f"there is no commit {commit}: {made.stderr.strip()}")
        subprocess.run(["tar", "-xf", archive, "-C", name], check=True)
        yield Path(name)
