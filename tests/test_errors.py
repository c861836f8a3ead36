"""How values stand in messages."""

import pytest

from retinanet.errors import counted


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (1, "class", "1 class"),
        (0, "class", "0 classes"),
        (2, "box", "2 boxes"),
        (1, "image", "1 image"),
        (12345, "image", "12,345 images"),
        (1, "more problem", "1 more problem"),
    ],
)
def test_counts_have_their_plural(count: int, noun: str, text: str) -> None:
    assert counted(count, noun) == text
