"""Starting and ending services; what fails says which service, how long was waited, and what its log says."""

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psutil

from devstack import processes
from devstack.errors import DevstackError, with_log
from devstack.services.base import Say, Service
from devstack.waiting import POLL_SECONDS, wait_until

STOP_LIMIT_SECONDS = 20.0
NEWS_SECONDS = 10.0
ANSWER_LIMIT_SECONDS = 10.0  # of a server that should have been ready long ago


@dataclass(slots=True)
class Boot:
    """A service whose answer is awaited; `ours` when this command started it."""

    service: Service
    ours: bool
    limit_seconds: float
    began: float = field(default_factory=time.monotonic)
    retried: bool = False
    last_error: Exception | None = None

    def answers(self) -> bool:
        """Ask once; the refusal is kept for the message, should it be the last."""
        try:
            self.service.check()
        except Exception as error:  # noqa: BLE001  each driver has its own errors, and all mean "not yet"
            self.last_error = error
            return False
        return self.service.main_process() is not None

    def failure(self) -> DevstackError | None:
        """Why there is nothing left to wait for; None while there is."""
        service = self.service
        if not service.main_process():
            return with_log(f"{service.title} ended instead of answering.", service.log)
        if time.monotonic() - self.began < self.limit_seconds:
            return None
        waited = f"{service.title} does not answer on {service.address} after {self.limit_seconds:.0f} s"
        return with_log(f"{waited} ({type(self.last_error).__name__}: {self.last_error}).", service.log)

    def report(self) -> str:
        """One line for a person."""
        service, seconds = self.service, time.monotonic() - self.began
        state = "ready" if self.ours else "was running"
        return f"{service.title:<24} {state:<12} {service.address:<18} {seconds:5.1f} s"


def begin(service: Service, say: Say) -> None:
    """Prepare and launch, without waiting; the log begins anew, and the one before is kept beside it."""
    service.folder.mkdir(parents=True, exist_ok=True)
    if service.log.exists():
        service.log.replace(service.log.with_suffix(".before.log"))
    service.prepare(say)
    service.launch()


def await_answers(boots: Sequence[Boot], mend: Callable[[Boot, DevstackError], Boot], say: Say) -> None:
    """Return when all answer. `mend` makes another attempt of one that failed, or raises its error."""
    waiting, news = list(boots), time.monotonic()
    while waiting:
        if time.monotonic() - news > NEWS_SECONDS:
            say(f"still waiting for {', '.join(boot.service.title for boot in waiting)} ...")
            news = time.monotonic()
        for boot in list(waiting):
            if boot.answers():
                say(boot.report())
                waiting.remove(boot)
            elif error := boot.failure():
                waiting[waiting.index(boot)] = mend(boot, error)
        time.sleep(POLL_SECONDS if waiting else 0)


def answer_limit_seconds(service: Service) -> float:
    """How long to wait for a server that an earlier command started: it may still be on its way."""
    main = service.main_process()
    try:
        age = time.time() - main.create_time() if main else 0.0
    except psutil.Error:
        age = 0.0
    return max(ANSWER_LIMIT_SECONDS, service.start_limit_seconds - age)


def ask_to_stop(service: Service) -> list[psutil.Process]:
    """Send the signal for a clean stop; the processes that should end now. A paused one is woken to see it."""
    found, main = service.all_processes(), service.main_process()
    if main:
        processes.send([main], service.stop_signal)
        processes.send(found, signal.SIGCONT)
    return found


def end(service: Service, asked: Sequence[psutil.Process]) -> None:
    """Wait for processes that were asked to stop; what will not, or was left behind by a crash, is killed."""
    if asked:
        processes.wait_gone(asked, STOP_LIMIT_SECONDS)
        kill_now(service)


def kill_now(service: Service) -> None:
    """SIGKILL the service's processes, until none is left."""

    def none_left() -> bool:
        left = service.all_processes()
        processes.send(left, signal.SIGKILL)
        return not left or (processes.wait_gone(left) and not service.all_processes())

    if not wait_until(none_left, processes.KILL_LIMIT_SECONDS):
        raise DevstackError(f"{service.title} cannot be ended: {service.all_processes()}")
