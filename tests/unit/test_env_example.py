"""env.example is what an operator copies: complete, true, and usable as it is."""

import re
from pathlib import Path

from pydantic_core import PydanticUndefined

from app.config import Settings

LINES = (Path(__file__).resolve().parents[2] / "env.example").read_text(encoding="utf-8").splitlines()
ASSIGNMENT = re.compile(r"(# )?([A-Z0-9_]+)=(.*)")
SHOWN = {found[2]: (bool(found[1]), found[3]) for line in LINES if (found := ASSIGNMENT.fullmatch(line))}


def test_it_has_every_variable_and_no_other() -> None:
    assert sorted(SHOWN) == sorted(name.upper() for name in Settings.model_fields)


def test_what_must_be_set_is_not_commented_out_and_the_rest_shows_its_default() -> None:
    for name, (commented_out, value) in SHOWN.items():
        default = Settings.model_fields[name.lower()].default
        assert commented_out == (default is not PydanticUndefined), name
        if commented_out and default is not None:
            assert value == str(default), name


def test_every_bound_is_told() -> None:
    text = "\n".join(LINES)
    for name, field in Settings.model_fields.items():
        before = text.split(f"\n# {name.upper()}=")[0].splitlines()[-1]
        for bound in field.metadata:
            for limit in (getattr(bound, "ge", None), getattr(bound, "le", None)):
                assert limit is None or re.search(rf"\b{limit}\b", before), (name, limit, before)


def test_the_copy_is_accepted(tmp_path: Path) -> None:
    copy = tmp_path / ".env"
    copy.write_text("\n".join(LINES), encoding="utf-8")
    settings = Settings(_env_file=copy)  # type: ignore[call-arg]
    assert settings.sqs_visibility_timeout_seconds == 60
    every_line = tmp_path / "all.env"
    every_line.write_text(re.sub(r"(?m)^# ([A-Z0-9_]+=)", r"\1", "\n".join(LINES)), encoding="utf-8")
    assert Settings(_env_file=every_line) == settings.model_copy(update={"dragonfly_url": "redis://localhost:6379"})  # type: ignore[call-arg]
