"""Java servers' class paths, from lock files that name every jar with its SHA-256.

A jar that is in the cache is whole: it is downloaded beside it, compared with the lock file, then moved into
place. The cache lies outside the checkout, so clones share it; one of them downloads at a time.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from devstack.locks import exclusive

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Jar:
    """One line of a lock file: `group:artifact:packaging[:classifier]:version sha256`."""

    coordinate: str
    sha256: str

    @property
    def path(self) -> Path:
        """Where it lies below the cache, in Maven's own layout."""
        group, artifact, packaging, *classifier, version = self.coordinate.split(":")
        name = "-".join([artifact, version, *classifier])
        return Path(*group.split("."), artifact, version, f"{name}.{packaging}")


def read_lock(name: str) -> list[Jar]:
    """The jars of `neo4j` or `elasticmq`."""
    lines = (HERE / f"{name}.lock").read_text().splitlines()
    return [Jar(*line.split()) for line in lines]


def cache_folder() -> Path:
    """The user's cache, kept between runs and clones."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "segment-relationship-processor" / "jars"


def class_path(name: str) -> str:
    """The class path of a server whose jars are in the cache."""
    return os.pathsep.join(str(cache_folder() / jar.path) for jar in read_lock(name))


def environment(name: str) -> dict[str, str]:
    """What a Java server is started in.

    The class path goes by it: 200 jars would drown every listing of processes. And Java reads the paths in its
    arguments by the locale, of which POSIX's own knows ASCII only.
    """
    return os.environ | {"CLASSPATH": class_path(name), "LC_ALL": "C.UTF-8"}


def ensure(names: list[str], say: Callable[[str], None]) -> None:
    """Download what is missing of the named servers' jars."""
    if not _missing(names):
        return
    with exclusive(cache_folder() / ".lock", "another clone's download"):
        missing = _missing(names)
        if missing:
            from devstack.jars.download import download  # only now: jgo takes a while to import

            download(missing, cache_folder(), say)


def _missing(names: list[str]) -> list[Jar]:
    jars = {jar for name in names for jar in read_lock(name)}
    return sorted((jar for jar in jars if not (cache_folder() / jar.path).exists()), key=lambda jar: jar.coordinate)
