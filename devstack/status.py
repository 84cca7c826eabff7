"""What `status` shows: asked of the process table and of the service itself, never remembered."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from devstack import processes
from devstack.services.base import Service


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One line of the table."""

    name: str
    title: str
    state: str
    address: str
    pid: int | None
    data: Path

    @property
    def up(self) -> bool:
        """Whether it answers."""
        return self.state == "up"


def describe(service: Service) -> ServiceStatus:
    """Look at one service."""
    main = service.main_process()
    if main is None:
        state = "down"
    elif processes.is_paused(main):
        state = "paused"
    else:
        state = "up" if service.answers() else "not answering"
    address = service.address if service.port else "-"
    return ServiceStatus(service.name, service.title, state, address, main.pid if main else None, service.data)


def table(rows: Sequence[ServiceStatus]) -> str:
    """The rows as aligned text."""
    cells = [("service", "state", "address", "pid", "data folder")]
    cells += [(row.title, row.state, row.address, str(row.pid or "-"), str(row.data)) for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[4]]) for line in cells
    )
