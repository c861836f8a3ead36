"""Data sets (COCO and CSV), the batch sampler and the collater; the transforms by name.

A data set is checked whole when it is made: every image is there, every box inside its image.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypedDict, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from retinanet.annotations import Annotations, Problems
from retinanet.box_checks import COCO_READINGS, CSV_READINGS, check_boxes
from retinanet.coco_annotations import coco_boxes, read_coco
from retinanet.csv_annotations import read_annotations, read_classes
from retinanet.errors import DataError
from retinanet.image_checks import check_sizes, find_root, read_sizes
from retinanet.images import Size, image_files, read_image
from retinanet.transforms import (
    Augmenter,
    Normalizer,
    Resizer,
    Sample,
    UnNormalizer,
    random_stream,
)

__all__ = [
    "AspectRatioBasedSampler",
    "Augmenter",
    "Batch",
    "CSVDataset",
    "CocoDataset",
    "ImageFiles",
    "Normalizer",
    "Resizer",
    "Sample",
    "SampleIndex",
    "UnNormalizer",
    "collater",
]

Boxes = NDArray[np.float64]
Transform = Callable[[Sample], Sample]
BINS_PER_OCTAVE = 8  # of aspect ratio


class SampleIndex(int):
    """The index of a sample that also knows its epoch, also on the way into a loader worker."""

    epoch: int

    def __new__(cls, index: int, epoch: int) -> "SampleIndex":
        """Make index `index` of epoch `epoch`."""
        made = super().__new__(cls, index)
        made.epoch = epoch
        return made

    def __getnewargs__(self) -> tuple[int, int]:  # type: ignore[override]
        return int(self), self.epoch


class _ImageDataset(Dataset[Sample]):
    """What all data sets share; their constructors fill in the attributes."""

    skip_unreadable = False  # give a sample that says what is wrong, instead of raising an error
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
        height, width = self._sizes[image_index]
        return width / height

    def image_path(self, image_index: int) -> Path:
        """Where the image lies."""
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

    def _where(self, image_index: int) -> str:
        """What stands in front of an error about an image."""
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
    """

    def __init__(
        self,
        train_file: str | Path,
        class_list: str | Path | Mapping[str, int],
        transform: Transform | None = None,
        images_dir: str | Path | None = None,
        *,
        strict: bool = False,
    ) -> None:
        self.train_file = Path(train_file)
        self.transform = transform
        self.notes = []
        classes = class_list
        if not isinstance(classes, Mapping):
            class_problems = Problems(classes, strict)
            classes = read_classes(classes, class_problems)
            self.notes = class_problems.notes()
        self.class_names = tuple(sorted(classes, key=lambda name: classes[name]))
        problems = Problems(train_file, strict)
        self._data = data = read_annotations(train_file, classes, problems)
        roots = [Path(images_dir)] if images_dir else [self.train_file.parent, Path()]
        advice = "correct the path, or name the folder with --csv_images_dir"
        self.images_root, absent = find_root(roots, data, advice, problems)
        self.image_names = list(data.names)
        self._paths = [self.images_root / name for name in data.names]
        self._sizes = read_sizes(self._paths, data.first_lines, problems, absent)
        notes = check_boxes(data, self._paths, self._sizes, CSV_READINGS, problems)
        problems.raise_if_any()
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
    """

    def __init__(
        self,
        root_dir: str | Path,
        set_name: str = "train2017",
        transform: Transform | None = None,
        *,
        strict: bool = False,
    ) -> None:
        self.root_dir = Path(root_dir)
        self.set_name = set_name
        self.transform = transform
        path = self.root_dir / "annotations" / f"instances_{set_name}.json"
        problems = Problems(path, strict)
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
        self.repaired = problems.repaired
        self.notes = problems.notes() + notes

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


Data = CocoDataset | CSVDataset  # what can be trained and evaluated on


class ImageFiles(_ImageDataset):
    """Images without annotations.

    Args:
        path: a file, a folder, a pattern such as `photos/**/*.jpg`, or several of these.
        transform: what each sample goes through.

    Raises:
        DataError: a path names no image, or a file is none.
    """

    def __init__(
        self, path: str | Path | Sequence[str | Path], transform: Transform | None = None
    ) -> None:
        given = [path] if isinstance(path, str | Path) else path
        self.transform = transform
        self.class_names, self.notes, self.repaired = (), [], {}
        self._paths = list(dict.fromkeys(image for name in given for image in image_files(name)))
        self.images_root = Path(os.path.commonpath([p.absolute().parent for p in self._paths]))
        nothing = np.zeros(len(self._paths), np.int64)
        problems = Problems(", ".join(map(str, given)))
        self._sizes = read_sizes(self._paths, nothing, problems)
        problems.raise_if_any()
        self._data = Annotations(
            names=tuple(image.name for image in self._paths),
            first_lines=nothing,
            offsets=np.zeros(len(self._paths) + 1, np.int64),
            boxes=np.zeros((0, 5)),
            lines=nothing[:0],
        )


class AspectRatioSource(Protocol):
    """What the sampler asks of a data set."""

    def __len__(self) -> int: ...

    def image_aspect_ratio(self, image_index: int) -> float:
        """Width / height."""
        ...


class AspectRatioBasedSampler(Sampler[list[int]]):
    """Batches of images of like shape, shuffled anew every epoch as (seed, epoch) say.

    The images are shuffled, sorted by aspect ratio in bins of 1/8 octave, and cut into batches,
    which are shuffled. Nothing is repeated. The epoch is the number of passes begun before, unless
    `set_epoch` says otherwise. Processes that train together cut joint batches and take a share
    each, which may be empty where the last batch is a small one.

    Args:
        data_source: a data set.
        batch_size: images of a batch, of each process.
        drop_last: leave out, at random, the images that make no whole batch.
        seed: what the order depends on besides the epoch.
        rank: which of the processes that train together this is.
        world_size: how many they are.
    """

    def __init__(
        self,
        data_source: AspectRatioSource,
        batch_size: int,
        drop_last: bool = False,
        seed: int = 0,
        *,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1:
            raise DataError(f"batch size {batch_size}; expected at least 1; correct --batch_size")
        ratios = [data_source.image_aspect_ratio(k) for k in range(len(data_source))]
        # Rounded, so that the common shapes (1:1, 4:3, 16:9) lie inside a bin and not on its edge.
        self._bins = np.rint(BINS_PER_OCTAVE * np.log2(ratios)).astype(int)
        self._joint_size = batch_size * world_size
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.seed = seed
        self.rank, self.world_size = rank, world_size
        self.epoch, self.first_batch = 0, 0

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Say which epoch the next pass is, and with which of its batches it begins."""
        self.epoch, self.first_batch = epoch, first_batch

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        count = len(self._bins)
        return count // self._joint_size if self.drop_last else -(-count // self._joint_size)

    def __iter__(self) -> Iterator[list[int]]:
        # A generator: a loader with workers makes two iterators a pass, and begins one.
        epoch, first_batch = self.epoch, self.first_batch
        self.set_epoch(epoch + 1)
        stream = random_stream("shuffle", self.seed, epoch)
        order = stream.permutation(len(self._bins))[: len(self) * self._joint_size]
        order = order[np.argsort(self._bins[order], kind="stable")]
        for batch in stream.permutation(len(self)).tolist()[first_batch:]:
            joint = order[batch * self._joint_size : (batch + 1) * self._joint_size]
            share = np.array_split(joint, self.world_size)[self.rank]
            yield [SampleIndex(index, epoch) for index in share.tolist()]


class Batch(TypedDict, total=False):
    """Samples of one batch, padded to the largest."""

    img: Tensor  # [B, 3, H, W] float32, channels last in memory
    annot: Tensor  # [B, M, 5] x1, y1, x2, y2, label; rows of -1 where an image has fewer than M
    scale: list[float]
    size: list[tuple[int, int]]  # these three where all samples have them
    original_size: list[tuple[int, int]]
    index: list[int]
    unreadable: list[str]  # what is wrong with images that were left out


def collater(samples: Sequence[Sample]) -> Batch:
    """Stack normalised samples: zeros right of and below each image, M at least 1, B perhaps 0."""
    unreadable = [sample["unreadable"] for sample in samples if "unreadable" in sample]
    samples = [sample for sample in samples if "unreadable" not in sample]
    images = [torch.as_tensor(sample["img"]) for sample in samples]
    annots = [torch.as_tensor(sample["annot"]) for sample in samples]
    height, width = (max((image.shape[axis] for image in images), default=32) for axis in (0, 1))
    img = torch.zeros(len(images), height, width, 3)
    annot = torch.full((len(annots), max([1, *map(len, annots)]), 5), -1.0)
    for k, (image, boxes) in enumerate(zip(images, annots, strict=True)):
        img[k, : image.shape[0], : image.shape[1]] = image
        annot[k, : len(boxes)] = boxes
    batch: Batch = {
        "img": img.permute(0, 3, 1, 2),
        "annot": annot,
        "scale": [sample.get("scale", 1.0) for sample in samples],
        "unreadable": unreadable,
    }
    more: dict[str, Any] = {
        key: [sample[key] for sample in samples]
        for key in ("size", "original_size", "index")
        if all(key in sample for sample in samples)
    }
    return cast(Batch, {**batch, **more})
