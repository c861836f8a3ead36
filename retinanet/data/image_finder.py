"""The images that an annotation file names, found on the disk.

Files name images as they lay on another machine: with backslashes, below other folders, in other
letter case. Folders are listed once. Nothing is looked for outside the folders of the data, but for
what a CSV file names by an absolute path, or one with `..`, that exists.
"""

import difflib
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from retinanet.data.annotations import Annotations
from retinanet.data.images import is_image_name
from retinanet.data.problems import Problems
from retinanet.errors import shown
from retinanet.runtime.files import path_below

NAMED = 3  # missing images that a message names
MOST_FILES = 2_000_000  # that are looked through for images which lie elsewhere
MOST_COMPARED = 20_000  # names among which the nearest is looked for


class Places(NamedTuple):
    """The folders in which the images of a file are looked for."""

    roots: Sequence[Path]
    """The first that holds all of them counts, else the one that lacks fewest."""
    below: Path
    """What that one lacks is looked for in this folder and its folders."""
    climbs: bool
    """Whether absolute paths, and those with `..`, that exist are taken as they are."""
    advice: str
    """What to do where images are missing."""


class Found(NamedTuple):
    """Places of the images of a file."""

    root: Path
    """The folder that holds them, or most of them."""
    files: list[str]
    """Each image, relative to `root`, or absolute."""
    absent: list[int]
    """Positions of those that are nowhere, which are problems."""


def find_images(data: Annotations, places: Places, problems: Problems) -> Found:
    """Find each image under its name, else in another place or spelling, which is a repair."""
    names, files = data.names, list(data.names)
    barred = set() if places.climbs else {k for k, name in enumerate(names) if is_foreign(name)}
    lacks = []
    for root in places.roots:
        lacks.append(_missing(root, names, barred))
        if not lacks[-1]:
            return Found(root, files, [])
    ranks = [
        (len(lacking), not root.is_dir()) for lacking, root in zip(lacks, places.roots, strict=True)
    ]
    best = ranks.index(min(ranks))  # `..` leads nowhere from a folder that is not there
    root, lacking = places.roots[best], lacks[best]
    tree = _Tree(places, names)
    elsewhere = {k: path for k in lacking if (path := tree.find(names[k]))}
    for k, path in elsewhere.items():
        files[k] = path_below(path, root)
    moved, absent = list(elsewhere), [k for k in lacking if k not in elsewhere]
    problems.repair(
        "image path that is another one here",
        data.first_lines[moved],
        lambda k: (
            f"no image {shown(names[moved[k]])} in {root}; expected {shown(files[moved[k]])};"
            " correct the path"
        ),
    )
    if problems.skip_images:
        problems.leave_out(
            "missing image",
            data.first_lines[absent],
            lambda k: tree.missing_text(absent[k : k + 1]),
        )
    elif absent:
        problems.add_one("missing image", tree.missing_text(absent), data.first_lines[absent[0]])
    return Found(root, files, absent)


def is_foreign(name: str) -> bool:
    """Whether a path is absolute, on Windows too, of a server, or leads out of its folder."""
    return bool(re.match(r"[\\/]|[A-Za-z]:[\\/]|\w+://", name)) or ".." in re.split(r"[\\/]", name)


def _missing(root: Path, names: Sequence[str], barred: Collection[int]) -> list[int]:
    """Positions of names that do not exist, and of the barred ones."""
    by_folder: dict[str, list[tuple[int, str]]] = defaultdict(list)
    absent = list(barred)
    for k, name in enumerate(names):
        if k not in barred:
            folder, base = os.path.split(os.path.join(root, name))
            by_folder[folder].append((k, base))
    for folder, entries in by_folder.items():
        there = _listing(folder)  # cheaper than a stat for each name
        absent += [k for k, base in entries if base not in there]
    return sorted(absent)


def _listing(folder: str) -> set[str]:
    try:
        return set(os.listdir(folder or "."))
    except (OSError, ValueError):
        return set()


def _folded(text: str) -> str:
    """A name without its letter case and the ways to write its accents."""
    return unicodedata.normalize("NFC", text).casefold()


def _parts(name: str) -> list[str]:
    """The folders and the file of a path of any system or server, from its last `..` on."""
    if re.match(r"\w+://", name) or "?d=" in name:
        name = name.rpartition("?d=")[2].partition("?")[0]  # Label Studio's local files; else a URL
        name = re.sub(r"^\w+://[^/]*", "", name)
    parts = [part for part in re.split(r"[\\/]+", name.strip()) if part not in ("", ".")]
    if parts and re.fullmatch(r"[A-Za-z]:", parts[0]):
        del parts[0]
    while ".." in parts:
        del parts[: parts.index("..") + 1]
    return parts


class _Tree:
    """The images below the folders of the data, for names that are not there as they stand."""

    def __init__(self, places: Places, names: Sequence[str]) -> None:
        self.places, self.names = places, names

    @cached_property
    def _paths(self) -> dict[str, list[str]]:
        """The images, by folded name, and by folded name without ending."""
        found: dict[str, list[str]] = defaultdict(list)
        tops = [self.places.below, *(root for root in self.places.roots if root.is_symlink())]
        for path in islice(_images_below(tops), MOST_FILES):
            base = _folded(os.path.basename(path))
            for key in {base, os.path.splitext(base)[0]}:
                found[key].append(path)
        return found

    @cached_property
    def _namesakes(self) -> Counter[str]:
        """The number of paths in the file that end in each folded base name, after a folder."""
        paths = {tuple(map(_folded, _parts(name))) for name in self.names}
        return Counter(parts[-1] for parts in paths if len(parts) > 1)

    def find(self, name: str) -> str:
        """The path of the one image that a name can mean; "" where there is none, or several."""
        parts = _parts(name)
        if "%" in name and not self._candidates(parts):
            parts = _parts(unquote(name))
        if not parts:
            return ""
        folders = [_folded(part) for part in parts[:-1]]
        paths = self._candidates(parts)
        is_one_name = self._namesakes[_folded(parts[-1])] <= 1
        by_base = is_one_name and len(paths) == 1 and is_foreign(name)
        ranks = []
        for path in paths:
            score, whole = self._fit(path, folders)
            if by_base or (whole and (score or is_one_name or not folders)):
                exact = os.path.basename(path) == parts[-1]
                ranks.append((-score, self._root_of(path), not exact, path))
        ranks.sort()
        if not ranks or (len(ranks) > 1 and ranks[0][:3] == ranks[1][:3]):
            return ""
        return ranks[0][3]

    def _candidates(self, parts: Sequence[str]) -> list[str]:
        return self._paths.get(_folded(parts[-1]), []) if parts else []

    def _fit(self, path: str, folders: Sequence[str]) -> tuple[int, bool]:
        """Number of last folders a path has in common with a name, and whether one ends in all.

        A name may begin above the data, as `project/photos/a.jpg` for `photos/a.jpg`, or deeper
        within. `day2/a.jpg` is never `day1/a.jpg`.
        """
        own = [_folded(part) for part in Path(path).parent.parts]
        score = 0
        while score < min(len(own), len(folders)) and own[-1 - score] == folders[-1 - score]:
            score += 1
        tops = [self.places.below, *self.places.roots]
        depths = [
            len(Path(path).parent.relative_to(top).parts)
            for top in tops
            if Path(path).is_relative_to(top)
        ]
        return score, score == len(folders) or score >= min(depths, default=len(own))

    def _root_of(self, path: str) -> int:
        """The position of the first root that holds a path, counted on for those in none."""
        roots = self.places.roots
        return next((k for k, r in enumerate(roots) if Path(path).is_relative_to(r)), len(roots))

    def missing_text(self, absent: Sequence[int]) -> str:
        """Message about images that are nowhere: the first ones, the reason, and what to do."""
        names = [shown(self.names[k]) for k in absent[1 : 1 + NAMED]]
        more = f", nor {', '.join(names)}" if names else ""
        if len(absent) > 1 + NAMED:
            more += f" and {len(absent) - 1 - NAMED:,} more"
        tried = " and ".join(str(root.absolute()) for root in self.places.roots[:2])
        return (
            f"no image {shown(self.names[absent[0]])} in {tried}{more}{self._why(absent[0])};"
            f" expected all images of a file under one folder; {self.places.advice}"
        )

    def _why(self, position: int) -> str:
        name = self.names[position]
        parts = _parts(name)
        paths = self._candidates(parts)
        below = self.places.below
        if len(paths) > 1:
            some = " and ".join(shown(path_below(path, below)) for path in paths[:2])
            return f" ({len(paths)} may be meant, such as {some})"
        reason = ""
        if is_foreign(name):
            reason = "it leaves the image folder" if not self.places.climbs else (
                "a path of another machine"
            )  # fmt: skip
            base = shown(parts[-1]) if parts else "so"
            reason += f", and no image below {below.absolute()} is called {base}"
        elif paths:
            reason = f"there is {shown(path_below(paths[0], below))}, in another folder"
        elif parts and len(parts[-1]) < 200:
            known = list(islice(self._paths, MOST_COMPARED))
            stem = os.path.splitext(_folded(parts[-1]))[0]
            near = difflib.get_close_matches(stem, known, 1, 0.75)
            if near:
                reason = f"the nearest is {shown(path_below(self._paths[near[0]][0], below))}"
        return f" ({reason})" if reason else ""


def _images_below(tops: Sequence[Path]) -> Iterator[str]:
    for top in tops:
        for folder, folders, files in os.walk(top):
            folders.sort()
            for name in sorted(files):
                if is_image_name(name):
                    yield os.path.join(folder, name)
