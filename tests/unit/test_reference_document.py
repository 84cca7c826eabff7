"""docs/reference.md is what the code is, and README.md leaves no setting out."""

from pathlib import Path

import pytest

from app.config import Settings
from app.db.models import Base
from app.main import EXIT_CONFIGURATION
from app.worker.loop import EXIT_OK, EXIT_STALLED
from scripts.reference import settings, tables
from scripts.reference.code import ROOT, MissingMeaningError, attribute_texts, table
from scripts.reference.codes import write_exit_codes
from scripts.reference.settings import describe_type, read_meanings
from scripts.write_reference import DOCUMENT, write_reference


def test_the_document_is_current() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == write_reference(), "run: python -m scripts.write_reference"


def test_it_has_every_setting_and_every_column() -> None:
    text = write_reference()
    names = [name.upper() for name in Settings.model_fields]
    names += [column.name for made in Base.metadata.tables.values() for column in made.columns]
    assert [name for name in names if f"| `{name}` |" not in text] == []


def test_the_readme_names_every_setting() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name.upper() for name in Settings.model_fields if f"`{name.upper()}`" not in text] == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("max_attempts", "integer, 1 to 1000"),
        ("cache_ttl_seconds", "integer, from 1"),
        ("shutdown_grace_seconds", "number, 1 to 300"),
        ("dragonfly_url", "URL, `redis://` or `rediss://`"),
        ("neo4j_database", "text"),
        ("log_format", "`text` or `json`"),
    ],
)
def test_types_are_told_in_words(name: str, shown: str) -> None:
    assert describe_type(Settings.model_fields[name]) == shown


def test_a_variable_right_below_another_shares_its_comment_and_no_other_does() -> None:
    example = "# --- A ---\n# Both.\nONE=1\n# TWO=2\n\n# THREE=3\n# Four's own,\n# on two lines.\n# FOUR="
    assert read_meanings(example) == {"ONE": "Both.", "TWO": "Both.", "THREE": "", "FOUR": "Four's own, on two lines."}


def test_what_stands_below_an_attribute_is_its_text(tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text('class A:\n    """A."""\n    one: int = 1\n    """First,\n    in two lines."""\n    two: int\n')
    assert attribute_texts(str(source), "A") == {"one": "First, in two lines."}


def test_a_setting_that_env_example_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "read_meanings", lambda _: {"POSTGRES_URL": "Jobs."})
    with pytest.raises(MissingMeaningError, match=r"env\.example says nothing about \w+: give it a comment"):
        settings.write_settings()


def test_a_column_without_a_meaning_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "attribute_texts", lambda *_: {})
    with pytest.raises(MissingMeaningError, match=r"root_job\.job_id: put a docstring below"):
        tables.write_tables()


def test_the_worker_s_exit_codes_are_those_of_the_code() -> None:
    text = write_exit_codes()
    for code in (EXIT_OK, EXIT_CONFIGURATION, EXIT_STALLED, "128 + n"):
        assert f"| `python -m app.main` | {code} | " in text


def test_a_bar_in_a_cell_does_not_end_it() -> None:
    assert table(("a",), [("x | y",)]) == "| a |\n| --- |\n| x \\| y |\n"
