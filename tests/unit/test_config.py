"""Settings: one message that names every offender, no value shown, each command only what it uses."""

from pathlib import Path

import pytest

from app.config import get, load_settings
from app.errors import ConfigurationError

COMPLETE = {
    "NEO4J_URI": "bolt://graph:7687",
    "NEO4J_PASSWORD": "hunter2",
    "POSTGRES_URL": "postgresql://me:hunter2@host:5432/db",
    "SQS_QUEUE_URL": "https://sqs/1/segments",
    "SQS_COMPLETED_QUEUE_URL": "https://sqs/1/completed",
}


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def complete(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in COMPLETE.items():
        monkeypatch.setenv(name, value)


def test_nothing_set_names_everything_that_is_missing() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    for name in COMPLETE:
        assert f"{name} is not set" in str(caught.value)


@pytest.mark.usefixtures("complete")
def test_defaults_are_those_of_the_contract() -> None:
    settings = load_settings()
    assert (settings.neo4j_user, settings.aws_region) == ("neo4j", "us-east-1")
    assert (settings.sqs_wait_time_seconds, settings.sqs_batch_size) == (20, 10)
    assert (settings.sqs_visibility_timeout_seconds, settings.polling_wait_time_ms) == (60, 50)
    assert (settings.max_attempts, settings.shutdown_grace_seconds, settings.cache_ttl_seconds) == (5, 25, 86_400)
    assert (settings.log_level, settings.log_format) == ("INFO", "text")
    assert settings.dragonfly_url is None


@pytest.mark.usefixtures("complete")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NEO4J_URI", "http://graph"),
        ("NEO4J_PASSWORD", "   "),
        ("POSTGRES_URL", "mysql://me:hunter2@host/db"),
        ("POSTGRES_URL", "postgresql://me:hunter2@host:port/db"),
        ("SQS_QUEUE_URL", "segments"),
        ("SQS_VISIBILITY_TIMEOUT_SECONDS", "4"),
        ("SQS_VISIBILITY_TIMEOUT_SECONDS", "14401"),
        ("SQS_BATCH_SIZE", "11"),
        ("SQS_WAIT_TIME_SECONDS", "21"),
        ("MAX_ATTEMPTS", "many"),
        ("DRAGONFLY_URL", "localhost:6379"),
        ("LOG_FORMAT", "xml"),
    ],
)
def test_a_malformed_value_is_named_and_not_shown(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert f"- {name} " in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.usefixtures("complete")
@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_the_usual_postgres_schemes_are_accepted(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_URL", f"{scheme}://me:pw@host:5432/db?sslmode=require")
    assert load_settings().postgres_url.startswith(scheme)


@pytest.mark.usefixtures("complete")
@pytest.mark.parametrize("scheme", ["neo4j", "neo4j+s", "neo4j+ssc", "bolt", "bolt+s", "bolt+ssc"])
def test_neo4j_schemes_with_and_without_tls_pass(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEO4J_URI", f"{scheme}://graph:7687")
    assert load_settings().neo4j_uri == f"{scheme}://graph:7687"


@pytest.mark.usefixtures("complete")
def test_secrets_are_not_in_the_repr() -> None:
    assert "hunter2" not in repr(load_settings())


def test_get_needs_only_its_own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQS_QUEUE_URL", "https://sqs/1/segments")
    monkeypatch.setenv("MAX_ATTEMPTS", "nonsense")
    assert get("SQS_QUEUE_URL") == "https://sqs/1/segments"
    assert get("AWS_REGION") == "us-east-1"
    assert get("DRAGONFLY_URL") is None


def test_get_of_something_else_says_where_the_names_stand() -> None:
    with pytest.raises(ConfigurationError, match=r"SQS_QUEUE is not a variable.*env\.example"):
        get("SQS_QUEUE")


def test_get_of_a_missing_one_names_only_it() -> None:
    with pytest.raises(ConfigurationError) as caught:
        get("NEO4J_URI")
    assert "NEO4J_URI is not set" in str(caught.value)
    assert "POSTGRES_URL" not in str(caught.value)


def test_the_environment_wins_over_the_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("AWS_REGION=eu-west-1\nNEO4J_USER=editor\n")
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    assert get("AWS_REGION") == "ap-south-1"
    assert get("NEO4J_USER") == "editor"


def test_a_command_does_not_even_see_what_it_did_not_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_URL", "postgresql://me:pw@host/db")
    assert not hasattr(load_settings("POSTGRES_URL"), "neo4j_uri")


@pytest.mark.usefixtures("complete")
@pytest.mark.parametrize(
    ("name", "value", "other"),
    [
        ("SQS_COMPLETED_QUEUE_URL", "https://sqs/1/segments", "SQS_QUEUE_URL"),
        ("SQS_COMPLETED_QUEUE_URL", "http://SQS:80/1//segments/", "SQS_QUEUE_URL"),
        ("SQS_DEAD_LETTER_QUEUE_URL", "https://queue.amazonaws.com/1/segments", "SQS_QUEUE_URL"),
        ("SQS_DEAD_LETTER_QUEUE_URL", "https://sqs/1/completed", "SQS_COMPLETED_QUEUE_URL"),
    ],
)
def test_two_variables_that_name_the_same_queue_are_refused(
    name: str, value: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    for asked in ((), (name, other)):
        with pytest.raises(ConfigurationError) as caught:
            load_settings(*asked)
        assert f"- {other} and {name} name the same queue" in str(caught.value)
    assert get(name) == value


@pytest.mark.usefixtures("complete")
@pytest.mark.parametrize("value", ["https://sqs/2/segments", "https://sqs/1/Segments", "https://sqs/1/segments.fifo"])
def test_queues_of_other_accounts_or_names_are_others(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQS_DEAD_LETTER_QUEUE_URL", value)
    assert load_settings().sqs_dead_letter_queue_url == value
