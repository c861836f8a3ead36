"""Parts of the page that answer its reader: a slider for the score threshold, sortable tables.

Plain JavaScript inside the page; without it the page shows the same numbers at one threshold.
"""

import json
from collections.abc import Sequence

import numpy as np

from retinanet.evaluation.confusion import cause
from retinanet.evaluation.matching import Indices, Matches
from retinanet.evaluation.precision_recall import Flags
from retinanet.report.html import Html, element, section

STEPS = 100  # of the slider, from 0 to 1

_SCRIPT = """
{
for (const head of document.querySelectorAll('table.sortable thead tr:last-child th')) {
  head.tabIndex = 0;
  const sort = () => {
    const body = head.closest('table').tBodies[0], column = head.cellIndex;
    const key = row => row.cells[column].textContent.trim();
    const number = text => parseFloat(text.replaceAll(',', ''));
    const down = head.getAttribute('aria-sort') !== 'descending';
    for (const other of head.parentNode.cells) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    const order = (a, b) => {
      const x = number(key(a)), y = number(key(b));
      if (isNaN(x) && isNaN(y)) return key(b).localeCompare(key(a));
      return (isNaN(y) ? -1 : y) - (isNaN(x) ? -1 : x);
    };
    const rows = [...body.rows].sort(order);
    body.append(...(down ? rows : rows.reverse()));
  };
  head.addEventListener('click', sort);
  head.addEventListener('keydown', event => { if (event.key === 'Enter') sort(); });
}
const slider = document.getElementById('threshold');
if (slider) {
  const counts = JSON.parse(document.getElementById('counts').textContent);
  const show = () => {
    const at = Number(slider.value);
    document.getElementById('threshold-value').textContent = (at / 100).toFixed(2);
    document.querySelectorAll('[data-class]').forEach(row => {
      counts[row.dataset.class][at].forEach((n, k) => { row.cells[k + 1].textContent = n; });
    });
  };
  slider.addEventListener('input', show);
  show();
}
}
"""


def script() -> Html:
    """The page's JavaScript; nothing of the data is part of it."""
    return element("script", Html(_SCRIPT))


def counts_by_threshold(images: Sequence[Matches], num_classes: int) -> list[list[list[int]]]:
    """True, false and missed of every class where scores of at least 0.00, 0.01 ... 1.00 count.

    Args:
        images: all detections in them count.
        num_classes: K.

    Returns:
        [K + 1][101][3]: all classes together come first.
    """
    floors = np.arange(STEPS + 1) / STEPS
    scores = np.concatenate([np.zeros(0), *(image.detections.scores.numpy() for image in images)])
    labels = np.concatenate([np.zeros(0), *(image.detections.labels.numpy() for image in images)])
    hits = np.concatenate([np.zeros(0, bool), *(image.found >= 0 for image in images)])
    truth = np.concatenate([np.zeros(0), *(image.annotations[:, 4] for image in images)])

    def reaching(chosen: Flags) -> Indices:
        ascending = np.sort(scores[chosen])
        return np.asarray(len(ascending) - np.searchsorted(ascending, floors))

    tables = []
    for label in (None, *range(num_classes)):
        of_class = np.ones(len(labels), bool) if label is None else labels == label
        count = len(truth) if label is None else int((truth == label).sum())
        true, false = reaching(of_class & hits), reaching(of_class & ~hits)
        tables.append(np.column_stack((true, false, count - true)).tolist())
    return tables


def threshold_section(images: Sequence[Matches], names: Sequence[str], threshold: float) -> Html:
    """A slider for the score threshold, and the counts of every class at it."""
    counts = counts_by_threshold(images, len(names))
    start = int(threshold * STEPS)  # at or below it: the detection that it comes from counts
    head = ("class", "true", "false", "missed")
    rows = [
        element(
            "tr",
            element("td", name),
            *(element("td", str(number)) for number in counts[place][start]),
            data_class=str(place),
        )
        for place, name in enumerate(("all classes", *names))
    ]
    slider = element(
        "input", id="threshold", type="range", min="0", max=str(STEPS), value=str(start)
    )
    return section(
        "Score threshold",
        element(
            "p",
            element("label", "Scores of at least ", for_="threshold"),
            element("output", f"{start / STEPS:.2f}", id="threshold-value", for_="threshold"),
            " count: move the slider to see what becomes true, false and missed.",
        ),
        slider,
        element(
            "div",
            element(
                "table",
                element("thead", element("tr", *(element("th", name) for name in head))),
                element("tbody", *rows),
                class_="sortable",
            ),
            class_="scroll",
        ),
        element("script", Html(json.dumps(counts)), id="counts", type="application/json"),
    )


def suspected_errors(
    images: Sequence[Matches], paths: Sequence[str], names: Sequence[str], iou_threshold: float
) -> str:
    """Confident false detections as lines of text: what may be missing in the annotations.

    Args:
        images: with the detections that reach the threshold.
        paths: of the images.
        names: of the classes, by label.
        iou_threshold: of the matches.
    """
    found = []
    for image, path in zip(images, paths, strict=True):
        for place in np.flatnonzero(image.found < 0):
            score = float(image.detections.scores[place])
            corners = " ".join(f"{value:.0f}" for value in image.detections.boxes[place].tolist())
            name = names[int(image.detections.labels[place])]
            why = cause(image, int(place), names, iou_threshold)
            found.append((-score, f"{path}\t{name}\t{score:.3f}\t{corners}\t{why}"))
    lines = ["# retinanet: suspected annotation errors, the surest first"]
    lines.append("# path, class, score, box, why: separated by tabs")
    return "\n".join([*lines, *(line for _, line in sorted(found))]) + "\n"
