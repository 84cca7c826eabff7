"""A PostgreSQL URL reaches libpq as SQLAlchemy, by which the migrations connect, hands it on."""

from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg2.extensions import make_dsn, parse_dsn

from app.db.address import libpq_arguments
from app.db.connection import BOUNDS
from app.db.engine import make_engine
from app.errors import ConfigurationError

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
NAME = TEXT.map(lambda name: quote(name, safe=""))
PASSWORD = NAME | st.text("abc%/:?#&+ é", max_size=8)
HOST = st.sampled_from(["", "db.example", "127.0.0.1", "[::1]", "[fe80::1]", "a.example,b.example"])
PORT = st.sampled_from(["", ":5432", ":6543"])
OPTIONS = st.dictionaries(
    st.sampled_from(["sslmode", "sslrootcert", "options", "target_session_attrs", "connect_timeout"]), TEXT, max_size=3
)
HOSTS = st.lists(st.sampled_from(["h1", "h2:6432", "h3:5433", "10.0.0.1:1"]), max_size=3) | st.sampled_from(
    [["/var/run/postgresql"], ["h1,h2"], ["::1"], ["h:"]]
)
PLACE: st.SearchStrategy[tuple[str, str, list[str]]] = st.tuples(HOST, PORT, st.just([])) | st.tuples(
    st.just(""), st.just(""), HOSTS
)


def of_sqlalchemy(url: str) -> dict[str, str]:
    engine = make_engine(url)
    _, arguments = engine.dialect.create_connect_args(engine.url)
    found = {name: str(value) for name, value in arguments.items()}
    if not found.get("port", "").strip(","):  # commas for ports that none of several hosts has
        found.pop("port", None)
    return found


@given(user=NAME, password=PASSWORD | st.none(), place=PLACE, database=NAME, options=OPTIONS)
def test_any_url_is_read_as_by_sqlalchemy(
    user: str, password: str | None, place: tuple[str, str, list[str]], database: str, options: dict[str, str]
) -> None:
    host, port, hosts = place
    whose = user if password is None else f"{user}:{password}"
    query = urlencode([*options.items(), *(("host", each) for each in hosts)])
    url = f"postgresql://{whose}@{host}{port}/{database}" + (f"?{query}" if query else "")
    assert libpq_arguments(url) == of_sqlalchemy(url)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2"])
def test_each_scheme_and_every_sign_of_a_password(scheme: str) -> None:
    arguments = libpq_arguments(f"{scheme}://me:p%40ss%2F%25+@db:6432/segments?sslmode=require&options=-c%20a%3Db")
    assert parse_dsn(make_dsn(**arguments)) == {
        "user": "me",
        "password": "p@ss/%+",
        "host": "db",
        "port": "6432",
        "dbname": "segments",
        "sslmode": "require",
        "options": "-c a=b",
    }


def test_a_password_with_plain_signs_that_libpq_would_refuse() -> None:
    assert libpq_arguments("postgresql://me:50%/?#@db/segments")["password"] == "50%/?#"


def test_several_hosts_each_with_its_port() -> None:
    found = libpq_arguments("postgresql://me@/segments?host=a:1&host=b&host=c:3")
    assert (found["host"], found["port"]) == ("a,b,c", "1,,3")


def test_what_is_left_out_is_libpq_s_own_default() -> None:
    assert libpq_arguments("postgresql:///") == {}


def test_what_is_no_url_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigurationError, match="POSTGRES_URL") as refused:
        libpq_arguments("mysql://me:secret@db/segments")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", ["postgresql:/me:secret@db", "postgresql://me:secret@db/segments?port=x"])
def test_the_migrations_refuse_it_in_as_few_words(url: str) -> None:
    with pytest.raises(ConfigurationError, match="POSTGRES_URL") as refused:
        make_engine(url)
    assert "secret" not in str(refused.value)


def test_waits_are_bounded_by_options_that_libpq_knows() -> None:
    assert parse_dsn(make_dsn(**BOUNDS)) == {name: str(value) for name, value in BOUNDS.items()}
