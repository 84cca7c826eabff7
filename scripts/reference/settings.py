"""The settings: names, types and defaults of `app.config.Settings`, in the words of env.example."""

import re
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any, Final, Literal, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import AfterValidator
from pydantic.fields import FieldInfo

from app.config import Settings
from scripts.reference.code import ROOT, MissingMeaningError, table

ASSIGNMENT: Final = re.compile(r"(?:# )?([A-Z0-9_]+)=.*")
NAMES: Final = {int: "integer", float: "number", bool: "true or false"}


def write_settings() -> str:
    """The section, from its heading on. Raises `MissingMeaningError`."""
    meanings = read_meanings((ROOT / "env.example").read_text(encoding="utf-8"))
    rows = []
    order = {variable: place for place, variable in enumerate(meanings)}
    for name, field in sorted(Settings.model_fields.items(), key=lambda item: order.get(item[0].upper(), 0)):
        variable = name.upper()
        if not meanings.get(variable):
            raise MissingMeaningError(f"env.example says nothing about {variable}: give it a comment above its line")
        rows.append((f"`{variable}`", describe_type(field), _default(field), meanings[variable]))
    return (
        "## Settings\n\n"
        "From the environment or from `.env`; the environment goes before. A variable that is set to nothing counts as"
        " not set. A name is read in capitals or not. What is wrong is said at the start, all of it at once, and each"
        " command asks only for what it uses.\n\n" + table(("variable", "type", "default", "meaning"), rows)
    )


def read_meanings(example: str) -> dict[str, str]:
    """Variable to the comment above it, in the order of env.example; one right below another shares its comment."""
    meanings: dict[str, str] = {}
    comment: list[str] = []
    for before, line in pairwise(["", *example.splitlines()]):
        if found := ASSIGNMENT.fullmatch(line):
            shared = next(reversed(meanings.values()), "") if ASSIGNMENT.fullmatch(before) else ""
            meanings[found[1]] = " ".join(comment) or shared
            comment = []
        elif line.startswith("# ") and not line.startswith("# ---"):
            comment.append(line.removeprefix("# "))
        else:
            comment = []
    return meanings


def describe_type(field: FieldInfo) -> str:
    """Such as ``integer, 1 to 10``."""
    kinds = [kind for kind in _parts(field.annotation) if not isinstance(kind, AfterValidator)]
    for kind in kinds:
        if get_origin(kind) is Literal:
            return " or ".join(f"`{value}`" for value in get_args(kind))
    urls = [v.func for v in (*field.metadata, *_parts(field.annotation)) if isinstance(v, AfterValidator)]
    for check in urls:
        if isinstance(check, partial):
            return "URL, " + " or ".join(f"`{scheme}://`" for scheme in check.args[0])
    name = next((NAMES[kind] for kind in kinds if kind in NAMES), "text")
    low = next((bound.ge for bound in field.metadata if isinstance(bound, Ge)), None)
    high = next((bound.le for bound in field.metadata if isinstance(bound, Le)), None)
    if low is None or high is None:
        return name if low is None else f"{name}, from {low}"
    return f"{name}, {low} to {high}"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return "none" if field.default is None else f"`{field.default}`"


def _parts(annotation: Any) -> Iterator[Any]:
    """The types and validators of an annotation, however deep; a Literal whole."""
    yield annotation
    if get_origin(annotation) is not Literal:
        for part in get_args(annotation):
            yield from _parts(part)
