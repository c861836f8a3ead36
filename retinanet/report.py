"""What a model does well and badly, as pictures."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from retinanet.dataloader import CocoDataset, CSVDataset, ImageFiles
from retinanet.files import whole_file
from retinanet.postprocess import Detections
from retinanet.visualization import Picture, contact_sheet, draw_boxes, draw_ground_truth


def draw_image(
    dataset: CocoDataset | CSVDataset | ImageFiles,
    index: int,
    detections: Detections,
    class_names: Sequence[str],
    *,
    ground_truth: bool = False,
) -> Picture:
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
    """Where to write the picture of `image`: its name, made unique, and never an input file.

    Args:
        folder: of the pictures.
        image: the file it was drawn on.
        taken: names given out before and input files; the new one is added.
    """
    path, number = folder / f"{image.stem}.jpg", 1
    while path.resolve() in taken:
        number += 1
        path = folder / f"{image.stem}_{number}.jpg"
    taken.add(path.resolve())
    return path


def save_picture(path: Path, picture: Picture) -> None:
    """Write a JPEG, making its folder.

    Raises:
        DataError: the folder or the file cannot be written.
    """
    with whole_file(path) as stream:
        Image.fromarray(picture).save(stream, format="JPEG", quality=92)


def save_sheet(
    path: Path,
    dataset: CocoDataset | CSVDataset,
    detections: Sequence[Detections],
    *,
    score_threshold: float,
    pictures: int = 12,
) -> None:
    """Draw the first images of a data set, detections over annotations, on one sheet.

    Args:
        path: the JPEG to write.
        dataset: the images and annotations.
        detections: one an image, in the order of the data set.
        score_threshold: what is drawn.
        pictures: how many.
    """
    drawn = []
    for index, found in enumerate(detections[:pictures]):
        sure = found.scores > score_threshold
        kept = Detections(*(column[sure] for column in found))
        drawn.append(draw_image(dataset, index, kept, dataset.class_names, ground_truth=True))
    save_picture(path, contact_sheet(drawn, columns=4))
