"""``python -m scripts.write_reference``: write docs/reference.md anew.

Invariant: what stands there is made from the code, its docstrings and env.example alone; a test sees that it is
current.
"""

import sys
from pathlib import Path
from typing import Final

from scripts.reference.code import ROOT, MissingMeaningError
from scripts.reference.codes import write_exit_codes, write_routes
from scripts.reference.messages import write_messages
from scripts.reference.settings import write_settings
from scripts.reference.tables import write_tables

DOCUMENT: Final[Path] = ROOT / "docs" / "reference.md"
HEAD: Final = """<!-- written by scripts/write_reference.py: do not edit by hand -->
# Reference

Made from the code. Why and when: [formats.md](formats.md); by example: [tutorial.md](tutorial.md).
"""
SECTIONS: Final = (write_settings, write_messages, write_tables, write_routes, write_exit_codes)


def main() -> int:
    """Write the document; 1, with a sentence, when something has no meaning in the code yet."""
    try:
        DOCUMENT.write_text(write_reference(), encoding="utf-8")
    except MissingMeaningError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def write_reference() -> str:
    """The whole document. Raises `MissingMeaningError`."""
    return "\n".join([HEAD, *(write() for write in SECTIONS)])


if __name__ == "__main__":
    sys.exit(main())
