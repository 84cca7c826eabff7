"""What several files of the commands' tests use."""

import pytest

from app.jobs import __main__ as jobs_cli
from tests.support.commands import Command, Ran


@pytest.fixture
def command(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs ``python -m app.jobs`` in this process, in a worker's environment."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def execute(*arguments: str) -> Ran:
        capsys.readouterr()
        code = jobs_cli.run(jobs_cli.parse(arguments))
        said = capsys.readouterr()
        return Ran(code, said.out, said.err)

    return execute
