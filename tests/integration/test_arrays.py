"""Array literals: PostgreSQL reads back what was put in."""

import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.db.arrays import plain_array, text_array
from app.db.postgres import run
from tests.support.engine import Engine

SHOW = "SELECT %(texts)s::text[] AS texts, %(numbers)s::bigint[] AS numbers, %(ids)s::uuid[]::text[] AS ids"
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
"""Anything that PostgreSQL takes; characters that mean something in an array come of themselves."""


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(texts | st.sampled_from(['"', "\\", '","', "NULL", "{}", "", " a ", '\\"'])),
    st.lists(st.integers(-(2**63), 2**63 - 1)),
    st.lists(st.uuids().map(str)),
)
def test_what_is_put_in_is_read_back(engine: Engine, names: list[str], numbers: list[int], ids: list[str]) -> None:
    values = {"texts": text_array(names), "numbers": plain_array(numbers), "ids": plain_array(ids)}
    assert run(engine, SHOW, values) == [(names, numbers, ids)]


@pytest.mark.parametrize("names", [[], ["x"], ['a"b'], [str(uuid.UUID(int=0))] * 3])
def test_no_one_and_several(engine: Engine, names: list[str]) -> None:
    assert run(engine, "SELECT %(texts)s::text[]", {"texts": text_array(names)}) == [(names,)]
