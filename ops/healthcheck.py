"""``python ops/healthcheck.py``: whether what runs beside it in the container is alive; 0 or 1.

Invariant: only this machine is asked, nothing is changed, and no service that is down makes a process look dead, since
restarting it would not help. The HTTP side is asked at PORT, a worker at METRICS_PORT; one that has neither shows that
it is alive by running: a worker watches its own threads, and ends with code 3 when one hangs.
"""

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Final

TIMEOUT_SECONDS: Final = 5


def main() -> int:
    """Ask, and say what is wrong."""
    url = choose_url(os.environ)
    if url is None:
        return 0
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS):  # noqa: S310  (a URL of ours)
            return 0
    except (OSError, urllib.error.HTTPError) as error:
        sys.stderr.write(f"{url}: {error}\n")
        return 1


def choose_url(environment: Mapping[str, str]) -> str | None:
    """Where to ask; None: nowhere. A port that is set to nothing or 0 counts as not set."""
    for name in ("PORT", "METRICS_PORT"):
        port = environment.get(name, "")
        if port not in ("", "0"):
            return f"http://127.0.0.1:{port}/health/live"
    return None


if __name__ == "__main__":
    sys.exit(main())
