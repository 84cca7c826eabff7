"""What a producer works with in tests: texts in memory, a queue behind a troubled link, pauses that take no time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from app.sqs.queue import Outgoing, Queue, QueueFacts


@dataclass
class Texts:
    """A graph of texts with their segments; `spans` answers for single segments."""

    texts: Mapping[str, Sequence[tuple[str, int, int]]] = field(default_factory=dict)
    spans: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def list_segments(self, manifestation_id: str) -> Sequence[tuple[str, int, int]] | None:
        return self.texts.get(manifestation_id)

    def find_spans(self, segment_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
        return {segment_id: self.spans[segment_id] for segment_id in segment_ids if segment_id in self.spans}


class TroubledQueue:
    """The real queue behind a link that does as the script says, call by call; then it works."""

    def __init__(self, queue: Queue, *script: Callable[[Sequence[Outgoing]], dict[int, str] | None]) -> None:
        self.queue = queue
        self.name = queue.name
        self.script = list(script)
        self.calls = 0

    def facts(self) -> QueueFacts:
        return self.queue.facts()

    def send(self, messages: Sequence[Outgoing]) -> dict[int, str]:
        """Positions that the script refuses are not sent; the others are."""
        self.calls += 1
        refused = (self.script.pop(0)(messages) if self.script else None) or {}
        kept = [at for at in range(len(messages)) if at not in refused]
        late = self.queue.send([messages[at] for at in kept])
        return refused | {kept[at]: reason for at, reason in late.items()}


def refuse(*positions: int) -> Callable[[Sequence[Outgoing]], dict[int, str]]:
    return lambda _messages: dict.fromkeys(positions, "InternalError")


def refuse_all(messages: Sequence[Outgoing]) -> dict[int, str]:
    return dict.fromkeys(range(len(messages)), "InternalError")


def work(_messages: Sequence[Outgoing]) -> None:
    return None


def lose(error: Exception) -> Callable[[Sequence[Outgoing]], None]:
    def raise_it(_messages: Sequence[Outgoing]) -> None:
        raise error

    return raise_it


class Pauses(list[float]):
    """A clock that is only looked at."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)
