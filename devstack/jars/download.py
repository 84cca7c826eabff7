"""A jar reaches the cache whole and verified, or not at all; a failed one is tried again before giving up."""

import hashlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from jgo.maven import MavenContext

from devstack.errors import DevstackError
from devstack.jars import Jar

WORKERS = 8
ATTEMPTS = 3
TIMEOUT_SECONDS = 60
PROGRESS_STEPS = 10  # lines printed where there is no terminal to redraw one


def download(jars: Sequence[Jar], cache: Path, say: Callable[[str], None]) -> None:
    """Fetch `jars` into `cache`, several at a time; what is done stays done if one fails or Ctrl-C comes."""
    say(f"downloading {len(jars)} jars to {cache} (once; later runs and other clones reuse them)")
    cache.mkdir(parents=True, exist_ok=True)
    for leftover in cache.glob("partial-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="partial-", dir=cache) as partial:
        pool = ThreadPoolExecutor(WORKERS)
        try:
            futures = [pool.submit(_fetch, jar, Path(partial), cache) for jar in jars]
            megabytes = 0.0
            for done, future in enumerate(as_completed(futures), start=1):
                megabytes += future.result() / 1e6
                _show(done, len(jars), megabytes, say)
        finally:
            pool.shutdown(cancel_futures=True)


def _fetch(jar: Jar, partial: Path, cache: Path) -> int:
    """Bring one jar into the cache; its size in bytes."""
    for attempt in range(ATTEMPTS):
        try:
            fetched = _resolve(jar, partial / f"{jar.sha256}-{attempt}")
        except Exception as error:  # noqa: BLE001  requests' and jgo's own; the last one is reported
            failure: Exception | str = error
            continue
        if hashlib.sha256(fetched.read_bytes()).hexdigest() == jar.sha256:
            target = cache / jar.path
            target.parent.mkdir(parents=True, exist_ok=True)
            size = fetched.stat().st_size
            fetched.replace(target)
            return size
        failure = "what arrived is not what the lock file promises"
    raise DevstackError(f"could not download {jar.coordinate}: {failure}\nRun the command again to go on from here.")


def _resolve(jar: Jar, folder: Path) -> Path:
    group, artifact, packaging, *classifier, version = jar.coordinate.split(":")
    context = MavenContext(repo_cache=folder, timeout=TIMEOUT_SECONDS)
    component = context.project(group, artifact).at_version(version)
    return Path(component.artifact(classifier[0] if classifier else "", packaging).resolve())


def _show(done: int, total: int, megabytes: float, say: Callable[[str], None]) -> None:
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\r  {done}/{total} jars, {megabytes:.0f} MB", end=end, file=sys.stderr, flush=True)
    elif done == total or done % max(1, total // PROGRESS_STEPS) == 0:
        say(f"  {done}/{total} jars, {megabytes:.0f} MB")
