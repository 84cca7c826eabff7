"""The thread that says how it goes: once a minute, and less often while there is nothing new to say.

Invariant: it asks the services, so that no lane does; nothing that fails ends it. A quiet worker and a long outage are
told of in the first minute and then now and then, so that a silent log means a dead worker.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from app.logs import fields
from app.threads.gate import Gate
from app.threads.stopping import Stop
from app.worker.how_it_goes import describe
from app.worker.lookout import WorkAhead
from app.worker.tally import NAMES, Tally

log = logging.getLogger("app.worker.loop")
"""The name under which operators know the line."""

REPORT_SECONDS: Final = 60.0
RARE_SECONDS: Final = 600.0
"""Between two lines while nothing is done, or once an outage has lasted for so long."""
LOOK_SECONDS: Final = 15.0
"""How often the services are asked where somebody reads metrics."""
STEP_SECONDS: Final = 1.0


class Reporter:
    """A helper of the loop."""

    def __init__(
        self,
        tally: Tally,
        gate: Gate,
        look: Callable[[], WorkAhead],
        *,
        report_seconds: float = REPORT_SECONDS,
        look_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`look_seconds`: how often to look also without a line to say; None: not at all. `clock`: the gate's."""
        self._tally = tally
        self._gate = gate
        self._look = look
        self._report_seconds = report_seconds
        self._look_seconds = look_seconds
        self._clock = clock
        self._looked_at: float | None = None
        self._told: Counter[type] = Counter()
        self._told_at = self._decided_at = clock()
        self._told_of_quiet = False

    def run(self, stop: Stop) -> None:
        """Report until `stop`."""
        while not stop.wait(STEP_SECONDS):
            try:
                self.report_when_due()
                self.look_when_due()
            except Exception:
                log.exception("Saying how it goes failed, and is tried again")

    def report_when_due(self) -> None:
        """One line when there is something to say; looked at once a minute."""
        now = self._clock()
        if now - self._decided_at < self._report_seconds:
            return
        self._decided_at = now
        counts = self._tally.counts()
        if self._is_due(now, is_quiet=counts == self._told):
            self._report(now, counts)

    def look_when_due(self) -> None:
        """Keep what is known of the services fresh, for whoever reads metrics."""
        now = self._clock()
        if self._look_seconds is not None and (self._looked_at is None or now - self._looked_at >= self._look_seconds):
            self._looked_at = now
            self._look()

    def _is_due(self, now: float, *, is_quiet: bool) -> bool:
        if not is_quiet or not self._told_of_quiet or now - self._told_at >= RARE_SECONDS:
            return True
        return any(now - since < RARE_SECONDS for since in self._gate.down_since.values())

    def _report(self, now: float, counts: Counter[type]) -> None:
        ahead = self._look()
        recent = counts - self._told
        paused = {service: now - since for service, since in self._gate.down_since.items()}
        seconds = now - self._told_at
        oldest = ahead.lag.oldest_job if ahead.lag else None
        log.log(
            logging.WARNING if paused else logging.INFO,
            "%s",
            describe(recent, seconds, paused, ahead),
            extra=fields(
                seconds=round(seconds, 1),
                messages={name: recent[kind] for kind, name in NAMES.items()},
                paused_seconds={service: round(each, 1) for service, each in paused.items()},
                backlog=ahead.backlog,
                dead_letters=ahead.dead_letters,
                oldest_job=oldest.job_id if oldest else None,
                oldest_job_seconds=round(oldest.age_seconds, 1) if oldest else None,
                unsent_completions=ahead.lag.unsent_completions if ahead.lag else None,
            ),
        )
        self._told, self._told_at, self._told_of_quiet = counts, now, not recent
