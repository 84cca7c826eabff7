"""Processor time, read from the kernel's counters: of each service, of the contestants, of the whole machine.

Invariant: a reading is cumulative; what a stretch of time has cost is the difference of two.
"""

import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import psutil


class Reading(NamedTuple):
    """Seconds since some moment in the past. `machine`: busy time of all processors; `wall`: of each, busy or not."""

    cpu: Mapping[str, float]
    machine: float
    wall: float

    def since(self, earlier: Self) -> "Reading":
        """What has passed between an earlier reading and this one."""
        cpu = {name: seconds - earlier.cpu[name] for name, seconds in self.cpu.items()}
        return Reading(cpu, self.machine - earlier.machine, self.wall - earlier.wall)

    @property
    def load(self) -> float:
        """The share of all processors that was busy."""
        return self.machine / self.wall if self.wall > 0 else 0.0

    @property
    def others(self) -> float:
        """The share of all processors that processes outside the groups took."""
        return max(0.0, self.machine - sum(self.cpu.values())) / self.wall if self.wall > 0 else 0.0


class Meter:
    """Reads groups of processes, given by their main processes; children count with their parents.

    The group "harness" is this process, without its children.
    """

    def __init__(self, groups: Mapping[str, Sequence[int]]) -> None:
        self._groups = {name: [psutil.Process(pid) for pid in pids] for name, pids in groups.items()}

    def read(self) -> Reading:
        """Now."""
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        wall = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        cpu = {name: sum(map(_seconds, group)) for name, group in self._groups.items()}
        cpu["harness"] = time.process_time()
        return Reading(cpu, wall - idle, wall)


def _seconds(process: psutil.Process) -> float:
    """With the children that are there and those that have ended."""
    own = process.cpu_times()
    total = own.user + own.system + own.children_user + own.children_system
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = child.cpu_times()
            total += times.user + times.system
    return float(total)
