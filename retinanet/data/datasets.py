"""Data sets of COCO and CSV files, and of images alone.

A data set is checked whole when it is made: every image is there, every box inside its image.
"""

import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools.coco import COCO
from torch.utils.data import Dataset

from retinanet.data.annotations import (
    Annotations,
    Objects,
    first_of_file,
    join_images,
    positions_of,
)
from retinanet.data.batches import SampleIndex
from retinanet.data.box_checks import COCO_READINGS, CSV_READINGS, Reading, check_boxes
from retinanet.data.formats.class_list import read_classes
from retinanet.data.formats.coco import (
    CocoFile,
    named_set,
    pycocotools_object,
    read_coco,
)
from retinanet.data.formats.coco_entries import Id
from retinanet.data.formats.csv_files import named_file
from retinanet.data.formats.csv_rows import read_annotations
from retinanet.data.formats.labels import Reader, SetFile, relative_name
from retinanet.data.image_finder import Found, find_images
from retinanet.data.image_sizes import check_sizes, read_sizes
from retinanet.data.images import UNKNOWN, Size, read_image
from retinanet.data.problems import Array, Problems
from retinanet.data.transforms import Sample
from retinanet.errors import DataError, counted
from retinanet.runtime.files import path_below

BoxRows = NDArray[np.float64]  # [M, 5] x1, y1, x2, y2, label
Transform = Callable[[Sample], Sample]


class ImageDataset(Dataset[Sample]):
    """Base of all data sets; their constructors fill in the attributes."""

    skip_unreadable = False  # give a sample that says what is wrong, instead of raising an error
    image_names: list[str]  # as the file names them
    transform: Transform | None
    class_names: tuple[str, ...]  # by label
    images_root: Path  # the folder that the image names are relative to
    notes: list[str]  # what a user should know of this data: repairs, odd images
    repaired: dict[str, int]  # what was put right, and how often
    _files: list[str]  # relative to images_root, or absolute
    _sizes: Array  # [images, 2] height, width; UNKNOWN of those that nobody looked at
    _data: Annotations

    def _check(
        self,
        data: Annotations,
        found: Found,
        readings: Sequence[Reading],
        problems: Problems,
        claimed: Array | None = None,
    ) -> list[int]:
        """Join names of one file, read the sizes, check the boxes, and keep what can be read.

        Args:
            data: the boxes, as they are in the file.
            found: the images.
            readings: what else four numbers of the file may mean.
            problems: of the file; raised here.
            claimed: [images, 2] height and width in the file.

        Returns:
            Positions in `data` of the images that are kept.

        Raises:
            DataError: with all problems.
        """
        first = first_of_file(found.files)
        data = join_images(data, first, problems)
        positions = sorted(set(first))
        files = [found.files[k] for k in positions]
        absent = set(found.absent)
        paths = [os.path.join(found.root, file) for file in files]
        lost = [k for k, position in enumerate(positions) if position in absent]
        sizes = read_sizes(paths, data.first_lines, problems, lost)
        if claimed is not None:
            check_sizes(data, claimed[positions], paths, sizes, problems)
        data, notes = check_boxes(data, paths, sizes, readings, problems)
        problems.raise_if_any()
        self.images_root, self.image_names, self._files = found.root, list(data.names), files
        self._data = data.without_places()
        self._sizes = np.array(sizes, np.int32).reshape(-1, 2)
        self.repaired = problems.repaired
        self.notes = [*problems.notes(), *notes]
        kept = self._keep_readable()
        return [positions[k] for k in kept]

    @property
    def classes(self) -> dict[str, int]:
        """Class name to label."""
        return {name: label for label, name in enumerate(self.class_names)}

    @property
    def labels(self) -> dict[int, str]:
        """Label to class name."""
        return dict(enumerate(self.class_names))

    def __len__(self) -> int:
        return len(self._files)

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
        return read_image(self.image_path(image_index))

    def load_annotations(self, image_index: int) -> BoxRows:
        """[M, 5] x1, y1, x2, y2 in pixels of the image, label."""
        return self._data.boxes_of(image_index).copy()

    def load_difficult(self, image_index: int) -> NDArray[np.bool_]:
        """[M] which of these boxes VOC's AP leaves out."""
        return self._data.difficult_of(image_index)

    def image_aspect_ratio(self, image_index: int) -> float:
        """Width / height."""
        height, width = self.image_size(image_index)
        return width / height

    def image_path(self, image_index: int) -> Path:
        """Path of an image."""
        return self.images_root / self._files[image_index]

    def image_size(self, image_index: int) -> Size:
        """(height, width) of the upright image."""
        height, width = self._sizes[image_index].tolist()
        return height, width

    def image_id(self, image_index: int) -> int:
        """The image's id in COCO's terms: its own there, else index + 1."""
        return image_index + 1

    def category_id(self, label: int) -> int:
        """The class's id in COCO's terms: its own there, else label + 1."""
        return label + 1

    def objects(self) -> Objects:
        """All that is annotated, for the evaluation."""
        boxes = self._data.boxes[:, :4].copy()
        boxes[:, 2:] -= boxes[:, :2]
        return Objects(
            images=self._data.owners(),
            labels=self._data.boxes[:, 4].astype(np.int32),
            boxes=boxes,
            areas=boxes[:, 2] * boxes[:, 3],
            crowds=np.zeros(len(boxes), bool),
        )

    def keep(self, positions: Sequence[int]) -> None:
        """Keep some of the images, in the order given."""
        self._data = self._data.only(positions)
        self.image_names = list(self._data.names)
        self._files = [self._files[k] for k in positions]
        self._sizes = self._sizes[list(positions)]

    def name_by_place(self, root: Path) -> None:
        """Name the images by their places below a folder, and put them in order of their names."""
        top = path_below(self.images_root, root)
        names = [
            os.path.normpath(
                path_below(file, root) if os.path.isabs(file) else os.path.join(top, file)
            ).replace(os.sep, "/")
            for file in self._files
        ]
        self._data = replace(self._data, names=tuple(names))
        self.image_names = names
        order = sorted(range(len(self)), key=names.__getitem__)
        if order != list(range(len(self))):
            self.keep(order)

    def _keep_readable(self) -> list[int]:
        """Leave out the images that the checks have found to be missing or unreadable."""
        readable = np.flatnonzero((self._sizes != UNKNOWN).all(axis=1)).tolist()
        if not readable and len(self):
            raise DataError(
                f"{self.image_path(0).parent}: none of {counted(len(self), 'image')} can be read"
            )
        if len(readable) < len(self):
            ImageDataset.keep(self, readable)  # the rest of a data set is yet to be made
        return readable

    def _where(self, image_index: int) -> str:
        """Beginning of an error message about an image."""
        return ""


class CSVDataset(ImageDataset):
    """Boxes from `path,x1,y1,x2,y2,class` lines, classes from `name,id` lines.

    Args:
        train_file: the boxes; or the file of a set, as `find_csv` finds it.
        class_list: the file of the classes, or their ids by name; else those of the boxes, by name.
        transform: what each sample goes through.
        images_dir: where relative paths start; else beside `train_file`, else in the working
            directory: whichever holds all images.
        class_names: by label, of the data that a model was trained on; else the file's own.
        strict: what would be put right (a header, duplicates, boxes partly outside) is an error.
        skip_unreadable: images that are missing or cannot be read are left out, up to 100.
    """

    def __init__(
        self,
        train_file: str | Path | SetFile,
        class_list: str | Path | Mapping[str, int] | None,
        transform: Transform | None = None,
        images_dir: str | Path | None = None,
        *,
        class_names: Sequence[str] | None = None,
        strict: bool = False,
        skip_unreadable: bool = False,
    ) -> None:
        self.skip_unreadable = skip_unreadable
        file = train_file
        if not isinstance(file, SetFile):
            file = named_file(Path(file), images_dir)
        self.train_file = file.path
        self.transform = transform
        class_notes: list[str] = []
        classes = class_list
        if isinstance(classes, str | Path):
            class_problems = Problems(classes, strict)
            classes = read_classes(classes, class_problems)
            class_notes = class_problems.notes()
        problems = Problems(file.path, strict, skip_images=skip_unreadable)
        problems.remarks.extend(file.notes)
        names, data = read_annotations(file.path, classes, problems)
        self.class_names = tuple(class_names or names)
        data = data.relabelled(names, self.class_names, problems)
        found = find_images(data, file.places, problems)
        self._check(data, found, CSV_READINGS, problems, data.sizes if len(data.sizes) else None)
        self.notes = class_notes + self.notes
        if file is train_file:
            self.name_by_place(file.places.below)

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


class CocoDataset(ImageDataset):
    """Boxes from `ROOT/annotations/instances_{set}.json`, or where other tools write it.

    Images lie in `ROOT/images/{set}` or `ROOT/{set}`, or elsewhere below ROOT. Crowds, boxes under
    one pixel and repeated boxes are left out of the samples; `objects` keeps them for the
    evaluation.

    Args:
        root_dir: ROOT.
        set_name: which set; or its file, as `find_coco` finds it, without the classes that have
            no boxes and are the parents of others.
        transform: what each sample goes through.
        class_names: by label, of the data that a model was trained on; else the file's own.
        strict: what would be put right (boxes partly outside, thin or repeated boxes, sizes that
            are not the files') is an error.
        skip_unreadable: images that are missing or cannot be read are left out, up to 100.
    """

    def __init__(
        self,
        root_dir: str | Path,
        set_name: str | SetFile = "train2017",
        transform: Transform | None = None,
        *,
        class_names: Sequence[str] | None = None,
        strict: bool = False,
        skip_unreadable: bool = False,
    ) -> None:
        self.skip_unreadable = skip_unreadable
        self.root_dir = root = Path(root_dir)
        self.set_name = set_name
        self.transform = transform
        file = named_set(root, set_name) if isinstance(set_name, str) else set_name
        self.path = file.path
        problems = Problems(self.path, strict, skip_images=skip_unreadable)
        problems.remarks.extend(file.notes)
        self._wanted = class_names
        content = self._read(problems)
        self.class_names = content.class_names
        self.coco_labels: dict[int, Id] = dict(enumerate(content.category_ids))
        self.coco_labels_inverse: dict[Id, int] = content.labels
        data = content.annotations(problems)
        found = find_images(data, file.places, problems)
        kept = self._check(data, found, COCO_READINGS, problems, content.claimed_sizes)
        self.image_ids: list[Id] = [content.image_ids[k] for k in kept]
        first = first_of_file(found.files)
        self._image_of = positions_of(kept, len(first))[first]  # [images of the file] index, or -1
        self._objects: Objects | None = content.objects.of_images(self._image_of)
        self._coco: COCO | None = None
        if file is set_name:
            self.name_by_place(file.places.below)

    def _read(self, problems: Problems) -> CocoFile:
        drop_parents = isinstance(self.set_name, SetFile)
        content = read_coco(self.path, problems, drop_parents=drop_parents)
        return content.relabelled(self._wanted, problems) if self._wanted else content

    def __getstate__(self) -> dict[str, Any]:
        # The workers of a loader need neither; whoever does reads the file again.
        return {**self.__dict__, "_objects": None, "_coco": None}

    def objects(self) -> Objects:
        """All that is annotated, for the evaluation: crowds and thin boxes too."""
        if self._objects is None:
            self._objects = self._read(Problems(self.path)).objects.of_images(self._image_of)
        return self._objects

    @property
    def coco(self) -> COCO:
        """The pycocotools object of the whole file, which is read again for it."""
        if self._coco is None:
            self._coco = pycocotools_object(self.path)
        return self._coco

    def keep(self, positions: Sequence[int]) -> None:
        """Keep some of the images, in the order given; `coco` keeps all."""
        index = positions_of([*positions], len(self))
        super().keep(positions)
        self.image_ids = [self.image_ids[k] for k in positions]
        self._image_of = index[self._image_of]
        self._objects = self._objects and self._objects.of_images(index)

    def image_id(self, image_index: int) -> Any:
        """COCO's id of an image."""
        return self.image_ids[image_index]

    def category_id(self, label: int) -> Any:
        """COCO's id of a class."""
        return self.coco_labels[label]

    def label_to_coco_label(self, label: int) -> Any:
        """COCO's category id of a label."""
        return self.coco_labels[label]

    def coco_label_to_label(self, coco_label: Id) -> int:
        """The label of COCO's category id."""
        return self.coco_labels_inverse[coco_label]


class LabelledImages(ImageDataset):
    """The images of one set of a labelled folder.

    Args:
        root: the folder or file that the user named.
        read: reads the set.
        transform: what each sample goes through.
        class_names: by label, of the data that a model was trained on; else the set's own.
        strict: what would be put right is an error.
        skip_unreadable: images that are missing or cannot be read are left out, up to 100.

    Raises:
        DataError: with all problems of the set.
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
        self.transform = transform
        folder = root if root.is_dir() else root.parent
        found = Found(folder, [relative_name(path, folder) for path in labels.paths], [])
        self.class_names = tuple(class_names or labels.class_names)
        data = labels.annotations.relabelled(labels.class_names, self.class_names, problems)
        claimed = None if labels.sizes is None else np.array(labels.sizes).reshape(-1, 2)
        self._check(data, found, CSV_READINGS, problems, claimed)
        if not len(self):
            raise DataError(f"{root}: no images with labels; expected some; add them")
        self.name_by_place(folder)
        self.notes = [*labels.notes, *self.notes]


Data = CocoDataset | CSVDataset | LabelledImages  # what can be trained and evaluated on


def checksum(dataset: Data) -> int:
    """A number that differs when images, their order or their boxes do."""
    value = 0
    for index in range(len(dataset)):
        name = path_below(dataset.image_path(index), dataset.images_root)
        value = zlib.crc32(name.encode(errors="surrogateescape"), value)
        value = zlib.crc32(dataset.load_annotations(index).tobytes(), value)
    return value
