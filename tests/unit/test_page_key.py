"""Who shares pages with whom."""

from itertools import combinations

import pytest

from app.caching.key import KEY_BYTES, derive_key, key_prefix, name_clock

URL = "postgresql://user:word@db:5432/segments"


def test_workers_with_the_same_settings_have_the_same_key() -> None:
    assert derive_key("word", "graph", "clock") == derive_key("word", "graph", "clock")
    assert len(derive_key("word", "graph", "clock")) == KEY_BYTES


def test_another_password_graph_or_clock_is_another_key() -> None:
    keys = [
        derive_key(*whose)
        for whose in [
            ("w", "g", "c"),
            ("v", "g", "c"),
            ("w", "h", "c"),
            ("w", "g", "d"),
            ("w", "gc", ""),
            ("w", "", "gc"),
        ]
    ]
    assert all(one != other for one, other in combinations(keys, 2))
    assert len({key_prefix(key) for key in keys}) == len(keys)


def test_a_password_of_any_characters_makes_a_key() -> None:
    keys = {derive_key(secret, "graph", "clock") for secret in ("", "é", "\udcff", "x" * 1000)}
    assert len(keys) == 4


@pytest.mark.parametrize(
    "same",
    [
        "postgres://user:word@db:5432/segments",
        "postgresql+psycopg2://user:word@db:5432/segments",
        "postgresql://other:changed@DB/segments",
        "postgresql://db/segments?sslmode=require&password=word&user=user",
        "postgresql://db/%73egments",
    ],
)
def test_one_database_has_one_name_whoever_asks(same: str) -> None:
    assert name_clock(same) == name_clock(URL)


@pytest.mark.parametrize(
    "other",
    [
        "postgresql://user:word@db2:5432/segments",
        "postgresql://user:word@db:5433/segments",
        "postgresql://user:word@db:5432/other",
        "postgresql://user:word@db:5432/segments?host=/var/run/one",
        "postgresql:///segments?host=/var/run/two",
        "postgresql:///segments?service=three",
    ],
)
def test_another_database_has_another_name(other: str) -> None:
    assert name_clock(other) != name_clock(URL)


def test_neither_user_nor_password_is_part_of_the_name() -> None:
    name = name_clock("postgresql://hidden-user:hidden-word@db/segments?password=hidden&user=hidden")
    assert "hidden" not in name
