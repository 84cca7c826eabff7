"""What is secure because of how things are built: statements that hold no data, and TLS that reaches the drivers."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.caching.redis_store import RedisStore
from app.config import load_settings
from app.db.address import libpq_arguments
from app.db.engine import make_engine
from app.graph.session import open_driver
from app.sqs.queue import make_client

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted([*(ROOT / "app").rglob("*.py"), ROOT / "purge_sqs.py"])
STATEMENT = re.compile(
    r"\b(SELECT|INSERT INTO|UPDATE \w|DELETE FROM|DETACH DELETE|MATCH \(|MERGE \(|UNWIND|RETURN|WHERE|ORDER BY"
    r"|SET \w+ ?=|CREATE \w|DROP \w|LOCK TABLE|TRUNCATE)"
)
CONSTANT = re.compile(r"_?[A-Z][A-Z0-9_]*")
RUNNERS = {
    "exec_driver_sql",
    "execute",
    "executemany",
    "execute_query",
    "read",
    "text",
    "Query",
    "_jobs",
    "Prepared",
    "read_rows",
}
"""Functions whose first argument is a statement; of `run`, `_rows` and `_read` it is the second, after the database."""
PASSED_ON = {
    ("app/db/postgres.py", "sql"),
    ("app/db/postgres.py", "text"),
    ("app/db/prepared.py", "partial(self._text_for, database)"),
    ("app/db/prepared.py", "bounds() + self._prepare"),
    ("app/db/jobs.py", "sql"),
    ("app/db/repairs.py", "sql"),
    ("app/jobs/wiring.py", "query"),
    ("app/neo4j_database.py", "query"),
    ("app/neo4j_database_validator.py", "query"),
    ("app/jobs/wiring.py", "query"),
    ("app/graph/session.py", "query"),
    ("app/graph/session.py", "bounded"),
}
"""The few places that hand on the statement that they were given; their callers are looked at as well."""


def _trees() -> Iterator[tuple[str, ast.Module]]:
    for path in SOURCES:
        yield str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))


def _is_constant(node: ast.expr) -> bool:
    """A literal, an UPPER_CASE name, or nothing but such put together."""
    match node:
        case ast.Constant():
            return True
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return CONSTANT.fullmatch(name) is not None
        case ast.JoinedStr(values=values):
            return all(_is_constant(value) for value in values)
        case ast.FormattedValue(value=value):
            return _is_constant(value)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _is_constant(left) and _is_constant(right)
    return False


def _literal_text(node: ast.AST) -> str:
    return " ".join(n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str))


def _is_put_together(node: ast.AST) -> bool:
    match node:
        case ast.JoinedStr() | ast.BinOp(op=ast.Mod() | ast.Add()):
            return True
        case ast.Call(func=ast.Attribute(attr="format" | "join" | "replace" | "format_map")):
            return True
    return False


def statements_with_data() -> list[str]:
    """Every string that reads like SQL or Cypher and is put together from more than constants."""
    return [
        f"{name}:{node.lineno}: {ast.unparse(node)[:100]}"
        for name, tree in _trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.expr)
        and _is_put_together(node)
        and STATEMENT.search(_literal_text(node))
        and not _is_constant(node)
    ]


def statements_from_elsewhere() -> list[str]:
    """Every call that runs a statement which is neither a constant nor handed on."""
    found = []
    for name, tree in _trees():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            statement = _statement_of(node)
            if statement is None:
                continue
            is_known = (name, ast.unparse(statement)) in PASSED_ON
            if not is_known and not _is_constant(statement):
                found.append(f"{name}:{node.lineno}: {ast.unparse(node)[:100]}")
    return found


def _statement_of(call: ast.Call) -> ast.expr | None:
    function = ast.unparse(call.func)
    if function in ("run", "_rows", "_read"):
        return call.args[1] if len(call.args) > 1 else None
    return call.args[0] if function == "session.run" or function.rsplit(".", 1)[-1] in RUNNERS else None


def test_no_statement_is_put_together_from_data() -> None:
    assert statements_with_data() == []


def test_only_constant_statements_are_run() -> None:
    assert statements_from_elsewhere() == []


@pytest.mark.parametrize(
    "code",
    [
        "run(engine, f'SELECT * FROM t WHERE id = {segment_id}')",
        "cursor.execute('SELECT * FROM t WHERE id = %s' % segment_id)",
        "session.run('MATCH (m {id: \"' + name + '\"}) RETURN m')",
        "text('SELECT {}'.format(name))",
    ],
)
def test_the_rule_finds_data_in_a_statement(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bad.py"
    path.write_text(code)
    monkeypatch.setitem(globals(), "SOURCES", [path])
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert statements_with_data()


def test_the_rule_finds_a_statement_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bad.py"
    path.write_text("run(engine, message.body)")
    monkeypatch.setitem(globals(), "SOURCES", [path])
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert statements_from_elsewhere()


@pytest.mark.parametrize("name", ["pickle", "marshal", "shelve", "dill"])
def test_nothing_is_ever_unpickled(name: str) -> None:
    importing = [
        path
        for path, tree in _trees()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Import) and name in {alias.name for alias in node.names})
        or (isinstance(node, ast.ImportFrom) and node.module == name)
    ]
    assert importing == []


def test_nothing_is_ever_evaluated() -> None:
    calls = [
        f"{path}:{node.lineno}"
        for path, tree in _trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("eval", "exec", "compile")
    ]
    assert calls == []


def test_a_rediss_url_makes_tls_connections() -> None:
    pool: Any = RedisStore("rediss://:secret@cache.example:6380/0")._client.connection_pool
    assert pool.connection_class.__name__ == "SSLConnection"
    assert pool.make_connection().cert_reqs.name == "CERT_REQUIRED"
    plain: Any = RedisStore("redis://cache.example:6379/0")._client.connection_pool
    assert plain.connection_class.__name__ == "Connection"


@pytest.mark.parametrize("scheme", ["neo4j+s", "bolt+s", "neo4j+ssc", "bolt+ssc"])
def test_a_neo4j_uri_with_tls_makes_an_encrypted_driver(scheme: str) -> None:
    with open_driver(f"{scheme}://graph.example:7687", "neo4j", "secret") as driver:
        assert driver.encrypted


def test_a_neo4j_uri_without_tls_makes_a_plain_driver() -> None:
    with open_driver("bolt://graph.example:7687", "neo4j", "secret") as driver:
        assert not driver.encrypted


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2"])
@pytest.mark.parametrize("mode", ["require", "verify-full"])
def test_sslmode_reaches_libpq(scheme: str, mode: str) -> None:
    url = f"{scheme}://me:secret@db.example:5432/segments?sslmode={mode}&sslrootcert=/etc/ca.pem"
    arguments = libpq_arguments(url)
    assert (arguments["sslmode"], arguments["sslrootcert"]) == (mode, "/etc/ca.pem")
    migrating = make_engine(url)
    assert migrating.dialect.driver == "psycopg2"
    assert migrating.dialect.create_connect_args(migrating.url)[1]["sslmode"] == mode


def test_an_https_endpoint_is_verified() -> None:
    client: Any = make_client(
        "us-east-1", endpoint_url="https://sqs.example", access_key_id="id", secret_access_key="secret"
    )
    assert client.meta.endpoint_url == "https://sqs.example"
    assert client._endpoint.http_session._verify not in (False, None)


def test_aws_itself_is_called_by_https() -> None:
    client = make_client("eu-central-1", access_key_id="id", secret_access_key="secret")
    assert client.meta.endpoint_url == "https://sqs.eu-central-1.amazonaws.com"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("POSTGRES_URL", "postgresql://me:secret@db.example/segments?sslmode=require"),
        ("NEO4J_URI", "neo4j+s://graph.example"),
        ("NEO4J_URI", "bolt+ssc://graph.example:7687"),
        ("DRAGONFLY_URL", "rediss://:secret@cache.example:6380/0"),
        ("AWS_ENDPOINT_URL_SQS", "https://sqs.example"),
    ],
)
def test_a_setting_with_tls_is_taken_as_it_is(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert getattr(load_settings(name), name.lower()) == value
