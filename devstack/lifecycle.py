"""Starting and ending one service; what fails says which service, how long was waited, and what its log says."""

import signal
import time
from collections.abc import Callable

import psutil

from devstack import processes
from devstack.errors import DevstackError, with_log
from devstack.services.base import Service
from devstack.waiting import wait_until

STOP_LIMIT_SECONDS = 20.0
ANSWER_LIMIT_SECONDS = 10.0  # of a server that should have been ready long ago
LOG_LIMIT_BYTES = 10_000_000


def begin(service: Service, say: Callable[[str], None]) -> None:
    """Prepare and launch, without waiting; a log that has grown too long is begun anew."""
    service.folder.mkdir(parents=True, exist_ok=True)
    if service.log.exists() and service.log.stat().st_size > LOG_LIMIT_BYTES:
        service.log.unlink()
    service.prepare(say)
    service.launch()


def answer_limit_seconds(service: Service) -> float:
    """How long to wait for a server that an earlier command started: it may still be on its way."""
    main = service.main_process()
    try:
        age = time.time() - main.create_time() if main else 0.0
    except psutil.Error:
        age = 0.0
    return max(ANSWER_LIMIT_SECONDS, service.start_limit_seconds - age)


def await_answer(
    service: Service, limit_seconds: float, say: Callable[[str], None], *, started: bool
) -> None:
    """Return when the service answers; raise when it ends or the limit passes before."""
    began = time.monotonic()
    last: list[Exception] = []

    def settled() -> bool:
        try:
            service.check()
        except Exception as error:  # noqa: BLE001  each driver has its own errors, and all mean "not yet"
            last[:] = [error]
            return service.main_process() is None
        last.clear()
        return True

    in_time = wait_until(settled, limit_seconds)
    if not service.main_process():
        raise with_log(f"{service.title} ended instead of answering.", service.log)
    if not in_time:
        waited = f"{service.title} does not answer on {service.address} after {limit_seconds:.0f} s"
        raise with_log(f"{waited} ({type(last[0]).__name__}: {last[0]}).", service.log)
    seconds = time.monotonic() - began
    say(
        f"{service.title:<24} {'ready' if started else 'was running':<12} {service.address:<18} {seconds:5.1f} s"
    )


def ask_to_stop(service: Service) -> None:
    """Send the signal for a clean stop; a paused process is woken, or it would never see it."""
    main = service.main_process()
    if main:
        processes.send([main], service.stop_signal)
        processes.send(service.all_processes(), signal.SIGCONT)


def end(service: Service) -> bool:
    """Wait until a service that was asked to stop is gone, and end it by force if it will not; whether it was there."""
    left = service.all_processes()
    if left and not processes.wait_gone(left, STOP_LIMIT_SECONDS):
        kill_now(service)
    return bool(left)


def kill_now(service: Service) -> None:
    """SIGKILL the service's processes, until none is left."""

    def gone() -> bool:
        left = service.all_processes()
        processes.send(left, signal.SIGKILL)
        return processes.wait_gone(left)

    if not wait_until(lambda: gone() and not service.all_processes(), processes.KILL_LIMIT_SECONDS):
        raise DevstackError(f"{service.title} cannot be ended: {service.all_processes()}")
