"""What PostgreSQL's clock can show now, told from claims that come here sooner or later."""

from hypothesis import given
from hypothesis import strategies as st

from app.caching.server_clock import SLACK_US, ServerClock
from tests.support.caches import ManualClock
from tests.support.graphs import unhurried

EPOCH_US = 1_700_000_000_000_000


def test_nothing_is_believed_before_the_first_claim() -> None:
    assert ServerClock(ManualClock()).latest_us < 0


def test_it_goes_on_by_itself() -> None:
    clock = ManualClock()
    server = ServerClock(clock)
    server.saw(EPOCH_US)
    assert server.latest_us == EPOCH_US + SLACK_US
    clock.now += 60
    assert server.latest_us == EPOCH_US + 60_000_000 + SLACK_US


@unhurried
@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 500)), min_size=1))
def test_the_quickest_claim_so_far_decides(claims: list[tuple[float, float]]) -> None:
    """Each is made some seconds after the last one and is told here a while after it was made, a walk's time later."""
    clock = ManualClock()
    server = ServerClock(clock)
    began = clock.now
    ways: list[float] = []
    for pause, way in claims:
        clock.now += pause
        ways.append(way)
        now_us = EPOCH_US + (clock.now - began) * 1_000_000
        server.saw(int(now_us - way * 1_000_000))
        assert abs(server.latest_us - (now_us - min(ways) * 1_000_000 + SLACK_US)) < 10
