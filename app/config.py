"""Settings from the environment and ``.env``: read once, checked as a whole, never shown.

Invariant: a wrong setting stops the start with one message that names every offender and shows no value of it;
each command asks only for the variables that it uses (docs/formats.md, "Names that stay").
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from itertools import combinations
from typing import Annotated, Any, Final, Literal, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError, create_model
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.errors import ConfigurationError

ENV_FILE: Final = ".env"
LONGEST_VISIBILITY_SETTING_SECONDS: Final = 14_400
"""The most that one message may be hidden for here; SQS itself ends every visibility 12 h after the receive."""


def _refuse_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty")
    return value


def _refuse_unsendable(value: str) -> str:
    """A header carries it as it is."""
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("must be of visible ASCII characters, without spaces")
    return value


def _check_scheme(*schemes: str) -> AfterValidator:
    return AfterValidator(partial(_refuse_other_urls, schemes))


def _refuse_other_urls(schemes: Sequence[str], value: str) -> str:
    _refuse_blank(value)
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in schemes:
        raise ValueError(f"must start with one of {', '.join(s + '://' for s in schemes)}")
    return value


QUEUES: Final = ("sqs_queue_url", "sqs_completed_queue_url", "sqs_dead_letter_queue_url")
NEO4J_SCHEMES: Final = ("neo4j", "neo4j+s", "neo4j+ssc", "bolt", "bolt+s", "bolt+ssc")
POSTGRES_SCHEMES: Final = ("postgresql", "postgres", "postgresql+psycopg2")

Text = Annotated[str, AfterValidator(_refuse_blank)]
QueueUrl = Annotated[str, _check_scheme("https", "http")]


class Settings(BaseSettings):
    """Every variable of the published contract, under its own name in lower case.

    Raises `pydantic.ValidationError`; use `load_settings`, whose error is meant for a person.
    """

    model_config = SettingsConfigDict(
        env_file=ENV_FILE, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True, frozen=True
    )

    neo4j_uri: Annotated[str, _check_scheme(*NEO4J_SCHEMES)] = Field(repr=False)
    neo4j_user: Text = "neo4j"
    neo4j_password: Text = Field(repr=False)
    neo4j_database: Text | None = None
    postgres_url: Annotated[str, _check_scheme(*POSTGRES_SCHEMES)] = Field(repr=False)
    aws_region: Text = "us-east-1"
    aws_access_key_id: Text | None = Field(default=None, repr=False)
    aws_secret_access_key: Text | None = Field(default=None, repr=False)
    aws_session_token: Text | None = Field(default=None, repr=False)
    aws_endpoint_url_sqs: Annotated[str, _check_scheme("https", "http")] | None = None
    sqs_queue_url: QueueUrl
    sqs_completed_queue_url: QueueUrl
    sqs_dead_letter_queue_url: QueueUrl | None = None
    sqs_wait_time_seconds: int = Field(default=20, ge=0, le=20)
    sqs_batch_size: int = Field(default=10, ge=1, le=10)
    sqs_batches_in_hand: int = Field(default=16, ge=1, le=32)
    sqs_visibility_timeout_seconds: int = Field(default=60, ge=5, le=LONGEST_VISIBILITY_SETTING_SECONDS)
    sqs_calls: Literal["lean", "boto3"] = "lean"
    polling_wait_time_ms: int = Field(default=50, ge=0, le=60_000)
    max_attempts: int = Field(default=5, ge=1, le=1_000)
    shutdown_grace_seconds: float = Field(default=25, ge=1, le=300)
    dragonfly_url: Annotated[str, _check_scheme("redis", "rediss")] | None = Field(default=None, repr=False)
    cache_ttl_seconds: int = Field(default=86_400, ge=1)
    page_cache_megabytes: int = Field(default=96, ge=1)
    api_token: Annotated[str, AfterValidator(_refuse_unsendable)] | None = Field(default=None, repr=False)
    metrics_port: int | None = Field(default=None, ge=0, le=65_535)
    metrics_host: Text = "127.0.0.1"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    log_format: Literal["text", "json"] = "text"


def load_settings(*names: str) -> Settings:
    """The settings, checked as a whole; with `names` only those variables are read, and only they exist.

    Raises `ConfigurationError` with one message that names every offender.
    """
    try:
        model: Callable[[], Settings] = _subset(frozenset(name.lower() for name in names))
        settings = model()
    except ValidationError as error:
        raise ConfigurationError(_complain(_complaints(error))) from None
    refuse_same_queues({name.upper(): getattr(settings, name, None) for name in QUEUES})
    return settings


def find_complaints() -> list[str]:
    """What is wrong with the settings as a whole, a line each that begins with the variable's name."""
    try:
        settings = cast(Callable[[], Settings], Settings)()
    except ValidationError as error:
        return _complaints(error)
    return _same_queues({name.upper(): getattr(settings, name) for name in QUEUES})


AWS: Final = ("AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_SQS")
"""What a client of SQS is made from; see `aws_access`."""


def aws_access(settings: Settings) -> dict[str, str | None]:
    """The keyword arguments of `app.sqs.queue.make_client` that the settings hold."""
    return {
        "region": settings.aws_region,
        "endpoint_url": settings.aws_endpoint_url_sqs,
        "access_key_id": settings.aws_access_key_id,
        "secret_access_key": settings.aws_secret_access_key,
        "session_token": settings.aws_session_token,
    }


def refuse_same_queues(urls: Mapping[str, str | None]) -> None:
    """Two of them are the same queue: what a worker sent to one it would receive as the other.

    Only the path counts: one client serves all queues, and asks its own endpoint whatever host a URL names.
    Raises `ConfigurationError` that names the variables, which are the keys.
    """
    if same := _same_queues(urls):
        raise ConfigurationError(_complain(same))


def _same_queues(urls: Mapping[str, str | None]) -> list[str]:
    paths = {name: [part for part in urlsplit(url).path.split("/") if part] for name, url in urls.items() if url}
    return [
        f"{one} and {other} name the same queue"
        for (one, path), (other, other_path) in combinations(paths.items(), 2)
        if path == other_path
    ]


def get(name: str) -> Any:
    """The value of one variable of the contract, by its published name: ``get("SQS_QUEUE_URL")``.

    Needs only that variable. An optional one that is not set gives None.
    Raises `ConfigurationError` when it is missing, malformed or not one of ours.
    """
    if name.lower() not in Settings.model_fields:
        raise ConfigurationError(f"{name} is not a variable of this project; env.example lists them all.")
    return getattr(load_settings(name), name.lower())


@cache
def _subset(fields: frozenset[str]) -> Callable[[], Settings]:
    if not fields:
        return cast(Callable[[], Settings], Settings)
    chosen: dict[str, Any] = {
        name: (Settings.model_fields[name].annotation, Settings.model_fields[name]) for name in fields
    }
    base = type("SettingsBase", (BaseSettings,), {"model_config": Settings.model_config})
    return cast(Callable[[], Settings], create_model("Settings", __base__=base, **chosen))


def _complaints(error: ValidationError) -> list[str]:
    items = error.errors(include_url=False, include_input=False, include_context=False)
    return [f"{str(item['loc'][0]).upper()} {_reason(item['type'], item['msg'])}" for item in items]


def _complain(complaints: Sequence[str]) -> str:
    lines = "\n".join(f"  - {complaint}" for complaint in complaints)
    return (
        f"The settings are not usable; {len(complaints)} to mend:\n{lines}\n"
        f"Set them in the environment or in {ENV_FILE} (cp env.example .env); env.example explains each."
    )


def _reason(kind: str, message: str) -> str:
    if kind == "missing":
        return "is not set"
    message = message.removeprefix("Value error, ").removeprefix("Input ")
    return message[:1].lower() + message[1:]
