"""``python -m scripts.draw_architecture``: draw the rooms of `app` and who imports whom into docs/architecture.md.

Invariant: what stands between the two marks is made from the code alone; a test sees that it is current.
"""

import ast
import sys
from collections import defaultdict
from pathlib import Path
from typing import Final

import grimp

ROOT: Final = Path(__file__).resolve().parent.parent
DOCUMENT: Final = ROOT / "docs" / "architecture.md"
BEGIN: Final = "<!-- drawn by scripts/draw_architecture.py: do not edit by hand -->\n"
END: Final = "<!-- end of what is drawn -->\n"
GROUND: Final = frozenset({"core", "threads", "errors", "logs", "config"})
"""What all others may stand on: no arrow is drawn to it."""


def main() -> int:
    """Write the document anew; 0."""
    DOCUMENT.write_text(redrawn(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


def redrawn(document: str) -> str:
    """The document with its drawn part as the code is now."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + draw() + END + after


def draw() -> str:
    """A picture of the imports between rooms, and a table of the rooms."""
    imports = read_imports()
    arrows = [
        f"  {room} --> {other}"
        for room in sorted(imports)
        if room not in GROUND
        for other in sorted(imports[room] - GROUND)
    ]
    rooms = [f"| `{name}` | {idea} | {protects} |" for name, idea, protects in read_rooms()]
    return "\n".join(
        [
            "```mermaid",
            "flowchart TD",
            *arrows,
            "```",
            "",
            "| room | what is in it | what it protects |",
            "| --- | --- | --- |",
            *rooms,
            "",
        ]
    )


def read_imports() -> dict[str, set[str]]:
    """Package or top-level module of `app` to those that it imports."""
    graph = grimp.build_graph("app", cache_dir=None)
    imports: dict[str, set[str]] = defaultdict(set)
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            room, other = _room_of(module), _room_of(imported)
            if room and other and room != other:
                imports[room].add(other)
    return imports


def read_rooms() -> list[tuple[str, str, str]]:
    """Name, idea and invariant of each package and top-level module, by name; from their docstrings."""
    rooms = []
    for path in sorted((ROOT / "app").iterdir()):
        source = path / "__init__.py" if path.is_dir() else path
        if path.name.startswith("__") or not source.is_file():
            continue
        text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
        paragraphs = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
        promises = [p.partition(": ")[2] for p in paragraphs if p.startswith(("Invariant: ", "Protects: "))]
        rooms.append((f"app/{path.name}{'/' * path.is_dir()}", paragraphs[0], " ".join(promises)))
    return rooms


def _room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


if __name__ == "__main__":
    sys.exit(main())
