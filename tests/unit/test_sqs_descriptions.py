"""botocore's descriptions of services, read by a faster decoder: the same content."""

import os
from pathlib import Path

import pytest
from botocore.exceptions import DataNotFoundError
from botocore.loaders import JSONFileLoader
from botocore.session import get_session

from app.sqs.queue import open_session


@pytest.mark.parametrize("name", ["endpoints", "partitions", "sdk-default-configuration", "sqs/2012-11-05/service-2"])
def test_a_description_is_what_botocore_reads(name: str) -> None:
    ours, theirs = (session.get_component("data_loader") for session in (open_session(), get_session()))
    assert type(theirs.file_loader) is JSONFileLoader
    assert type(ours.file_loader) is not JSONFileLoader
    assert ours.load_data(name) == theirs.load_data(name) != {}


def test_a_folder_of_one_s_own_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.json").write_text('{"café": [1, 2.5, null]}', encoding="utf-8")
    monkeypatch.setenv("AWS_DATA_PATH", os.fspath(tmp_path))
    assert open_session().get_component("data_loader").load_data("mine") == {"café": [1, 2.5, None]}


def test_what_is_nowhere_is_not_found() -> None:
    with pytest.raises(DataNotFoundError):
        open_session().get_component("data_loader").load_data("no-such-description")
