"""Lists of a JSON file, entry by entry, wherever the parts that are read end."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retinanet.data.formats import json_stream
from retinanet.errors import DataError


def lists_of(path: Path) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}

    def begin(key: str) -> Callable[[Any], None]:
        found[key] = []
        return found[key].append

    json_stream.stream_lists(path, begin, "")
    return found


@pytest.mark.parametrize("chunk", [1, 7, 64, 2**20])
def test_any_json_may_lie_across_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    path = tmp_path / "a.json"
    contents: list[dict[str, Any]] = [
        {"a": [1, 23, [4.5, "x]"], {"b": None}], "no": {"a": [1]}, "c": [], "d": 12, 'e"': [True]},
        {},
        {"a": ["\\ud800", "ä\u2028"], "c": [[[]], -1e-7]},
    ]
    for content in contents:
        for options in ({}, {"indent": 1}):
            path.write_text(json.dumps(content, **options) + "\n ")  # type: ignore[arg-type]
            assert lists_of(path) == {k: v for k, v in content.items() if isinstance(v, list)}
    for text in ("{", '{"a": [1, 2}', '{"a": [1,]}', '{"a": 1} 2', "{1: 2}", '{"a" 1}', ""):
        path.write_text(text)
        with pytest.raises(DataError, match="not JSON"):
            lists_of(path)
