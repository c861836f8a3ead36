"""The report: one page with a model's numbers, curves and mistakes, its pictures beside it."""

import html
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from retinanet.errors import counted
from retinanet.evaluation.confusion import cause, most_confident_false, most_missed
from retinanet.evaluation.measure import Evaluation
from retinanet.evaluation.precision_recall import Floats
from retinanet.postprocess import Detections
from retinanet.report.charts import History
from retinanet.report.drawing import draw_boxes, draw_ground_truth
from retinanet.report.html import Html, definitions, element, joined, page, section
from retinanet.report.interactive import SCRIPT, counts_by_threshold, slider
from retinanet.report.overlays import photo, reduced
from retinanet.report.pictures import as_jpeg
from retinanet.report.sections import (
    FILES,
    ReportedEvaluation,
    at_best_threshold,
    class_table,
    coco_numbers,
    confusion,
    precision_and_recall,
    summary,
    training,
)
from retinanet.report.suspects import suspected_errors
from retinanet.runtime.files import check_output_dir, write_whole
from retinanet.runtime.own_files import is_own, remove_own

PICTURES = 6  # of each kind of mistake

LEGEND = (
    "Dashed: annotations, with names those that were missed. In the colours of their classes:"
    " detections, with thick lines those that are false."
)

REPORT_PICTURES = (
    *(f"report/{name}" for name in FILES),
    *(f"report/{kind}_{k}.jpg" for kind in ("missed", "false") for k in range(1, PICTURES + 1)),
)

SUSPECTS = "report/suspects.csv"
REPORT_FILES = ("report.html", SUSPECTS, *REPORT_PICTURES)
"""All that a report may consist of, for `check_output_dir`."""


def write_report(
    folder: Path,
    evaluation: Evaluation | None,
    *,
    title: str,
    facts: Mapping[str, str],
    history: History = (),
    progress: str = "",
) -> Path:
    """Write the report of a model, one page, and its pictures beside it.

    Args:
        folder: for `report.html` and `report/`; those of an earlier report are replaced.
        evaluation: of the model; the page has the thresholds of its VOC scores. None without
            validation data: the page is on the training alone.
        title: of the page.
        facts: further facts by name: the model, the data, the command.
        history: records of `metrics.jsonl`; none where nothing was trained.
        progress: of a run that goes on, in a sentence: an open page then loads itself again.

    Returns:
        The path of the page.

    Raises:
        DataError: the files cannot be written, or would replace others than this program's.
    """
    check_output_dir(folder, names=REPORT_FILES)
    path = folder / "report.html"
    pictures = folder / "report"
    for name in REPORT_FILES[1:]:
        remove_own(folder / name)

    heading = joined(element("h1", title), *([element("p", progress)] if progress else []))
    facts_list = definitions(facts, "facts")
    if evaluation is None:
        nothing = "There is no validation data, so detections were not measured."
        sections = [heading, element("p", nothing), facts_list, training(history, pictures)]
    else:
        reported = at_best_threshold(evaluation)
        sections = [
            heading,
            summary(reported),
            facts_list,
            *([training(history, pictures)] if history else []),
            _at_the_slider(reported, folder),
            precision_and_recall(reported, pictures),
            confusion(reported, pictures),
            coco_numbers(reported.coco),
        ]
    write_whole(path, page(title, sections, renewed=bool(progress), script=SCRIPT))
    return path


def report_title(folder: Path) -> str:
    """Title of the report in a folder; empty where there is none."""
    path = folder / "report.html"
    if not is_own(path):
        return ""
    found = re.search("<title>(.*?)</title>", path.read_text(encoding="utf-8"), re.DOTALL)
    return html.unescape(found[1]) if found else ""


def _at_the_slider(reported: ReportedEvaluation, folder: Path) -> Html:
    """The slider for the score threshold, and below it all that it changes."""
    classes = len(reported.dataset.class_names)
    counts = counts_by_threshold(reported.all_matches, classes, reported.threshold)
    return element(
        "div",
        slider(counts),
        class_table(reported, counts),
        _missed(reported, folder / "report", counts.start),
        _false(reported, folder / "report", counts.start),
        _suspects(reported, folder),
    )


def _suspects(reported: ReportedEvaluation, folder: Path) -> Html:
    """A file of suspected annotation errors, and the note on it."""
    dataset = reported.dataset
    paths = [dataset.image_path(index) for index in range(len(dataset))]
    text, count = suspected_errors(
        reported.matches, paths, dataset.class_names, reported.voc.iou_threshold
    )
    write_whole(folder / SUSPECTS, text.encode(errors="surrogateescape"))
    note = element(
        "p",
        f"{counted(count, 'suspected annotation error')}, the surest first, to go through: ",
        element("code", SUSPECTS),
        ", CSV like training data, with a score and a reason. They are annotations drawn twice and"
        f" false detections with a score of at least {reported.threshold:.2f}, many of which are"
        " objects that nobody annotated.",
    )
    return section("Suspected annotation errors", note)


def _missed(reported: ReportedEvaluation, folder: Path, start: int) -> Html:
    """The images with the most annotations that were not found."""
    drawn = []
    for rank, index in enumerate(most_missed(reported.matches, PICTURES), start=1):
        image = reported.matches[index]
        missed = image.annotations[image.missed]
        names = Counter(reported.dataset.class_names[int(label)] for label in missed[:, 4])
        what = ", ".join(f"{count} {name}" for name, count in names.most_common())
        caption = f" missed at {reported.threshold:.2f}: {what}"
        path = folder / f"missed_{rank}.jpg"
        drawn.append(_photo(path, reported, index, image.detections, missed, caption, start))
    return _gallery("Most missed", LEGEND if drawn else "No annotation was missed.", drawn)


def _false(reported: ReportedEvaluation, folder: Path, start: int) -> Html:
    """The images with the surest detections that are false."""
    drawn = []
    names = reported.dataset.class_names
    worst = most_confident_false(reported.matches, PICTURES)
    for rank, (index, detection) in enumerate(worst, start=1):
        image = reported.matches[index]
        name = names[int(image.detections.labels[detection])]
        score = float(image.detections.scores[detection])
        why = cause(image, detection, names, reported.voc.iou_threshold)
        caption = f" {name} {score:.2f}: {why}"
        false = image.detections.only(image.found < 0)
        path = folder / f"false_{rank}.jpg"
        drawn.append(_photo(path, reported, index, false, image.annotations, caption, start))
    return _gallery(
        "Most confident and false", LEGEND if drawn else "No detection is false.", drawn
    )


def _gallery(title: str, text: str, drawn: Sequence[Html]) -> Html:
    return section(title, element("p", text), element("div", *drawn, class_="pictures"))


def _photo(
    path: Path,
    reported: ReportedEvaluation,
    index: int,
    detections: Detections,
    annotations: Floats,
    caption: str,
    start: int,
) -> Html:
    """An image with boxes over it for the page, and with some of them drawn on it as a file.

    Args:
        path: of the file.
        reported: the evaluation.
        index: of the image.
        detections: in the file.
        annotations: [M, 5] in the file.
        caption: below the image.
        start: step of the slider.
    """
    dataset = reported.dataset
    names = dataset.class_names
    image, scale = reduced(dataset.load_image(index))
    boxes, labels = scale * annotations[:, :4], annotations[:, 4]
    drawn = draw_ground_truth(image, boxes, labels, class_names=names)
    scores, labels, boxes = (column.numpy() for column in detections)
    drawn = draw_boxes(drawn, scale * boxes, labels, scores, class_names=names)
    write_whole(path, as_jpeg(drawn, quality=85))
    file, root = dataset.image_path(index), dataset.images_root
    name = str(file.relative_to(root) if file.is_relative_to(root) else file.name)
    title = (element("b", name), caption)
    matches = reported.all_matches[index]
    return photo(image, scale, matches, names, start, alt=name, caption=title)
