"""A stack is its folder below `.devstack/`: who names it works on the same servers, one command at a time."""

import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from devstack import jars, ports, processes, queues, state
from devstack.errors import DevstackError
from devstack.lifecycle import Boot, answer_limit_seconds, ask_to_stop, await_answers, begin, end, kill_now
from devstack.locks import exclusive
from devstack.services import SERVICES, Cache, Neo4j, Postgres, Service, Sqs
from devstack.services.neo4j import USER as NEO4J_USER
from devstack.status import ServiceStatus, describe
from devstack.waiting import wait_until

CHECKOUT = Path(__file__).resolve().parent.parent
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
POLL_SECONDS = 2  # a worker that is told to stop waits for its poll, and a person for the worker
PORT_PATIENCE_SECONDS = 2.0  # a port may be free a moment after its server is gone


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Stack:
    """Four servers with their ports and data. Building one does nothing yet; `say` gets lines for a person.

    `durable_queues` makes messages survive a restart of the SQS server; it counts when that server starts.
    """

    def __init__(
        self,
        name: str = "dev",
        *,
        durable_queues: bool = False,
        checkout: Path = CHECKOUT,
        say: Callable[[str], None] = _to_stderr,
    ) -> None:
        if not NAME.fullmatch(name):
            raise DevstackError(f"a stack's name is made of letters, digits, '.', '_' and '-', unlike {name!r}")
        self.name = name
        self.folder = checkout.resolve() / ".devstack" / name
        self._durable_queues = durable_queues
        self._say = say

    def up(self) -> None:
        """Start what is not running, mend what is broken, and return when each service answers."""
        jars.ensure([service.jars for service in SERVICES.values() if service.jars], self._say)
        with self._alone():
            self._start([*SERVICES])

    def down(self) -> None:
        """Stop every service of this stack; the data stays."""
        with self._alone():
            asked = [(service, ask_to_stop(service)) for service in map(self._service, SERVICES)]
            for service, found in asked:
                end(service, found)
                self._say(f"{service.title:<24} {'stopped' if found else 'was not running'}")

    def start(self, name: str) -> None:
        """Start one service on its port with its data, and return when it answers; SQS then has its queues."""
        wanted = SERVICES[name].jars
        jars.ensure([wanted] if wanted else [], self._say)
        with self._alone():
            self._start([name])

    def stop(self, name: str) -> None:
        """Stop one service as its makers mean it to be stopped."""
        with self._alone():
            service = self._service(name)
            end(service, ask_to_stop(service))

    def kill(self, name: str) -> None:
        """SIGKILL every process of one service; returns when they are gone."""
        with self._alone():
            kill_now(self._service(name))

    def pause(self, name: str) -> None:
        """SIGSTOP every process of one service: it keeps its connections and answers nothing."""
        processes.send(self._service(name).all_processes(), signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """SIGCONT what was paused."""
        processes.send(self._service(name).all_processes(), signal.SIGCONT)

    def running(self, name: str) -> bool:
        """Whether the service's process lives, paused or not; `answers` asks for more."""
        return self._service(name).main_process() is not None

    def answers(self, name: str) -> bool:
        """Whether the service lives and answers in its own protocol now."""
        service = self._service(name)
        return service.main_process() is not None and service.answers()

    def status(self) -> list[ServiceStatus]:
        """What each service is doing."""
        return [describe(self._service(name)) for name in SERVICES]

    def env(self) -> dict[str, str]:
        """The variables of a worker on this stack; the queues are made if they are missing. The stack must be up."""
        silent = [SERVICES[name].title for name in SERVICES if not self.answers(name)]
        if silent:
            raise DevstackError(f"the stack '{self.name}' is not up ({', '.join(silent)}): run `make up` first")
        return {
            "NEO4J_URI": cast(Neo4j, self._service(Neo4j.name)).url,
            "NEO4J_USER": NEO4J_USER,
            "NEO4J_PASSWORD": self._state().password,
            "POSTGRES_URL": self._postgres().url(),
            "AWS_REGION": queues.REGION,
            "AWS_ACCESS_KEY_ID": queues.ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": queues.SECRET_KEY,
            "AWS_ENDPOINT_URL_SQS": self._sqs().url,
            **queues.make_standard_queues(self._sqs().url),
            "SQS_WAIT_TIME_SECONDS": str(POLL_SECONDS),
            "DRAGONFLY_URL": cast(Cache, self._service(Cache.name)).url,
        }

    def make_queue(
        self,
        name: str,
        *,
        dead_letter_queue: str | None = None,
        max_receive_count: int = 10,
        visibility_timeout_seconds: int = 30,
        fifo: bool = False,
    ) -> str:
        """Make a queue if it is missing; its URL. `dead_letter_queue` is a queue's URL; FIFO names get `.fifo`."""
        return queues.make_queue(
            self._sqs().url,
            name,
            dead_letter_queue=dead_letter_queue,
            max_receive_count=max_receive_count,
            visibility_timeout_seconds=visibility_timeout_seconds,
            fifo=fifo,
        )

    def make_database(self, name: str) -> str:
        """Make a database in the running PostgreSQL if it is missing; its `POSTGRES_URL`."""
        return self._postgres().make_database(name)

    def drop_database(self, name: str) -> None:
        """Drop a database if it is there, ending its sessions."""
        self._postgres().drop_database(name)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with exclusive(self.folder / "lock", f"another command on the stack '{self.name}'"):
            yield

    def _state(self) -> state.State:
        return state.load(self.folder)

    def _service(self, name: str) -> Service:
        stored = self._state()
        folder, port = self.folder / name, stored.ports.get(name, 0)
        if name == Sqs.name:
            return Sqs(folder, port, stored.password, durable=self._durable_queues)
        return SERVICES[name](folder, port, stored.password)

    def _postgres(self) -> Postgres:
        return cast(Postgres, self._service(Postgres.name))

    def _sqs(self) -> Sqs:
        return cast(Sqs, self._service(Sqs.name))

    def _start(self, names: Sequence[str]) -> None:
        await_answers([self._begin(name) for name in names], self._mend, self._say)
        if Sqs.name in names:
            queues.make_standard_queues(self._sqs().url)

    def _begin(self, name: str) -> Boot:
        """See to it that the service has a process; a paused one is woken."""
        found = self._service(name)
        if found.main_process():
            self.resume(name)
            return Boot(found, ours=False, limit_seconds=answer_limit_seconds(found))
        self._choose_port(name)
        service = self._service(name)
        boot = Boot(service, ours=True, limit_seconds=service.start_limit_seconds)
        begin(service, self._say)
        return boot

    def _choose_port(self, name: str) -> None:
        """Keep the port of last time unless somebody else listens there now."""
        stored = self._state()
        kept = stored.ports.get(name)
        if kept is None or not wait_until(lambda: ports.is_free(kept), PORT_PATIENCE_SECONDS):
            stored.ports[name] = ports.choose(taken=set(stored.ports.values()))
            state.save(self.folder, stored)

    def _mend(self, boot: Boot, error: DevstackError) -> Boot:
        """Start again, once, what was found hanging or what lost its port in the moment of starting."""
        service = boot.service
        lost_port = service.main_process() is None and not ports.is_free(service.port)
        if boot.retried or (boot.ours and not lost_port):
            raise error
        self._say(f"{error}\nstarting {service.title} again ...")
        kill_now(service)
        again = self._begin(service.name)
        again.retried = True
        return again
