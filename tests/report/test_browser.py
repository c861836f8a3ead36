"""The page in a real browser: its slider counts, its tables sort, hostile names stay text."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retinanet.data.datasets import CSVDataset
from retinanet.evaluation.measure import measure
from retinanet.postprocess import Detections
from retinanet.report.interactive import counts_by_threshold, suspected_errors
from retinanet.report.report import write_report

CHROMIUM = shutil.which("chromium")
NAMES = ("cat", "</script><script>document.title='hit'</script>", "dog&<img src=x>")
# Asks the page as its reader would, and leaves the answers where --dump-dom shows them.
READER = """<script>
const slider = document.getElementById('threshold'), seen = [];
const counts = () => [...document.querySelector('[data-class="0"]').cells].slice(1)
  .map(cell => cell.textContent).join(' ');
for (const at of ['0', '75', '100']) {
  slider.value = at; slider.dispatchEvent(new Event('input')); seen.push(counts());
}
const table = slider.closest('section').querySelector('table.sortable');
const order = () => [...table.tBodies[0].rows].map(row => row.dataset.class).join('');
slider.value = '0'; slider.dispatchEvent(new Event('input'));
const head = [...table.tHead.rows[0].cells][3];
head.click(); seen.push(order()); head.click(); seen.push(order());
seen.push(document.documentElement.scrollWidth <= window.innerWidth ? 'fits' : 'wide');
document.title = 'seen ' + seen.join(' | ');
</script>"""


def detections(*rows: tuple[float, ...]) -> Detections:
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return Detections(table[:, 4], table[:, 5].long(), table[:, :4])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on two cats, one of which is found at 0.9, and a false dog at 0.95."""
    folder = tmp_path_factory.mktemp("page")
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(folder / name)
    (folder / "val.csv").write_text("a.png,2,2,20,20,cat\nb.png,2,2,20,20,cat\n")
    data = CSVDataset(folder / "val.csv", {name: label for label, name in enumerate(NAMES)})
    found = [detections((2, 2, 20, 20, 0.9, 0), (30, 30, 60, 44, 0.95, 2)), detections()]
    return write_report(folder / "out", measure(data, found), title=NAMES[1], facts={})


def opened(page: Path, folder: Path, width: int) -> str:
    """The page as the browser has it after a reader used it."""
    copy = folder / "page.html"
    copy.write_bytes(page.read_bytes() + READER.encode())
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    flags += " --disable-background-networking --disable-component-update --disable-sync"
    done = subprocess.run(
        [
            *(str(CHROMIUM), *flags.split(), f"--user-data-dir={folder / 'profile'}"),
            *(f"--window-size={width},900", "--dump-dom", copy.as_uri()),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


@pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed")
@pytest.mark.parametrize("width", [500, 1600])  # headless windows are no narrower than 500
def test_a_reader_moves_the_slider_and_sorts(written: Path, tmp_path: Path, width: int) -> None:
    dom = opened(written, tmp_path, width)
    title = dom.split("<title>")[1].split("</title>")[0]
    # true, false, missed of all: everything counts; scores of at least 0.75 too; of 1 none does.
    # Sorted by misses: all (1) and cats (1) before the two other classes, then the other way.
    assert title == "seen 1 1 1 | 1 1 1 | 0 0 2 | 0123 | 3210 | fits"
    assert "hit" not in title


def test_counts_by_threshold(written: Path) -> None:
    html = written.read_text()
    assert "</script><script>" not in html
    assert "dog&amp;&lt;img src=x&gt;" in html
    assert '<table class="sortable">' in html
    # where F1 is best, at 0.9, the cat counts that has this score
    assert "<td>cat</td><td>1</td><td>0</td><td>1</td>" in html


def test_counts_are_of_scores_of_at_least_the_threshold(written: Path) -> None:
    data = CSVDataset(written.parents[1] / "val.csv", dict(zip(NAMES, range(3), strict=True)))
    images = measure(data, [detections((2, 2, 20, 20, 0.5, 0)), detections()]).matches
    assert images is not None
    table = counts_by_threshold(images, 3)
    assert (table[0][50], table[0][51]) == ([1, 0, 1], [0, 0, 2])
    assert table[2][50] == [0, 0, 0]


def test_suspected_errors_are_listed_with_their_reason(written: Path) -> None:
    lines = (written.parent / "report" / "suspected_errors.txt").read_text().splitlines()
    assert lines[0].startswith("# retinanet: ")
    path, name, score, box, why = lines[2].split("\t")
    assert path.endswith("a.png")
    assert (name, score, box) == (NAMES[2], "0.950", "30 30 60 44")
    assert why == "nothing is annotated there"
    assert suspected_errors([], [], NAMES, 0.5).count("\n") == 2
