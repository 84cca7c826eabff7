"""The pool of connections: its bound, what is lent again, and that no place is lost whatever a borrower ends by."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import pytest

from app.db.pool import RECYCLE_SECONDS, Pool
from app.errors import OutageError, TransientError
from tests.support.worker import wait_until

MOST, KEEP = 3, 2
PATIENT_SECONDS = 30


class Cut(Exception):
    """The server ended the connection."""


class FakeConnection:
    def __init__(self, number: int) -> None:
        self.number = number
        self.is_idle = True
        self.is_closed = False

    def close(self) -> None:
        assert not self.is_closed
        self.is_closed = True
        self.is_idle = False


class Server:
    """Makes connections, and knows which of them are open."""

    def __init__(self) -> None:
        self.made: list[FakeConnection] = []
        self.failure: BaseException | None = None
        self.now = 0.0
        self.most_open = 0
        self._lock = threading.Lock()

    def connect(self) -> FakeConnection:
        if self.failure is not None:
            raise self.failure
        with self._lock:
            self.made.append(FakeConnection(len(self.made)))
            self.most_open = max(self.most_open, len(self.open))
            return self.made[-1]

    @property
    def open(self) -> list[int]:
        return [each.number for each in self.made if not each.is_closed]


type FakePool = Pool[FakeConnection]


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def make_pool(server: Server) -> Callable[..., FakePool]:
    def make(wait_seconds: float = 0.0) -> FakePool:
        return Pool(
            server.connect,
            lambda error: isinstance(error, Cut),
            most=MOST,
            keep=KEEP,
            wait_seconds=wait_seconds,
            clock=lambda: server.now,
        )

    return make


@pytest.fixture
def pool(make_pool: Callable[..., FakePool]) -> FakePool:
    return make_pool()


@contextmanager
def lent(pool: FakePool, count: int) -> Iterator[list[FakeConnection]]:
    """So many at a time, which come back in the opposite order."""
    with ExitStack() as borrowed:
        yield [borrowed.enter_context(pool.lend()) for _ in range(count)]


def every_place_is_free(pool: FakePool) -> bool:
    with lent(pool, MOST) as connections:
        return len({each.number for each in connections}) == MOST


def test_nothing_connects_before_its_first_use(pool: FakePool, server: Server) -> None:
    pool.dispose()
    assert server.made == []
    with pool.lend() as connection:
        assert [connection] == server.made


def test_the_one_that_came_back_last_is_lent_first(pool: FakePool, server: Server) -> None:
    with lent(pool, 2) as (first, _):
        pass
    with pool.lend() as again:
        assert again is first
    assert len(server.made) == 2


def test_who_finds_no_place_in_time_is_told_so(pool: FakePool) -> None:
    with (
        lent(pool, MOST),
        pytest.raises(TransientError, match="no PostgreSQL connection was free in time"),
        pool.lend(),
    ):
        pass
    assert every_place_is_free(pool)


def test_who_waits_gets_the_next_one_that_comes_back(make_pool: Callable[..., FakePool], server: Server) -> None:
    pool = make_pool(PATIENT_SECONDS)

    def borrow() -> int:
        with pool.lend() as connection:
            return connection.number

    with ThreadPoolExecutor() as threads:
        with lent(pool, MOST):
            waiting = threads.submit(borrow)
            wait_until(lambda: bool(pool._places._cond._waiters), "the thread to wait")  # type: ignore[attr-defined]
            assert not waiting.done()
        assert waiting.result(PATIENT_SECONDS) in range(MOST)
    assert len(server.made) == MOST


def test_beyond_what_is_kept_they_are_closed_when_they_come_back(pool: FakePool, server: Server) -> None:
    with lent(pool, MOST):
        assert len(server.open) == MOST
    assert len(server.open) == KEEP


def test_one_that_is_too_old_is_not_lent_again(pool: FakePool, server: Server) -> None:
    with pool.lend():
        pass
    server.now = RECYCLE_SECONDS - 1
    with pool.lend() as young:
        assert young.number == 0
    server.now = RECYCLE_SECONDS
    with pool.lend() as fresh:
        assert (fresh.number, server.open) == (1, [1])


def test_an_error_alone_closes_nothing(pool: FakePool, server: Server) -> None:
    with pytest.raises(ZeroDivisionError), pool.lend():
        raise ZeroDivisionError
    assert server.open == [0]
    assert every_place_is_free(pool)


def test_a_cut_connection_takes_all_of_its_time_with_it(pool: FakePool, server: Server) -> None:
    with lent(pool, 2), pytest.raises(Cut), pool.lend():
        raise Cut
    assert server.open == []
    with pool.lend() as fresh:
        assert fresh.number == 3


def test_who_hears_of_a_cut_late_spares_what_was_made_since(pool: FakePool, server: Server) -> None:
    with suppress(Cut), pool.lend():
        with suppress(Cut), pool.lend():
            raise Cut
        with pool.lend() as fresh:
            pass
        raise Cut
    assert server.open == [fresh.number]


def test_one_with_something_open_on_it_is_not_lent_again(pool: FakePool, server: Server) -> None:
    with pool.lend() as connection:
        connection.is_idle = False
    assert server.open == []


def test_disposing_closes_what_is_idle_now_and_what_is_lent_later(pool: FakePool, server: Server) -> None:
    with lent(pool, 2):
        pass
    with pool.lend() as lent_meanwhile:
        pool.dispose()
        assert server.open == [lent_meanwhile.number]
        with pool.lend() as fresh:
            pass
    assert server.open == [fresh.number]
    assert every_place_is_free(pool)


def test_a_dispose_while_it_connects_is_about_that_connection_too(pool: FakePool, server: Server) -> None:
    connect = server.connect

    def connect_meanwhile() -> FakeConnection:
        made = connect()
        pool.dispose()
        return made

    pool._connect = connect_meanwhile
    with pool.lend():
        pass
    assert server.open == []


@pytest.mark.parametrize("failure", [OutageError("PostgreSQL", "it is down"), KeyboardInterrupt()])
def test_a_connection_that_is_not_made_gives_its_place_back(
    pool: FakePool, server: Server, failure: BaseException
) -> None:
    server.failure = failure
    for _ in range(2 * MOST):
        with pytest.raises(type(failure)), pool.lend():
            pass
    server.failure = None
    assert every_place_is_free(pool)


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_whatever_a_borrower_ends_by_gives_its_place_back(pool: FakePool, end: type[BaseException]) -> None:
    for _ in range(2 * MOST):
        with pytest.raises(end), pool.lend():
            raise end
    assert every_place_is_free(pool)


def test_a_connection_that_can_t_be_closed_gives_its_place_back(pool: FakePool) -> None:
    def refuse() -> None:
        raise OSError

    for _ in range(2 * MOST):
        with suppress(OSError), pool.lend() as connection:
            connection.is_idle = False
            connection.close = refuse  # type: ignore[method-assign]
    assert every_place_is_free(pool)


def test_threads_that_race_never_share_one_nor_open_too_many(
    make_pool: Callable[..., FakePool], server: Server
) -> None:
    pool = make_pool(PATIENT_SECONDS)
    in_use: set[int] = set()

    def borrow(turn: int) -> None:
        with suppress(Cut), pool.lend() as connection:
            assert connection.number not in in_use
            assert not connection.is_closed
            in_use.add(connection.number)
            if turn % 11 == 0:
                pool.dispose()
            in_use.remove(connection.number)
            if turn % 7 == 0:
                raise Cut

    with ThreadPoolExecutor(4 * MOST) as threads:
        list(threads.map(borrow, range(2_000)))
    assert server.most_open <= MOST
    assert len(server.open) <= KEEP
    assert every_place_is_free(pool)
