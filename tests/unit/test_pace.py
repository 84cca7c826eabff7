"""How fast lost messages are sent again: faster while workers wait for them, never into a backlog."""

from app.outbox.pace import FEWEST_RESENT, MOST_RESENT, Pace


def test_the_limit_doubles_up_to_a_bound_as_long_as_the_queue_is_worked_off() -> None:
    pace = Pace()
    limits = []
    for _ in range(6):
        pace.note(pace.limit)
        assert pace.speed_up(waiting=pace.limit // 2)
        limits.append(pace.limit)
    assert limits == [200, 400, 800, MOST_RESENT, MOST_RESENT, MOST_RESENT]


def test_a_queue_that_is_not_worked_off_is_not_added_to() -> None:
    pace = Pace()
    pace.note(FEWEST_RESENT)
    assert not pace.speed_up(waiting=FEWEST_RESENT // 2 + 1)
    assert (pace.limit, pace.has_more) == (FEWEST_RESENT, True)
    assert pace.speed_up(waiting=0)


def test_a_backlog_brings_the_limit_down_again() -> None:
    pace = Pace()
    pace.note(FEWEST_RESENT)
    pace.speed_up(waiting=0)
    pace.note(pace.limit)
    pace.slow_down()
    assert pace.limit == FEWEST_RESENT


def test_nothing_more_to_send_ends_the_hurry() -> None:
    pace = Pace()
    assert not pace.speed_up(waiting=0)
    pace.note(FEWEST_RESENT)
    pace.speed_up(waiting=0)
    pace.note(3)
    assert (pace.limit, pace.has_more) == (FEWEST_RESENT, False)
    assert not pace.speed_up(waiting=0)
