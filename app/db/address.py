"""Where PostgreSQL is: a URL, as what libpq is to be told.

Invariant: a URL names the same server, user and options here and for the migrations, which connect through SQLAlchemy.
libpq reads URLs too, but refuses a password with a plain ``%`` or ``/`` in it, which has always been taken.
"""

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import parse_qsl, unquote

from app.errors import ConfigurationError

_URL: Final = re.compile(
    r"(?:postgres|postgresql|postgresql\+psycopg2)://"
    r"(?:(?P<user>[^:/]*)(?::(?P<password>[^@]*))?@)?"
    r"(?P<host>[^/?]*)"
    r"(?:/(?P<dbname>[^?]*))?"
    r"(?:\?(?P<query>.*))?"
)
_HOST: Final = re.compile(r"(?:\[(?P<address>[^\]]+)\]|(?P<name>[^:]*))(?::(?P<port>\d*))?")


def libpq_arguments(url: str) -> dict[str, str]:
    """Names and values for libpq. Several hosts stand as ``?host=a:5432&host=b:5432``.

    Raises `ConfigurationError`, which does not repeat the URL.
    """
    found = _URL.fullmatch(url)
    if found is None:
        raise ConfigurationError("POSTGRES_URL is not a URL of PostgreSQL")
    query = parse_qsl(found["query"] or "")
    arguments = {name: unquote(found[name]) for name in ("user", "password", "dbname") if found[name]}
    arguments |= _hosts_and_ports([found["host"]])
    arguments |= {name: value for name, value in query if name != "host"}
    return arguments | _hosts_and_ports([value for name, value in query if name == "host"])


def _hosts_and_ports(hosts: Sequence[str]) -> dict[str, str]:
    """``host`` and ``port``, of several divided by commas; what none of them names is left out."""
    divided = [_divide(host) for host in hosts]
    named = {"host": [host for host, _ in divided], "port": [port for _, port in divided]}
    return {name: ",".join(values) for name, values in named.items() if any(values)}


def _divide(host: str) -> tuple[str, str]:
    found = _HOST.fullmatch(host)
    return (found["address"] or found["name"], found["port"] or "") if found else (host, "")
