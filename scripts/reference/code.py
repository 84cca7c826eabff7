"""What the sources say about themselves: docstrings of modules, classes and attributes, read and not run."""

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]


class MissingMeaningError(Exception):
    """Something that the reference shows has no meaning in the code yet; the message says where it belongs."""


def module_text(path: str) -> str:
    """The docstring of the module at `path`, from the root of the checkout."""
    return ast.get_docstring(_tree(path)) or ""


def attribute_texts(path: str, name: str) -> dict[str, str]:
    """Attribute to the string that stands below it, of the class `name`; those that have one."""
    found: dict[str, str] = {}
    for node in _tree(path).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            for attribute, text in zip(node.body, node.body[1:], strict=False):
                match attribute, text:
                    case ast.AnnAssign(target=ast.Name(id=attribute_name)), ast.Expr(ast.Constant(str(meaning))):
                        found[attribute_name] = " ".join(meaning.split())
    return found


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table of Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '\\|') for cell in line)} |\n" for line in lines)


def _tree(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))
