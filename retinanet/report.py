"""What a model does well and badly: pictures, and a page with the numbers, curves and mistakes."""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from retinanet.coco_eval import CocoScores
from retinanet.csv_eval import CsvScores
from retinanet.curves import Floats
from retinanet.dataloader import Data, ImageFiles
from retinanet.errors import DataError
from retinanet.files import first_free, whole_file, write_whole
from retinanet.findings import (
    FILES,
    Findings,
    class_table,
    coco_numbers,
    confusion,
    find,
    precision_and_recall,
    summary,
    training,
)
from retinanet.history import Records
from retinanet.mistakes import cause, most_confident_false, most_missed
from retinanet.page import BEGINNING, Html, definitions, element, page, picture, section
from retinanet.postprocess import Detections
from retinanet.visualization import Picture, contact_sheet, draw_boxes, draw_ground_truth

JPEG_SIDE = 65_500  # pixels, the most that a JPEG can have
PICTURES = 6  # of each kind of mistake
PICTURE_SIZE = (480, 360)  # most of width and height, pixels: letters on it can be read
OWN_PICTURES = (
    *FILES,
    *(f"{kind}_{rank}.jpg" for kind in ("missed", "false") for rank in range(1, PICTURES + 1)),
)


def draw_image(
    dataset: Data | ImageFiles,
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
    path = first_free(folder / f"{image.stem}.jpg", lambda name: name.resolve() in taken)
    taken.add(path.resolve())
    return path


def save_picture(path: Path, picture: Picture) -> None:
    """Write a JPEG, making its folder.

    Raises:
        DataError: the folder or the file cannot be written.
    """
    with whole_file(path) as stream:
        image = Image.fromarray(picture)
        image.thumbnail((JPEG_SIDE, JPEG_SIDE))  # which leaves smaller ones alone
        image.save(stream, format="JPEG", quality=92)


def draw_sheet(
    dataset: Data,
    detections: Sequence[Detections],
    *,
    score_threshold: float,
    pictures: int = 12,
) -> Picture:
    """Draw the first images of a data set, detections over annotations, on one sheet.

    Args:
        dataset: the images and annotations.
        detections: one an image, in the order of the data set.
        score_threshold: what is drawn.
        pictures: how many.

    Returns:
        [H, W, 3] RGB.
    """
    drawn = []
    for index, found in enumerate(detections[:pictures]):
        sure = found.scores > score_threshold
        kept = Detections(*(column[sure] for column in found))
        drawn.append(draw_image(dataset, index, kept, dataset.class_names, ground_truth=True))
    return contact_sheet(drawn, columns=4)


def report_file(folder: Path) -> Path:
    """Where a report goes: `report.html`, with its pictures beside it in `report/`.

    Raises:
        DataError: a file of that name is there that is no report of this program.
    """
    path = folder / "report.html"
    if path.exists() and not path.read_bytes().startswith(BEGINNING):
        raise DataError(
            f"{path}: no report of this program, which would replace it; move it away, or choose"
            " another --output_dir"
        )
    return path


def write_report(
    folder: Path,
    dataset: Data | None,
    detections: Sequence[Detections],
    *,
    title: str,
    facts: Mapping[str, str],
    history: Records = (),
    coco: CocoScores | None = None,
    voc: CsvScores | None = None,
) -> Path:
    """Write a page on what a model does well and badly, and its pictures beside it.

    Args:
        folder: for `report.html` and `report/`; those of an earlier report are replaced.
        dataset: the validation data; None: the page is on the training alone.
        detections: one an image, in the order of the data set, in pixels of the files.
        title: of the page.
        facts: what else a reader should know, by name: the model, the data, the command.
        history: records of `metrics.jsonl`; none where nothing was trained.
        coco: the scores of these detections, where they are known already.
        voc: likewise; its IoU and score thresholds are the report's.

    Returns:
        The path of the page.
    """
    path = report_file(folder)
    pictures = folder / "report"
    for name in OWN_PICTURES:
        (pictures / name).unlink(missing_ok=True)

    heading = element("h1", title)
    facts_list = definitions(facts, "facts")
    if dataset is None:
        nothing = "Without validation data there is nothing to say of what the model finds."
        sections = [heading, element("p", nothing), facts_list, training(history, pictures)]
    else:
        found = find(dataset, detections, coco, voc)
        sections = [
            heading,
            summary(found),
            facts_list,
            *([training(history, pictures)] if history else []),
            precision_and_recall(found, pictures),
            confusion(found, pictures),
            class_table(found),
            coco_numbers(found.coco),
            _missed(found, pictures),
            _false(found, pictures),
        ]
    write_whole(path, page(title, sections))
    return path


def _missed(findings: Findings, folder: Path) -> Html:
    """The images with the most annotations that were not found."""
    drawn = []
    for rank, index in enumerate(most_missed(findings.images, PICTURES), start=1):
        image = findings.images[index]
        missed = image.annotations[image.missed]
        names = Counter(findings.dataset.class_names[int(label)] for label in missed[:, 4])
        what = ", ".join(f"{count} {name}" for name, count in names.most_common())
        caption = f" {len(missed)} of {len(image.annotations)} missed: {what}"
        path = folder / f"missed_{rank}.jpg"
        drawn.append(_photo(path, findings, index, image.detections, missed, caption))
    legend = "Dashed, named below: annotations that were missed. In colour: what was detected."
    return _gallery("Most missed", legend if drawn else "No annotation was missed.", drawn)


def _false(findings: Findings, folder: Path) -> Html:
    """The images with the surest detections that are false."""
    drawn = []
    names = findings.dataset.class_names
    worst = most_confident_false(findings.images, PICTURES)
    for rank, (index, detection) in enumerate(worst, start=1):
        image = findings.images[index]
        name = names[int(image.detections.labels[detection])]
        score = float(image.detections.scores[detection])
        why = cause(image, detection, names, findings.voc.iou_threshold)
        caption = f" {name} {score:.2f}: {why}"
        false = Detections(*(column[image.found < 0] for column in image.detections))
        path = folder / f"false_{rank}.jpg"
        drawn.append(_photo(path, findings, index, false, image.annotations, caption))
    legend = "Dashed, named below: all annotations. In colour: detections that are false."
    return _gallery(
        "Most confident and false", legend if drawn else "No detection is false.", drawn
    )


def _gallery(title: str, text: str, drawn: Sequence[Html]) -> Html:
    return section(title, element("p", text), element("div", *drawn, class_="pictures"))


def _photo(
    path: Path,
    findings: Findings,
    index: int,
    detections: Detections,
    annotations: Floats,
    caption: str,
) -> Html:
    """Draw detections and annotations [M, 5] on an image, for the page and as a file."""
    dataset = findings.dataset
    names = dataset.class_names
    image = Image.fromarray(dataset.load_image(index))
    scale = min(PICTURE_SIZE[0] / image.width, PICTURE_SIZE[1] / image.height)
    size = max(1, round(scale * image.width)), max(1, round(scale * image.height))
    drawn = np.array(image.resize(size, Image.Resampling.LANCZOS))
    boxes, labels = scale * annotations[:, :4], annotations[:, 4]
    drawn = draw_ground_truth(drawn, boxes, labels, class_names=names)
    scores, labels, boxes = (column.numpy() for column in detections)
    drawn = draw_boxes(drawn, scale * boxes, labels, scores, class_names=names)
    stream = io.BytesIO()
    Image.fromarray(drawn).save(stream, format="JPEG", quality=85)
    write_whole(path, stream.getvalue())
    file, root = dataset.image_path(index), dataset.images_root
    name = str(file.relative_to(root) if file.is_relative_to(root) else file.name)
    return picture(stream.getvalue(), "jpeg", name, (element("b", name), caption))
