"""Data sets of COCO and CSV files, and of images alone.

A data set is checked whole when it is made: every image is there, every box inside its image.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from retinanet.data.annotations import Annotations
from retinanet.data.batches import SampleIndex
from retinanet.data.box_checks import COCO_READINGS, CSV_READINGS, check_boxes
from retinanet.data.formats.class_list import read_classes
from retinanet.data.formats.coco import coco_boxes, read_coco
from retinanet.data.formats.csv_rows import read_annotations
from retinanet.data.formats.labels import Reader
from retinanet.data.image_finder import find_root
from retinanet.data.image_sizes import check_sizes, read_sizes
from retinanet.data.images import UNKNOWN, Size, image_files, image_size, read_image
from retinanet.data.problems import Problems
from retinanet.data.transforms import Sample
from retinanet.errors import DataError, shown
from retinanet.runtime.files import path_below

Boxes = NDArray[np.float64]


Transform = Callable[[Sample], Sample]


class _ImageDataset(Dataset[Sample]):
    """Base of all data sets; their constructors fill in the attributes."""

    skip_unreadable = False  # give a sample that says what is wrong, instead of raising an error
    image_names: list[str]  # as the file names them
    transform: Transform | None
    class_names: tuple[str, ...]  # by label
    images_root: Path  # the folder that the image names are relative to
    notes: list[str]  # what a user should know of this data: repairs, odd images
    repaired: dict[str, int]  # what was put right, and how often
    _paths: list[Path]
    _sizes: list[Size]
    _data: Annotations

    @property
    def classes(self) -> dict[str, int]:
        """Class name to label."""
        return {name: label for label, name in enumerate(self.class_names)}

    @property
    def labels(self) -> dict[int, str]:
        """Label to class name."""
        return dict(enumerate(self.class_names))

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Sample:
        position = range(len(self))[index]
        try:
            image = self.load_image(position)
        except DataError as error:
            message = self._where(position) + str(error)
            if self.skip_unreadable:
                return {"unreadable": message}
            raise DataError(message) from error
        sample: Sample = {
            "img": torch.from_numpy(image),
            "annot": torch.from_numpy(self.load_annotations(position)).float(),
            "original_size": (image.shape[0], image.shape[1]),
            "index": position,
        }
        if isinstance(index, SampleIndex):
            sample["epoch"] = index.epoch
        return self.transform(sample) if self.transform else sample

    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    def label_to_name(self, label: int) -> str:
        """The class name of a label."""
        return self.class_names[label]

    def name_to_label(self, name: str) -> int:
        """The label of a class name."""
        return self.class_names.index(name)

    def load_image(self, image_index: int) -> NDArray[np.uint8]:
        """[H, W, 3] RGB, upright."""
        return read_image(self._paths[image_index])

    def load_annotations(self, image_index: int) -> Boxes:
        """[M, 5] x1, y1, x2, y2 in pixels of the image, label."""
        return self._data.boxes_of(image_index).copy()

    def image_aspect_ratio(self, image_index: int) -> float:
        """Width / height."""
        height, width = self.image_size(image_index)
        return width / height

    def image_path(self, image_index: int) -> Path:
        """Path of an image."""
        return self._paths[image_index]

    def image_size(self, image_index: int) -> Size:
        """(height, width) of the upright image."""
        return self._sizes[image_index]

    def image_id(self, image_index: int) -> int:
        """The image's id in COCO's terms: its own there, else index + 1."""
        return image_index + 1

    def category_id(self, label: int) -> int:
        """The class's id in COCO's terms: its own there, else label + 1."""
        return label + 1

    def keep(self, positions: Sequence[int]) -> None:
        """Keep some of the images, in the order given."""
        self._data = self._data.only(positions)
        self.image_names = list(self._data.names)
        self._paths = [self._paths[k] for k in positions]
        self._sizes = [self._sizes[k] for k in positions]

    def _keep_readable(self) -> None:
        """Leave out the images that the checks have found to be missing or unreadable."""
        readable = [k for k, size in enumerate(self._sizes) if size != UNKNOWN]
        if not readable and len(self):
            raise DataError(f"{self._paths[0].parent}: none of {len(self)} images can be read")
        if len(readable) < len(self):
            self.keep(readable)

    def _where(self, image_index: int) -> str:
        """Beginning of an error message about an image."""
        return ""


class CSVDataset(_ImageDataset):
    """Boxes from `path,x1,y1,x2,y2,class` lines, classes from `name,id` lines.

    Args:
        train_file: the boxes.
        class_list: the file of the classes, or their ids by name.
        transform: what each sample goes through.
        images_dir: where relative paths start; else beside `train_file`, else in the working
            directory: whichever holds all images.
        strict: what would be put right (a header, duplicates, boxes partly outside) is an error.
        skip_unreadable: images that are missing or cannot be read are left out, up to 100.
    """

    def __init__(
        self,
        train_file: str | Path,
        class_list: str | Path | Mapping[str, int],
        transform: Transform | None = None,
        images_dir: str | Path | None = None,
        *,
        strict: bool = False,
        skip_unreadable: bool = False,
    ) -> None:
        self.skip_unreadable = skip_unreadable
        self.train_file = Path(train_file)
        self.transform = transform
        self.notes = []
        classes = class_list
        if not isinstance(classes, Mapping):
            class_problems = Problems(classes, strict)
            classes = read_classes(classes, class_problems)
            self.notes = class_problems.notes()
        self.class_names = tuple(sorted(classes, key=lambda name: classes[name]))
        problems = Problems(train_file, strict, skip_images=skip_unreadable)
        self._data = data = read_annotations(train_file, classes, problems)
        roots = [Path(images_dir)] if images_dir else [self.train_file.parent, Path()]
        advice = "correct the path, or name the folder with --csv_images_dir"
        self.images_root, absent = find_root(roots, data, advice, problems)
        self.image_names = list(data.names)
        self._paths = [self.images_root / name for name in data.names]
        self._sizes = read_sizes(self._paths, data.first_lines, problems, absent)
        notes = check_boxes(data, self._paths, self._sizes, CSV_READINGS, problems)
        problems.raise_if_any()
        self._keep_readable()
        self.repaired = problems.repaired
        self.notes += problems.notes() + notes

    @property
    def image_data(self) -> dict[str, list[dict[str, Any]]]:
        """Image name to its boxes: dicts of x1, x2, y1, y2 and class."""
        return {
            name: [
                {"x1": x1, "x2": x2, "y1": y1, "y2": y2, "class": self.class_names[int(label)]}
                for x1, y1, x2, y2, label in self.load_annotations(index).tolist()
            ]
            for index, name in enumerate(self.image_names)
        }

    def _where(self, image_index: int) -> str:
        return f"{self.train_file}:{self._data.first_lines[image_index]}: "


class CocoDataset(_ImageDataset):
    """Boxes from `ROOT/annotations/instances_{set}.json`.

    Images lie in `ROOT/images/{set}` or `ROOT/{set}`. Crowds, boxes under one pixel and
    repeated boxes are left out of the samples; `coco`, the pycocotools object, keeps them for the
    evaluation.

    Args:
        root_dir: ROOT.
        set_name: which set.
        transform: what each sample goes through.
        strict: what would be put right (boxes partly outside, thin or repeated boxes, sizes that
            are not the files') is an error.
        skip_unreadable: images that are missing or cannot be read are left out, up to 100.
    """

    def __init__(
        self,
        root_dir: str | Path,
        set_name: str = "train2017",
        transform: Transform | None = None,
        *,
        strict: bool = False,
        skip_unreadable: bool = False,
    ) -> None:
        self.skip_unreadable = skip_unreadable
        self.root_dir = Path(root_dir)
        self.set_name = set_name
        self.transform = transform
        path = self.root_dir / "annotations" / f"instances_{set_name}.json"
        problems = Problems(path, strict, skip_images=skip_unreadable)
        self.coco = read_coco(path, problems)
        images = self.coco.dataset["images"]
        categories = sorted(self.coco.dataset["categories"], key=lambda entry: entry["id"])
        self.class_names = tuple(entry["name"] for entry in categories)
        self.coco_labels: dict[int, int] = {k: entry["id"] for k, entry in enumerate(categories)}
        self.coco_labels_inverse = {entry: label for label, entry in self.coco_labels.items()}
        self.image_ids: list[int] = [image["id"] for image in images]
        self._data = data = coco_boxes(self.coco.dataset, self.coco_labels_inverse, problems)
        roots = [self.root_dir / "images" / set_name, self.root_dir / set_name]
        advice = "correct the file or add the image"
        self.images_root, absent = find_root(roots, data, advice, problems)
        self._paths = [self.images_root / name for name in data.names]
        self._sizes = read_sizes(self._paths, data.first_lines, problems, absent)
        check_sizes(images, self._paths, self._sizes, problems)
        notes = check_boxes(data, self._paths, self._sizes, COCO_READINGS, problems)
        problems.raise_if_any()
        self.image_names = list(data.names)
        self._keep_readable()
        self.repaired = problems.repaired
        self.notes = problems.notes() + notes

    def keep(self, positions: Sequence[int]) -> None:
        """Keep some of the images, in the order given; `coco` keeps all."""
        super().keep(positions)
        self.image_ids = [self.image_ids[k] for k in positions]

    def image_id(self, image_index: int) -> int:
        """COCO's id of an image."""
        return self.image_ids[image_index]

    def category_id(self, label: int) -> int:
        """COCO's id of a class."""
        return self.coco_labels[label]

    def label_to_coco_label(self, label: int) -> int:
        """COCO's category id of a label."""
        return self.coco_labels[label]

    def coco_label_to_label(self, coco_label: int) -> int:
        """The label of COCO's category id."""
        return self.coco_labels_inverse[coco_label]


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


Data = CocoDataset | CSVDataset | LabelledImages  # what can be trained and evaluated on


class ImageFiles(_ImageDataset):
    """Images without annotations.

    Args:
        path: a file, a folder, a pattern such as `photos/**/*.jpg`, or several of these.
        transform: what each sample goes through.

    Files are opened when they are asked for.

    Raises:
        DataError: a path names no image.
    """

    def __init__(
        self, path: str | Path | Sequence[str | Path], transform: Transform | None = None
    ) -> None:
        given = [path] if isinstance(path, str | Path) else path
        self.transform = transform
        self.class_names, self.notes, self.repaired = (), [], {}
        self._paths = list(dict.fromkeys(image for name in given for image in image_files(name)))
        self._sizes = [UNKNOWN] * len(self._paths)
        nothing = np.zeros(len(self._paths), np.int64)
        self._data = Annotations(
            names=tuple(image.name for image in self._paths),
            first_lines=nothing,
            offsets=np.zeros(len(self._paths) + 1, np.int64),
            boxes=np.zeros((0, 5)),
            lines=nothing[:0],
        )

    def load_image(self, image_index: int) -> NDArray[np.uint8]:
        """[H, W, 3] RGB, upright."""
        image = super().load_image(image_index)
        self._sizes[image_index] = (image.shape[0], image.shape[1])
        return image

    def image_size(self, image_index: int) -> Size:
        """(height, width) of the upright image, from its header if it was not loaded before."""
        if self._sizes[image_index] == UNKNOWN:
            self._sizes[image_index] = image_size(self._paths[image_index])
        return self._sizes[image_index]


def checksum(dataset: Data) -> int:
    """A number that differs when images, their order or their boxes do."""
    value = 0
    for index in range(len(dataset)):
        name = path_below(dataset.image_path(index), dataset.images_root)
        value = zlib.crc32(name.encode(errors="surrogateescape"), value)
        value = zlib.crc32(dataset.load_annotations(index).tobytes(), value)
    return value
