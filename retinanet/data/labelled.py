"""Any labelled folder or file: its format recognised, its sets opened as data sets."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retinanet.data.annotations import Annotations
from retinanet.data.box_checks import CSV_READINGS, check_boxes
from retinanet.data.datasets import Transform, _ImageDataset
from retinanet.data.formats.labelme import find_labelme
from retinanet.data.formats.labels import Reader, Sets
from retinanet.data.formats.voc import find_voc
from retinanet.data.formats.yolo import find_yolo
from retinanet.data.image_sizes import read_sizes
from retinanet.data.problems import Problems
from retinanet.errors import DataError, shown


class Format(NamedTuple):
    """A way to write labels down."""

    title: str
    find: Callable[[Path], Sets]
    """The sets of a folder or file; none where it is not of this format."""
    sign: str
    """The files it is recognised by."""


FORMATS = {
    "yolo": Format("YOLO", find_yolo, "data.yaml, or classes.txt and a .txt an image"),
    "voc": Format("Pascal VOC", find_voc, "a .xml an image"),
    "labelme": Format("LabelMe", find_labelme, "a .json an image"),
}


def recognise(path: Path, name: str | None = None) -> tuple[Format, Sets]:
    """The format of a folder or a file, and its sets.

    Args:
        path: what the user named.
        name: of the format, where the user named it too.

    Raises:
        DataError: nothing is there, nothing of a known format is, or two formats fit.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; expected labelled images; correct it")
    wanted = {name: FORMATS[name]} if name else FORMATS
    found = {key: sets for key, format_ in wanted.items() if (sets := format_.find(path))}
    if len(found) > 1:
        titles = " and ".join(FORMATS[key].title for key in found)
        names = " or ".join(f"--format {key}" for key in found)
        raise DataError(f"{path}: labels of {titles}; expected one format; give {names}")
    if not found:
        signs = "; ".join(f"{format_.title}: {format_.sign}" for format_ in wanted.values())
        raise DataError(f"{path}: no labels of a known format; expected one of {signs}")
    ((key, sets),) = found.items()
    return FORMATS[key], sets


class LabelledImages(_ImageDataset):
    """The images of one set of a labelled folder.

    Args:
        root: the folder or file that the user named.
        read: reads the set.
        transform: what each sample goes through.
        class_names: by label, of the data that a model was trained on; else the set's own.
        strict: what would be put right is an error.
        skip_unreadable: images that are missing or cannot be read are left out, up to 100.

    Raises:
        DataError: with all problems of the set, or its classes that are not in `class_names`.
    """

    def __init__(
        self,
        root: Path,
        read: Reader,
        transform: Transform | None = None,
        *,
        class_names: Sequence[str] | None = None,
        strict: bool = False,
        skip_unreadable: bool = False,
    ) -> None:
        self.skip_unreadable = skip_unreadable
        problems = Problems(root, strict, skip_images=skip_unreadable)
        labels = read(problems)
        data, paths = labels.annotations, list(labels.paths)
        sizes = list(labels.sizes) or read_sizes(paths, data.first_lines, problems)
        notes = check_boxes(data, paths, sizes, CSV_READINGS, problems)
        problems.raise_if_any()
        if not paths:
            raise DataError(f"{root}: no images with labels; expected some; add them")
        self.transform = transform
        self.class_names = tuple(class_names or labels.class_names)
        self._data = _relabelled(root, data, labels.class_names, self.class_names)
        self._paths, self._sizes = paths, sizes
        self.images_root = root if root.is_dir() else root.parent
        self.image_names = list(data.names)
        self.repaired = problems.repaired
        self.notes = [*labels.notes, *problems.notes(), *notes]
        self._keep_readable()


def _relabelled(
    root: Path, data: Annotations, names: Sequence[str], wanted: Sequence[str]
) -> Annotations:
    """The same boxes with the labels of the classes `wanted`, found by name."""
    used = np.unique(data.boxes[:, 4]).astype(int).tolist()
    unknown = [names[label] for label in used if names[label] not in wanted]
    if unknown:
        raise DataError(
            f"{root}: the classes {shown(unknown)} are not of the model ({shown(list(wanted))});"
            " expected classes that it was trained on; rename them"
        )
    position = {name: k for k, name in enumerate(wanted)}
    labels = np.array([position.get(name, -1) for name in names] or [0])
    data.boxes[:, 4] = labels[data.boxes[:, 4].astype(int)]
    return data
