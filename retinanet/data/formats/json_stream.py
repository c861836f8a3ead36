"""Lists of a large JSON file, entry by entry: never the whole file in memory."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from retinanet.errors import DataError

CHUNK = 2**20  # characters read together

Take = Callable[[Any], None]


def stream_lists(path: Path, begin: Callable[[str], Take | None], advice: str) -> None:
    """Give the entries of the lists of a JSON object to those who want them.

    Args:
        path: the file.
        begin: is given each key of a list, again where a file repeats it, and returns what takes
            the list's entries, or None.
        advice: what to do if it is no such file.

    Raises:
        DataError: the file cannot be read, or is not JSON.
    """
    if path.exists() and not path.is_file():  # a pipe would hang, a device never end
        raise DataError(f"{path}: not a regular file; {advice}")
    try:
        with path.open("rb") as file:
            encoding = json.detect_encoding(file.read(4))
        with path.open(encoding=encoding, errors="surrogatepass", newline="") as text:
            _Stream(text).read(begin)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; {advice}") from error
    except (ValueError, RecursionError):
        _read_whole(path, begin, advice)


def read_json(path: Path, advice: str) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: the file cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; {advice}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}); {advice}") from error


def _read_whole(path: Path, begin: Callable[[str], Take | None], advice: str) -> None:
    """The same for what is no object, or not JSON: the library's own words on where it breaks."""
    content = read_json(path, advice)
    for key, value in content.items() if isinstance(content, dict) else ():
        take = begin(key) if isinstance(value, list) else None
        for entry in value if take else ():
            take(entry)  # type: ignore[misc]


class _Stream:
    """A JSON object, of whose lists one entry after another is decoded."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text, self._place = "", 0
        self._decode = json.JSONDecoder().raw_decode

    def read(self, begin: Callable[[str], Take | None]) -> None:
        """Read to the end.

        Raises:
            ValueError: it is no JSON object.
        """
        self._expect("{")
        if self._next() == "}":
            self._place += 1
        else:
            while True:
                key = self._value()
                self._expect(":")
                self._read_value(key, begin)
                if self._expect(",}") == "}":
                    break
        if self._next():
            raise ValueError("more than one object")

    def _read_value(self, key: Any, begin: Callable[[str], Take | None]) -> None:
        if not isinstance(key, str):
            raise ValueError("a key that is no text")
        take = begin(key) if self._next() == "[" else None
        if take is None:
            self._value()
            return
        self._place += 1
        if self._next() == "]":
            self._place += 1
            return
        while True:
            take(self._value())
            if self._expect(",]") == "]":
                return

    def _expect(self, characters: str) -> str:
        found = self._next()
        if not found or found not in characters:
            raise ValueError(f"expected one of {characters}")
        self._place += 1
        return found

    def _next(self) -> str:
        """The next character that is no space; "" at the end."""
        while True:
            while self._place < len(self._text):
                if self._text[self._place] not in " \t\n\r":
                    return self._text[self._place]
                self._place += 1
            if not self._more(CHUNK):
                return ""

    def _more(self, count: int) -> bool:
        """Read on; forget what was decoded."""
        read = self._file.read(count)
        self._text = self._text[self._place :] + read
        self._place = 0
        return bool(read)

    def _value(self) -> Any:
        """Decode the next value, reading on until it is whole."""
        self._next()
        count = CHUNK
        while True:
            try:
                value, end = self._decode(self._text, self._place)
            except json.JSONDecodeError:
                if not self._more(count):
                    raise
            else:
                start, at_end = self._place, end == len(self._text)
                if at_end and self._more(count):  # a number there may go on
                    continue
                self._place = end - start if at_end else end
                return value
            count *= 2
