"""Images of a data set with detections and annotations drawn on them, and how they are saved."""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from retinanet.data.datasets import Data
from retinanet.inference.image_folder import ImageFiles
from retinanet.postprocess import Detections
from retinanet.report.drawing import Pixels, contact_sheet, draw_boxes, draw_ground_truth
from retinanet.runtime.files import first_free, write_whole
from retinanet.runtime.own_files import MARK, is_foreign

SHEET = 12  # pictures of a sheet
JPEG_SIDE = 65_500  # pixels, the most that a JPEG can have


def draw_image(
    dataset: Data | ImageFiles,
    index: int,
    detections: Detections,
    class_names: Sequence[str],
    *,
    ground_truth: bool = False,
) -> Pixels:
    """An image of a data set with its detections, and its annotations below them if wanted.

    Returns:
        [H, W, 3] RGB, the size of the file.
    """
    picture = dataset.load_image(index)
    if ground_truth and not isinstance(dataset, ImageFiles):
        annotations = dataset.load_annotations(index)
        picture = draw_ground_truth(
            picture, annotations[:, :4], annotations[:, 4], class_names=class_names
        )
    scores, labels, boxes = (column.numpy() for column in detections)
    return draw_boxes(picture, boxes, labels, scores, class_names=class_names)


def free_name(folder: Path, image: Path, taken: set[Path]) -> Path:
    """Path for the picture of `image`: its name, or the next at which no other file is lost.

    Args:
        folder: of the pictures.
        image: the file it was drawn on.
        taken: names given out before and input files; the new one is added.
    """
    path = first_free(
        folder / f"{image.stem}.jpg", lambda name: name.resolve() in taken or is_foreign(name)
    )
    taken.add(path.resolve())
    return path


def save_picture(path: Path, picture: Pixels) -> None:
    """Write a JPEG, making its folder.

    Raises:
        DataError: the folder or the file cannot be written.
    """
    write_whole(path, as_jpeg(picture, quality=92))


def as_jpeg(picture: Pixels, *, quality: int) -> bytes:
    """The bytes of a JPEG file, with the mark of this program's own; a large picture is reduced."""
    image, stream = Image.fromarray(picture), io.BytesIO()
    image.thumbnail((JPEG_SIDE, JPEG_SIDE))  # which leaves smaller ones alone
    image.save(stream, format="JPEG", quality=quality, comment=MARK)
    return stream.getvalue()


def draw_sheet(
    dataset: Data,
    detections: Sequence[Detections],
    *,
    score_threshold: float,
) -> Pixels:
    """Draw the first images of a data set, detections over annotations, on one sheet.

    Args:
        dataset: the images and annotations.
        detections: one an image, in the order of the data set.
        score_threshold: what is drawn.

    Returns:
        [H, W, 3] RGB.
    """
    drawn = []
    for index, found in enumerate(detections[:SHEET]):
        sure = found.only(found.scores > score_threshold)
        drawn.append(draw_image(dataset, index, sure, dataset.class_names, ground_truth=True))
    return contact_sheet(drawn, columns=4)
