"""The key that the workers of one deployment share, and the cache between them does not know.

Invariant: what is written under one key is no page under another. Deployments that differ in their graph, in the
PostgreSQL whose clock dates their pages, or in the graph's password never meet in a cache that they share.

The secret is one that every worker has anyway: the graph's password. The key is made from it by scrypt: checksums lie
where others may read them, and must not help to guess a password that a person chose. It can't be told from the key.
"""

import json
from hashlib import blake2b, scrypt
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

KEY_BYTES: Final = 32
SCRYPT_COST: Final = 2**14  # 16 MiB and some 50 ms, once a start
_SALT_BYTES: Final = 16
_WHERE: Final = ("host", "hostaddr", "port", "dbname", "service")
"""What libpq takes from a URL's query to find a database by."""


def derive_key(secret: str, graph_id: str, clock_id: str) -> bytes:
    """The key to pages of the graph `graph_id` whose times are told by the clock `clock_id`."""
    whose = json.dumps([graph_id, clock_id]).encode("ascii")
    salt = blake2b(whose, digest_size=_SALT_BYTES, person=b"srp page key").digest()
    return scrypt(secret.encode("utf-8", "surrogateescape"), salt=salt, n=SCRYPT_COST, r=8, p=1, dklen=KEY_BYTES)


def key_prefix(key: bytes) -> str:
    """What the names of this key's pages begin with, so that other keys' pages are not even read."""
    return blake2b(key=key, digest_size=8, person=b"srp names").hexdigest()


def name_clock(postgres_url: str) -> str:
    """Which PostgreSQL it is whose clock dates the pages: its host, port and database; no user, no password.

    One server by two names (directly, and through a pooler) counts as two: then less is shared, and nothing mixed up.
    Two servers that go by one name, each in its own network, count as one: a page dated by the one whose clock is ahead
    looks as much newer to the other's workers, which app/caching/server_clock.py bounds.
    """
    parts = urlsplit(postgres_url)
    asked = dict(parse_qsl(parts.query))
    places = [parts.hostname or "", parts.port or 5432, unquote(parts.path.lstrip("/"))]
    return json.dumps(places + [asked.get(name, "") for name in _WHERE])
