"""The drawn part of docs/architecture.md is what the code is."""

from scripts.draw_architecture import BEGIN, DOCUMENT, END, read_imports, read_rooms, redrawn


def test_the_document_is_current() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1
    assert redrawn(text) == text, "run: python -m scripts.draw_architecture"


def test_each_room_says_what_is_in_it() -> None:
    assert all(idea for _, idea, _ in read_rooms())


def test_imports_of_every_room_are_read() -> None:
    assert read_imports()["tasks"] == {"core", "errors", "logs", "service", "threads"}
