"""Exit codes, from the docstrings and the help of the commands; routes, from the OpenAPI document."""

import re
from typing import Final

from app.main import EPILOG
from app.relation import app
from scripts.reference.code import MissingMeaningError, module_text, table

WORKER: Final = "python -m app.main"
COMMANDS: Final = {
    "python -m app.jobs": "app/jobs/__main__.py",
    "python -m app.neo4j_database_validator": "app/neo4j_database_validator.py",
    "python purge_sqs.py": "purge_sqs.py",
}
CODE: Final = re.compile(r"(128 \+ n|\d+)\s+([^;.]+?)(?:[;.]|$)", re.MULTILINE)


def write_exit_codes() -> str:
    """The section, from its heading on. Raises `MissingMeaningError`."""
    rows = [(f"`{WORKER}`", code, meaning) for code, meaning in CODE.findall(EPILOG.partition("exit codes:")[2])]
    for command, path in COMMANDS.items():
        text = module_text(path).partition("Exit codes:")[2].partition("\n\n")[0]
        codes = CODE.findall(" ".join(text.split()))
        if not codes:
            raise MissingMeaningError(f'{path}: the docstring says no "Exit codes: 0 ...; 1 ...; 2 ..."')
        rows += [(f"`{command}`", code, meaning) for code, meaning in codes]
    return "## Exit codes\n\n" + table(("command", "code", "meaning"), rows)


def write_routes() -> str:
    """The section, from its heading on."""
    rows = []
    for path, methods in app.openapi()["paths"].items():
        for method, route in methods.items():
            meaning = " ".join(route.get("description", route["summary"]).partition("\n\n")[0].split())
            answers = ", ".join(code for code in sorted(route["responses"]) if code != "422")
            rows.append((f"`{method.upper()} {path}`", meaning, answers))
    return (
        "## Routes\n\n"
        "Of `uvicorn app.relation:app`; the whole shapes are in the OpenAPI document that it serves at `/openapi.json`."
        " 503, with `Retry-After`, where a service is down.\n\n" + table(("route", "answer", "codes"), rows)
    )
