"""What becomes of a message once its segment has been dealt with: a closed sum type.

Invariant: the service decides an outcome only after what it stands for is safe in PostgreSQL (rule 5 of
docs/formats.md); the consumer acts on it and decides nothing.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Done:
    """Delete the message: the result, or whatever else ended the segment, is committed."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Hide:
    """Make the message visible again after `seconds`; on its last receive send a fresh copy instead.

    For all that is neither finished nor hopeless: held by another worker, waiting for its retry or its
    producer, given back. Receives are not attempts, so hiding never sends good work to the dead-letter queue.
    """

    seconds: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Dead:
    """Dead-letter the message. `recorded`: a row in PostgreSQL holds the failure too."""

    reason: str
    recorded: bool


@dataclass(frozen=True, slots=True)
class Leave:
    """Make no SQS call at all: the lease is lost, and an old receipt handle may still act."""

    reason: str = ""


type Outcome = Done | Hide | Dead | Leave
