"""What is in the cache is whole: no failure of the network, of the other side or of power leaves half a jar there."""

import hashlib
from pathlib import Path

import pytest

from devstack import jars
from devstack.errors import DevstackError
from devstack.jars import Jar, download

CONTENT = b"what a jar holds"
GOOD = Jar("org.example:thing:jar:1.0", hashlib.sha256(CONTENT).hexdigest())
NATIVE = Jar("io.netty:epoll:jar:linux-x86_64:4.1.1.Final", GOOD.sha256)


class Repository:
    """Answers each request with the next of `answers`, the last one over and over: bytes, or an error."""

    def __init__(self, *answers: bytes | Exception) -> None:
        self.answers = list(answers)
        self.requests = 0

    def resolve(self, jar: Jar, folder: Path) -> Path:
        self.requests += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        folder.mkdir(parents=True)
        (folder / "arrived").write_bytes(answer)
        return folder / "arrived"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(jars, "read_lock", lambda name: [GOOD, NATIVE] if name == "both" else [GOOD])
    return jars.cache_folder()


def serve(monkeypatch: pytest.MonkeyPatch, *answers: bytes | Exception) -> Repository:
    repository = Repository(*answers)
    monkeypatch.setattr(download, "_resolve", repository.resolve)
    return repository


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name != ".lock")


def test_coordinates_become_paths_as_in_maven() -> None:
    assert str(GOOD.path) == "org/example/thing/1.0/thing-1.0.jar"
    assert str(NATIVE.path) == "io/netty/epoll/4.1.1.Final/epoll-4.1.1.Final-linux-x86_64.jar"


@pytest.mark.parametrize("name", ["neo4j", "elasticmq"])
def test_every_line_of_the_lock_files_is_a_coordinate_and_a_checksum(name: str) -> None:
    locked = jars.read_lock(name)
    assert len({jar.path for jar in locked}) == len(locked) > 30
    assert all(len(bytes.fromhex(jar.sha256)) == 32 for jar in locked)


def test_only_what_is_missing_is_fetched(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = serve(monkeypatch, CONTENT)
    said: list[str] = []
    jars.ensure(["one"], said.append)
    jars.ensure(["both"], said.append)
    jars.ensure(["one", "both"], said.append)
    assert repository.requests == 2
    assert files(cache) == ["epoll-4.1.1.Final-linux-x86_64.jar", "thing-1.0.jar"]
    assert said[0].startswith("downloading 1 jars")


def test_another_try_follows_a_failed_one(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, ConnectionError("reset"), b"half of wh", CONTENT)
    jars.ensure(["one"], lambda _: None)
    assert files(cache) == ["thing-1.0.jar"]


@pytest.mark.parametrize("answer", [b"something else", ConnectionError("no route")])
def test_what_never_arrives_whole_never_enters_the_cache(
    cache: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes | Exception
) -> None:
    serve(monkeypatch, answer)
    with pytest.raises(DevstackError, match=r"could not download org\.example:thing"):
        jars.ensure(["one"], lambda _: None)
    assert files(cache) == []


def test_what_an_interrupted_download_left_is_removed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "partial-abc").mkdir(parents=True)
    (cache / "partial-abc" / "thing.jar").write_bytes(b"half")
    serve(monkeypatch, CONTENT)
    jars.ensure(["one"], lambda _: None)
    assert files(cache) == ["thing-1.0.jar"]
