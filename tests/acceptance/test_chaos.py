"""Two minutes of the fault campaign, with a fixed plan; ``make chaos`` runs longer ones."""

import subprocess
import sys

import pytest

from tests.support.services import ROOT, base_environment

LIMIT_SECONDS = 840


@pytest.mark.faults
@pytest.mark.timeout(LIMIT_SECONDS + 30)
def test_two_minutes_of_faults_lose_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--seconds", "120", "--seed", "20", "--rate", "20"],
        cwd=ROOT,
        env=base_environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
