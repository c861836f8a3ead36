"""COCO's `instances_*.json`: read entry by entry into arrays, checked, and put right.

It opens no image. Masks and polygons are not kept; a box that is missing is that of its polygon.
"""

import contextlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from retinanet.data.annotations import Annotations, Objects, group_by_image, labels_by_name
from retinanet.data.box_checks import fractions_text
from retinanet.data.formats.coco_entries import (
    AnnotationEntries,
    CategoryEntries,
    Id,
    ImageEntries,
    whole,
)
from retinanet.data.formats.json_stream import Take, read_json, stream_lists
from retinanet.data.formats.labels import (
    FileSets,
    Listing,
    SetFile,
    set_of_file,
    sets_of_files,
)
from retinanet.data.image_finder import Places
from retinanet.data.problems import Array, Problems
from retinanet.errors import DataError, shown

SNIFFED = 2**20  # bytes that are looked through together
MOST_NAMED = 5  # files that a message names

KEYS = (b'"images"', b'"annotations"', b'"categories"')
ASIDE = ("keypoint", "caption", "panoptic", "stuff", "densepose")  # of names beside `instances`

ADVICE = "expected COCO annotations; correct the path, the name of the set, or the file"


@dataclass(frozen=True)
class CocoFile:
    """The content of a file, without wrong entries."""

    class_names: tuple[str, ...]  # by label
    category_ids: tuple[Id, ...]  # by label; of equal names, the one that is used
    labels: dict[Id, int]  # by category id, those of equal names too
    file_names: tuple[str, ...]
    image_ids: tuple[Id, ...]
    claimed_sizes: Array  # [images, 2] height, width; 0 where the file claims none
    objects: Objects  # of all annotations, crowds and thin ones too
    ids: Array  # [annotations] own ids, -1 where there is none
    positions: Array  # [annotations] in the file's list

    def relabelled(self, wanted: Sequence[str], problems: Problems) -> "CocoFile":
        """The same with the labels of the classes `wanted`, found by name.

        Classes that the file does not list get ids that it does not use.
        """
        label_of = labels_by_name(self.class_names, wanted, problems)
        labels = label_of[self.objects.labels]
        others = np.flatnonzero(labels < 0)
        problems.repair(
            "box of a class that the model does not know",
            np.zeros(len(others), np.int8),
            lambda k: (
                f"a box of {shown(self.class_names[self.objects.labels[others[k]]])}; expected"
                f" one of {shown(list(wanted))}; remove it"
            ),
        )
        ids = dict(zip(self.class_names, self.category_ids, strict=True))
        free = count(1 + max((own for own in self.labels if isinstance(own, int)), default=0))
        kept = np.flatnonzero(labels >= 0)
        return replace(
            self,
            class_names=tuple(wanted),
            category_ids=tuple(ids[name] if name in ids else next(free) for name in wanted),
            labels={own: int(label_of[k]) for own, k in self.labels.items() if label_of[k] >= 0},
            objects=self.objects.replaced(labels=labels),
            ids=self.ids[kept],
            positions=self.positions[kept],
        )

    def annotations(self, problems: Problems) -> Annotations:
        """The boxes to train on: no crowds, nothing under one pixel, nothing twice.

        Args:
            problems: of this file; takes in what is left out.
        """
        found = self.objects
        kept = ~found.crowds
        called = _Called(self.ids, self.positions)
        text = fractions_text(found.boxes[kept])
        if text:
            problems.add_one("fractions", f"{called[int(np.argmax(kept))]}: {text}")
        thin = kept & (found.boxes[:, 2:] < 1).any(axis=1)
        small = np.flatnonzero(thin)
        lines = np.zeros(len(kept), np.int8)  # JSON has no lines to speak of
        if 2 * len(small) > np.count_nonzero(kept) > 1 and not text:
            most = f"{len(small):,} of {np.count_nonzero(kept):,} boxes are under 1 x 1 px"
            problems.add_one(
                "boxes under 1 px", f"{most}; expected x, y, width, height in pixels; correct them"
            )
        problems.repair(
            "box under 1 px left out",
            lines[small],
            lambda k: (
                f"{called[small[k]]}: a box of {found.boxes[small[k], 2]:g} x"
                f" {found.boxes[small[k], 3]:g} px; expected at least 1 x 1; remove it"
            ),
        )
        rows = np.flatnonzero(kept & ~thin)
        columns = np.empty((5, len(rows)))
        columns[:4] = found.boxes[rows].T
        columns[2:4] += columns[:2]
        columns[4] = found.labels[rows]
        return group_by_image(
            self.file_names,
            np.zeros(len(self.file_names), np.int32),
            found.images[rows],
            columns,
            lines[rows],
            problems,
            _Called(self.ids[rows], self.positions[rows]),
        )


class _Called(Sequence[str]):
    """Name of each annotation in messages: its id where it has one, else its position."""

    def __init__(self, ids: Array, positions: Array) -> None:
        self.ids, self.positions = ids, positions

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: Any) -> Any:
        if self.ids[row] >= 0:
            return f"annotation {self.ids[row]}"
        return f"annotations[{self.positions[row]}]"


def find_coco(listing: Listing) -> FileSets:
    """The sets of a folder with COCO's files, or of a file; none where there are none.

    Raises:
        DataError: several files of a set, which nothing tells apart.
    """
    path = listing.path
    if not listing.is_folder:
        return set_of_file(path) if path.suffix.lower() == ".json" else {}
    files = listing.files(".json")
    if files:  # one called as an image is LabelMe's, of that image
        images = {image.stem for image in listing.images}
        files = [file for file in files if file.stem not in images and is_coco(file)]
    return sets_of_files(path, files, _rank, "COCO")


def is_coco(file: Path) -> bool:
    """Whether a file has COCO's three keys, by its bytes alone: it may be as large as it likes."""
    wanted, end = set(KEYS), b""
    try:
        with file.open("rb") as stream:
            while wanted and (block := stream.read(SNIFFED)):
                text = end + (block.replace(b"\0", b"") if b"\0" in block else block)  # UTF-16
                wanted = {key for key in wanted if key not in text}
                end = text[-len(KEYS[-1]) :]
    except OSError:
        return False
    return not wanted


def _rank(file: Path) -> int:
    """The place of a file among those of its set: boxes before keypoints, captions, ..."""
    name = file.name.lower()
    return 0 if "instances" in name else 2 if any(word in name for word in ASIDE) else 1


def named_set(root: Path, name: str) -> SetFile:
    """A set, its file and images where COCO has them, else where other tools write them.

    Raises:
        DataError: there are none; with those that are there.
    """
    places = [root / "annotations" / f"instances_{name}.json"]
    places += [
        root / name / "_annotations.coco.json",
        root / "annotations" / f"{name}.json",
    ]
    places += [root / f"{name}.json", root / name / "annotations.json"]
    for path in places:
        if path.is_file():
            return _with_images(root, path, name)
    if os.path.lexists(places[0]):
        return _with_images(root, places[0], name)  # and reading it says what is wrong
    found = [*root.glob("annotations/*.json"), *root.glob("*/_annotations.coco.json")]
    known = [path.relative_to(root).as_posix() for path in sorted(found)[:MOST_NAMED]]
    there = f"; there is {', '.join(known)}" if known else ""
    raise DataError(f"{places[0]}: No such file or directory{there}; {ADVICE}")


def _with_images(root: Path, file: Path, name: str) -> SetFile:
    folders = [root / "images" / name, root / name, root / "images", root]
    folders += [file.parent] * (file.parent not in folders)
    return SetFile(file, Places(folders, root, False, "correct the file or add the image"))


def read_coco(path: Path, problems: Problems, *, drop_parents: bool = False) -> CocoFile:
    """Read and check a whole file.

    Args:
        path: the file.
        problems: of this file; takes in wrong entries, each named by its position.
        drop_parents: leave out categories that no annotation uses and that others name as their
            parent, such as the first one of some exports.

    Raises:
        DataError: it is missing, not JSON, or nothing in it is right.
    """
    before = problems.total
    images, categories, annotations = _read_entries(path, problems)
    if not (images.ids and categories.name_of):
        problems.raise_if_any()
    classes = categories.classes(annotations.used_categories, drop_parents=drop_parents)
    labels = {found: label for label, ids in enumerate(classes.values()) for found in ids}
    of_image, of_class = annotations.images(images.position), annotations.labels(labels)
    columns = annotations.columns()
    annotations.repeated_ids(columns["ids"])
    annotations.check_boxes_left()
    if problems.total == before:  # else they may belong to what is wrong itself
        _check_references(annotations, of_image, of_class, problems)
    kept = np.flatnonzero((of_image >= 0) & (of_class >= 0))
    columns = {name: column[kept] for name, column in columns.items()}
    ids, positions = columns.pop("ids"), columns.pop("positions")
    return CocoFile(
        class_names=tuple(classes),
        category_ids=tuple(ids[0] for ids in classes.values()),
        labels=labels,
        file_names=tuple(images.file_names),
        image_ids=tuple(images.ids),
        claimed_sizes=np.array(images.sizes, np.int64).reshape(-1, 2),
        objects=Objects(images=of_image[kept], labels=of_class[kept], **columns),
        ids=ids,
        positions=positions,
    )


def _read_entries(
    path: Path, problems: Problems
) -> tuple[ImageEntries, CategoryEntries, AnnotationEntries]:
    """The three lists; a list that is missing, or empty where it must not be, ends the reading."""
    kinds = {"images": ImageEntries, "categories": CategoryEntries,
             "annotations": AnnotationEntries}  # fmt: skip
    found: dict[str, Any] = {}

    def begin(key: str) -> Take | None:
        if key not in kinds:
            return None
        # Problems of its own: where a file repeats a key, the last list counts.
        found[key] = kinds[key](Problems(path, problems.strict))
        return found[key].take

    stream_lists(path, begin, ADVICE)
    for entries in found.values():
        problems.absorb(entries.problems)
        entries.problems = problems
    for key in kinds:
        if key not in found:
            text = f"no list {key!r}; expected {', '.join(kinds)}; add it"
            problems.add_one("missing list", text)
        elif key != "annotations" and not found[key].count:
            problems.add_one("empty list", f"no {key}; expected at least one; add some")
    if len(found) < len(kinds) or not (found["images"].count and found["categories"].count):
        problems.raise_if_any()
    return found["images"], found["categories"], found["annotations"]


def _check_references(
    annotations: AnnotationEntries, of_image: Array, of_class: Array, problems: Problems
) -> None:
    """Annotations of images that are not listed are left out; of unknown classes, problems."""
    unlisted = np.flatnonzero(of_image < 0)
    if len(unlisted) and len(unlisted) == len(of_image):
        text = annotations.id_text(0, "image_id")
        text += f", and none of {len(of_image):,} is the id of an image; correct them"
        problems.add_one("no annotation of a listed image", text)
        return
    problems.repair(
        "annotation of an image that is not listed",
        np.zeros(len(unlisted), np.int8),
        lambda k: (
            f"{annotations.id_text(int(unlisted[k]), 'image_id')}; expected the id of an image;"
            " correct it"
        ),
    )
    unknown = np.flatnonzero((of_class < 0) & (of_image >= 0))
    problems.add(
        "unknown category",
        np.zeros(len(unknown), np.int8),
        lambda k: (
            f"{annotations.id_text(int(unknown[k]), 'category_id')}; expected the id of a category;"
            " correct it"
        ),
    )


def pycocotools_object(path: Path) -> COCO:
    """Make the file's object of pycocotools, for scripts that ask: cleaned, masks and all.

    Raises:
        DataError: it cannot be read any more.
    """
    found = read_coco(path, Problems(path))
    content = read_json(path, ADVICE)
    objects, entries = found.objects, content["annotations"]
    unique = len(np.unique(found.ids)) == len(found.ids) and (found.ids >= 0).all()
    own_ids = found.ids if unique else np.arange(1, len(found.ids) + 1)
    annotations = [
        entries[position] | {
            "id": own,
            "image_id": found.image_ids[image],
            "category_id": found.category_ids[label],
            "bbox": box,
            "area": area,
            "iscrowd": int(crowd),
        }
        for position, own, image, label, box, area, crowd in zip(
            found.positions.tolist(), own_ids.tolist(), *objects.columns(), strict=True
        )
    ]  # fmt: skip
    listed = {whole(entry.get("id")): entry for entry in content["images"]
              if isinstance(entry, dict) and whole(entry.get("id")) is not None}  # fmt: skip
    coco = COCO()
    coco.dataset = {
        **content,
        "info": content.get("info") or {},
        "images": [listed[own] | {"id": own} for own in found.image_ids],
        "categories": [
            {"id": own, "name": name}
            for own, name in zip(found.category_ids, found.class_names, strict=True)
        ],
        "annotations": annotations,
    }
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        coco.createIndex()
    return coco
