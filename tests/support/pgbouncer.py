"""PgBouncer in transaction mode in front of a PostgreSQL: each transaction gets whichever server connection is free.

Invariant: it is a process and a folder of the caller's own, gone at the end of its `with` block.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psycopg2
from sqlalchemy.engine import make_url

from devstack.ports import HOST, choose
from devstack.services.accounts import give_to, server_identity
from tests.support.worker import wait_until

# Debian puts it where only an administrator's PATH looks.
PROGRAM = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")

CONFIG = """
[databases]
* = host={host} port={port} user={user} password={password}

[pgbouncer]
listen_addr = {listen_host}
listen_port = {listen_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 200
"""


@contextmanager
def pooled(url: str, pool_size: int) -> Iterator[str]:
    """`url` through a pooler that opens `pool_size` server connections to each database."""
    assert PROGRAM is not None
    server = make_url(url)
    port = choose(())
    with tempfile.TemporaryDirectory(prefix="pgbouncer-") as folder:
        config = Path(folder) / "pgbouncer.ini"
        config.touch(mode=0o600)
        config.write_text(
            CONFIG.format(
                host=server.host,
                port=server.port,
                user=server.username,
                password=server.password,
                listen_host=HOST,
                listen_port=port,
                pool_size=pool_size,
            )
        )
        identity = server_identity()  # it refuses to run as root
        give_to(identity, Path(folder), config)
        log = Path(folder) / "log"
        with log.open("wb") as output:
            command = [PROGRAM, str(config)]
            process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder, **identity)
        through = server.set(host=HOST, port=port).render_as_string(hide_password=False)
        try:
            wait_until(lambda: process.poll() is not None or _answers(through), "PgBouncer to answer")
            assert process.poll() is None, log.read_text()
            yield through
        finally:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    with suppress(psycopg2.OperationalError), closing(psycopg2.connect(url, connect_timeout=5)):
        return True
    return False
