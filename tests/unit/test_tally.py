"""The line that operators read once a minute."""

from app.core.outcomes import Dead, Done, Hide
from app.worker.tally import REPORT_SECONDS, Tally


def test_a_line_a_minute_and_none_while_nothing_happens() -> None:
    now = [0.0]
    tally = Tally(lambda: now[0])
    tally.add([Done()] * 1_190 + [Hide(5)] * 9 + [Dead("why", recorded=True)])
    assert tally.report() is None
    now[0] = REPORT_SECONDS
    assert tally.report() == "1,200 messages in 60 s (20.0/s): 1,190 done, 9 to come back, 1 dead-lettered"
    now[0] = 2 * REPORT_SECONDS
    assert tally.report() is None
