"""All that a stack remembers between commands is its ports and its password, in a file written whole or not at all."""

import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path

from devstack.errors import DevstackError


@dataclass(slots=True)
class State:
    """Ports by service name, and the stack's one password: its own, so that no other stack answers to it."""

    ports: dict[str, int] = field(default_factory=dict)
    password: str = field(default_factory=lambda: secrets.token_hex(12))


def load(folder: Path) -> State:
    """The state of the stack in `folder`; a new one, not yet saved, when the stack was never up."""
    path = folder / "state.json"
    try:
        stored = json.loads(path.read_text())
        return State({str(name): int(port) for name, port in stored["ports"].items()}, str(stored["password"]))
    except FileNotFoundError:
        if not any(folder.glob("*/data")):
            return State()
        problem = "is missing"
    except (ValueError, KeyError, AttributeError, TypeError):
        problem = "cannot be read"
    raise DevstackError(f"{path} {problem}, and with it the password of the data beside it: delete {folder}")


def save(folder: Path, state: State) -> None:
    """Replace the file in one step, readable by its owner only."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f"state.{os.getpid()}.tmp"
    draft.touch(mode=0o600)
    draft.write_text(json.dumps(asdict(state), indent=2) + "\n")
    draft.replace(folder / "state.json")
