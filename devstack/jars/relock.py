"""`python -m devstack.jars.relock` writes the lock files anew from the versions named here."""

import hashlib
import tempfile
from pathlib import Path

from jgo.maven import MavenContext

from devstack.jars import HERE

COORDINATES = {
    "elasticmq": "org.elasticmq:elasticmq-server_2.13:1.7.1",
    "neo4j": "org.neo4j:neo4j:5.26.30",
}


def relock(name: str, context: MavenContext) -> None:
    """Resolve one server and note each of its jars with its checksum."""
    print(f"resolving {COORDINATES[name]} ...")
    inputs, dependencies = context.resolver.resolve([context.create_dependency(COORDINATES[name])])
    artifacts = [dependency.artifact for dependency in [*inputs, *dependencies]]
    lines = [f"{each} {hashlib.sha256(Path(each.resolve()).read_bytes()).hexdigest()}\n" for each in artifacts]
    (HERE / f"{name}.lock").write_text("".join(sorted(lines)))
    print(f"{name}.lock: {len(lines)} jars")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for each_name in COORDINATES:
            relock(each_name, MavenContext(repo_cache=Path(folder), timeout=60))
