"""The file that describes YOLO's sets: `data.yaml`, or Darknet's `obj.data`; and lists of names."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from retinanet.data.formats.labels import found_below
from retinanet.errors import DataError, printable, shown

DATA_FILES = (".yaml", ".yml", ".data")
SETS = ("train", "val", "valid", "validation", "test")  # their keys in such a file
MOST_YAML = 1_000_000  # bytes: the parser takes seconds for as many


def looks_like_data(file: Path) -> bool:
    """Whether a file names classes and a set, by its text alone."""
    return {"names", "train"} <= _keys(file) or {"names", "val"} <= _keys(file)


def _keys(file: Path) -> set[str]:
    """The keys at the beginning of the lines of a text."""
    if not file.is_file():  # a pipe would hang, a device never end
        return set()
    try:
        with file.open("rb") as stream:
            text = stream.read(MOST_YAML).decode("utf-8-sig", "replace")
    except OSError:
        return set()
    return set(re.findall(r"^(\w+)\s*[:=]", text, re.M))


def has_sets(file: Path) -> bool:
    """Whether one of the sets that a file names is there."""
    try:
        content = read_data(file)
    except DataError:
        return False
    root = data_folder(file, content)
    places = [content.get(key) for key in SETS]
    named = [place for place in places if isinstance(place, str) and place]
    return any(set_place(root, file, place) for place in named)


def wrong(file: Path, text: str) -> DataError:
    """An error in a file."""
    return DataError(f"{printable(file)}: {text}")


def read_data(file: Path) -> dict[str, Any]:
    """The content of a file as texts, lists and maps.

    Nothing in it becomes a number, a date or an object of Python: `no` is a name of a class.
    """
    try:
        if file.stat().st_size > MOST_YAML:
            raise ValueError(f"more than {MOST_YAML:,} bytes")
        if file.suffix == ".data":
            return _read_darknet(file)
        content = yaml.load(file.read_bytes(), yaml.BaseLoader)
    except OSError as error:
        raise wrong(file, f"{error.strerror}; expected YOLO's data.yaml") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = printable(" ".join(str(error).split()))[:200]
        raise wrong(file, f"not YAML ({reason}); correct it") from error
    if not isinstance(content, dict):
        raise wrong(file, f"{shown(content)}; expected train, val and names; correct it")
    return content


def _read_darknet(file: Path) -> dict[str, Any]:
    """The same of Darknet's `key = value` lines, where names is a file."""
    lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    pairs = (line.partition("=") for line in lines)
    content: dict[str, Any] = {key.strip(): value.strip() for key, _, value in pairs}
    names_file = set_place(file.parent, file, content["names"])
    if names_file is None or not names_file.is_file():
        text = f"names: {shown(content['names'])} is not there; expected a file; correct it"
        raise wrong(file, text)
    return {**content, "names": listed_names(names_file)}


def class_names(file: Path, content: dict[str, Any]) -> tuple[str, ...]:
    """The class names, of a list, or of a map from 0, 1, ..."""
    names = content.get("names")
    if isinstance(names, dict):
        ids = [str(k) for k in range(len(names))]
        if set(names) != set(ids):
            found = shown(list(names))
            raise wrong(file, f"names has the ids {found}; expected 0 to {len(ids) - 1}")
        names = [names[k] for k in ids]
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise wrong(file, f"names is {shown(names)}; expected a list of the classes; add it")
    return checked_names(file, names)


def listed_names(file: Path) -> list[str]:
    """The class names that a text lists, a line each."""
    lines = file.read_text(encoding="utf-8-sig", errors="replace").rstrip().splitlines()
    return [line.strip() for line in lines]


def checked_names(file: Path, names: Sequence[str]) -> tuple[str, ...]:
    """The names, each of them there once and printable.

    Raises:
        DataError: one is not.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise wrong(file, f"the class {shown(twice[0])} twice; expected each once; rename it")
    odd = [name for name in names if printable(name) != name]
    if odd:
        raise wrong(file, f"the class {shown(odd[0])}; expected no control characters; rename it")
    return tuple(names)


def data_folder(file: Path, content: dict[str, Any]) -> Path:
    """The folder that the sets are relative to: `path`, where that is there; else the file's."""
    path = content.get("path")
    if isinstance(path, str) and path:
        for base in (file.parent / path, Path(path)):
            if os.path.isdir(base):  # Path's own raises where a name is too long
                return base
    return file.parent


def same_place(one: str, other: str) -> bool:
    """Whether two texts may name one place: the end of one is the other, on any machine."""
    ways = [
        [part for part in re.split(r"[\\/]+", given.strip()) if part not in ("", ".", "..")]
        for given in (one, other)
    ]
    short, long = sorted(ways, key=len)
    return long[len(long) - len(short) :] == short


def set_place(root: Path, file: Path, given: str) -> Path | None:
    """The folder or list of a set, below the folder of the data or beside the file."""
    if given.strip() in (".", "./"):
        return root
    found = found_below(root, given) or found_below(file.parent, given)
    return found if found and (found.is_dir() or found.is_file()) else None
