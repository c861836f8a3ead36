"""A page of HTML: what is text stays text, and the file needs no other."""

from html.parser import HTMLParser

import pytest

from retinanet.report.html import (
    BEGINNING,
    Html,
    definitions,
    element,
    page,
    picture,
    section,
    table,
)

HOSTILE = "<script>alert('1')</script> & \"x\""


class Reader(HTMLParser):
    """Tags, attributes and text of a page; every tag but those without an end is closed."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(content.decode())
        self.close()
        assert self.open == ["html"]  # whose end, as that of head and body, goes without saying

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def read() -> Reader:
    sections = [
        section(HOSTILE, element("p", HOSTILE, element("b", HOSTILE), class_="a", title=HOSTILE)),
        definitions({HOSTILE: HOSTILE}, "facts"),
        table([("", 1), (HOSTILE, 2)], (HOSTILE, "a"), [(HOSTILE, "1")], (HOSTILE, "2")),
        picture(b"abc", "png", HOSTILE, (HOSTILE,)),
    ]
    return Reader(page(HOSTILE, sections))


def test_text_is_escaped_everywhere(read: Reader) -> None:
    assert "script" not in read.tags
    assert read.text.count(HOSTILE) == 1 + 3 + 2 + 4 + 1
    assert [value for name, value in read.attributes if name in ("alt", "title")] == [HOSTILE] * 2


def test_html_is_left_as_it_is() -> None:
    assert element("p", Html("<b>a</b>"), "<") == "<p><b>a</b>&lt;</p>"
    assert element("i", class_="x y") == '<i class="x y"></i>'


def test_pictures_are_in_the_file_and_nothing_is_asked_of_a_network(read: Reader) -> None:
    assert [value for name, value in read.attributes if name in ("src", "href")] == [
        "data:image/png;base64,YWJj"
    ]
    assert "url(" not in read.text
    assert "@import" not in read.text


def test_a_page_is_known_by_its_beginning() -> None:
    assert page("a", []).startswith(BEGINNING)
    assert b'content="retinanet"' in BEGINNING


def test_half_a_pair_of_utf16_does_no_harm() -> None:
    assert b"a&#55296;b" in page("a\ud800b", [])
