"""The pages as a browser would see them: what their HTML holds.

Invariant: every page that a test reads is valid HTML, names no other origin, and carries the strict policy.
"""

from urllib.parse import parse_qs, urlsplit
from xml.etree.ElementTree import Element

import html5lib
import httpx

SVG = "http://www.w3.org/2000/svg"
ADDRESSES = ("href", "src", "action", "formaction", "data", "poster", "srcset", "xlink:href")


class Page:
    """A page that was answered."""

    def __init__(self, answer: httpx.Response) -> None:
        self.status = answer.status_code
        self.answer = answer
        assert answer.headers["content-type"] == "text/html; charset=utf-8", answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
        self.root: Element = parser.parse(answer.text)
        for element in self.root.iter():
            if isinstance(element.tag, str):
                self._check(element)

    @staticmethod
    def _check(element: Element) -> None:
        """Nothing from elsewhere, and nothing that the policy would refuse."""
        assert element.tag != "script"
        for name, value in element.attrib.items():
            assert name != "style", element.attrib
            assert not str(name).startswith("on"), element.attrib
            if name in ADDRESSES:
                parts = urlsplit(value)
                assert (parts.scheme, parts.netloc) == ("", ""), value

    @property
    def text(self) -> str:
        """All its words, each run of spaces as one."""
        return words(self.root)

    @property
    def heading(self) -> str:
        """Its first heading."""
        return words(self.one("h1"))

    def all(self, tag: str, kind: str | None = None) -> list[Element]:
        """Elements by tag and, when it is given, by one of their classes."""
        return find(self.root, tag, kind)

    def one(self, tag: str, kind: str | None = None) -> Element:
        """The first of them."""
        return self.all(tag, kind)[0]

    def links(self) -> dict[str, str]:
        """The address of each link by its words; of several with the same words the first."""
        found: dict[str, str] = {}
        for element in self.all("a"):
            found.setdefault(words(element), element.attrib["href"])
        return found

    def form(self, action: str) -> dict[str, str]:
        """The fields of the first form that is sent there, as they stand."""
        form = next(each for each in self.all("form") if each.attrib["action"] == action)
        return {each.attrib["name"]: each.attrib.get("value", "") for each in find(form, "input")}


def find(parent: Element, tag: str, kind: str | None = None) -> list[Element]:
    """Elements below another, drawn ones too."""
    both = [each for each in parent.iter() if each.tag in (tag, f"{{{SVG}}}{tag}")]
    return [each for each in both if kind is None or kind in each.attrib.get("class", "").split()]


def words(element: Element) -> str:
    """What stands in an element, each run of spaces as one."""
    return " ".join("".join(element.itertext()).split())


def query(address: str) -> dict[str, str]:
    """The fields of an address."""
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
