"""The tables: columns, defaults and rules of `app.db.models`, and what stands below each column there."""

from typing import Any, Final

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Table, UniqueConstraint
from sqlalchemy.dialects import postgresql

from app.db.models import Base
from scripts.reference.code import MissingMeaningError, attribute_texts, module_text, table

SOURCE: Final = "app/db/models.py"


def write_tables() -> str:
    """The section, from its heading on. Raises `MissingMeaningError`."""
    return (
        "## Tables\n\n"
        "Made by `alembic upgrade head`. Every column beyond those that a producer gives"
        " ([formats](formats.md#rows-that-a-producer-inserts)) has a default or may be null."
        " Times carry a time zone.\n\n"
        f"{_triggers()}\n\n" + "\n".join(_write_table(each) for each in Base.__subclasses__())
    )


def _triggers() -> str:
    text = " ".join(module_text(SOURCE).partition("stand in the\nmigration: ")[2].partition("\n\n")[0].split())
    return f"Two things the tables do by themselves: {text}"


def _write_table(mapped: Any) -> str:
    made: Table = mapped.__table__
    meanings = attribute_texts(SOURCE, mapped.__name__)
    rows = []
    for column in made.columns:
        if column.name not in meanings:
            raise MissingMeaningError(
                f"{SOURCE} says nothing about {made.name}.{column.name}: put a docstring below the column"
            )
        kind = column.type.compile(dialect=postgresql.dialect()).lower()  # type: ignore[no-untyped-call]
        rows.append((f"`{column.name}`", kind, _default(column), meanings[column.name]))
    idea = " ".join((mapped.__doc__ or "").partition("\n\n")[0].split())
    rules = "".join(f"- {rule}\n" for rule in _rules(made))
    return f"### {made.name}\n\n{idea}\n\n{table(('column', 'type', 'default', 'meaning'), rows)}\n{rules}"


def _default(column: Any) -> str:
    if column.server_default is not None:
        return f"`{column.server_default.arg.text}`"
    return "null" if column.nullable else "required"


def _rules(made: Table) -> list[str]:
    """Keys and checks, in words."""
    rules = [f"primary key `{', '.join(column.name for column in made.primary_key)}`"]
    for rule in sorted(made.constraints, key=lambda rule: (type(rule).__name__, str(rule.name))):
        match rule:
            case CheckConstraint():
                rules.append(f"`{rule.sqltext}`")
            case ForeignKeyConstraint():
                rules.append(f"`{rule.column_keys[0]}` refers to `{rule.elements[0].target_fullname}`")
            case UniqueConstraint():
                rules.append(f"`{', '.join(column.name for column in rule.columns)}` unique")
    return rules
