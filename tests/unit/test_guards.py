"""The list of guards stays true: `python -m tests.guards` sees each one's test fail, which takes minutes."""

import re

import pytest

from tests.guards import GUARDS, ROOT, Guard


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.what)
def test_each_guard_stands_in_the_code_once_and_has_a_test(guard: Guard) -> None:
    assert (ROOT / guard.path).read_text(encoding="utf-8").count(guard.code) == 1
    path, _, name = guard.test.partition("::")
    assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8")


def test_the_documentation_lists_them_all() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| `(tests/\S+::\S+)` \|$", text, re.MULTILINE)
    assert rows == [(guard.what, guard.test) for guard in GUARDS]
