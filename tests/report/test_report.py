"""The report of a run: its numbers, its pictures, and what it says where something is missing."""

import io
import json
import re
import shutil
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retinanet.data.datasets import CocoDataset, CSVDataset
from retinanet.errors import DataError
from retinanet.evaluation import coco, voc
from retinanet.evaluation.coco import score_coco
from retinanet.evaluation.measure import measure
from retinanet.evaluation.voc import score_voc, voc_table
from retinanet.postprocess import Detections
from retinanet.report import sections
from retinanet.report.drawing import class_color
from retinanet.report.facts import training_facts
from retinanet.report.report import PICTURES, REPORT_FILES, write_report
from retinanet.runtime.own_files import is_own

pytestmark = pytest.mark.usefixtures("narrow")

NAMES = ("cat", "<script>alert(1)</script>", "$dog_")
NOTHING = Detections(torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))
FACTS = {"Model": 'a "b" & c.pt'}
STEP = {
    **{"kind": "step", "epoch": 0, "iteration": 0},
    **{"classification_loss": 1.0, "regression_loss": 0.5, "running_loss": 1.5},
}
EPOCH = {"kind": "epoch", "epoch": 0, "mean_loss": 1.5, "metrics": {"AP": 0.2, "mAP": 0.4}}


def detections(*rows: tuple[float, ...]) -> Detections:
    """Rows of x1, y1, x2, y2, score, label."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return Detections(table[:, 4], table[:, 5].long(), table[:, :4])


def dataset(folder: Path, truth: dict[str, list[tuple[int, ...]]]) -> CSVDataset:
    """Images of 80 x 60 pixels and their boxes x1, y1, x2, y2, label."""
    folder.mkdir()
    lines = []
    for name, boxes in truth.items():
        Image.new("RGB", (80, 60), (90, 120, 90)).save(folder / name, format="PNG")
        quoted = '"' + name.replace('"', '""') + '"'
        corners = [",".join(map(str, box[:4])) + f',"{NAMES[box[4]]}"' for box in boxes]
        lines += [f"{quoted},{row}" for row in corners or [",,,,"]]
    (folder / "val.csv").write_text("\n".join(lines) + "\n")
    return CSVDataset(folder / "val.csv", {name: label for label, name in enumerate(NAMES)})


TRUTH = {
    'it\'s "1".png': [(5, 5, 25, 25, 0), (40, 10, 70, 50, 1)],
    "2.png": [(10, 10, 50, 50, 0)],
    "3.png": [],
}
FOUND = [
    detections((5, 5, 25, 25, 0.9, 0), (40, 12, 70, 50, 0.8, 2), (5, 5, 24, 24, 0.3, 0)),
    detections((12, 10, 50, 50, 0.7, 0), (60, 5, 75, 20, 0.6, 1)),
    detections((20, 20, 40, 40, 0.5, 0)),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> CSVDataset:
    return dataset(tmp_path_factory.mktemp("data") / "images", TRUTH)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, data: CSVDataset) -> Path:
    folder = tmp_path_factory.mktemp("run")
    return write_report(
        folder, measure(data, FOUND), title="<b>run</b>", facts=FACTS, history=[STEP, EPOCH]
    )


def rows(html: str) -> list[list[str]]:
    """The tables' rows, as text."""
    cells = [re.findall("<t[hd].*?>(.*?)</t[hd]>", row) for row in re.findall("<tr>.*?</tr>", html)]
    return [[re.sub("<.*?>", "", cell) for cell in row] for row in cells]


def test_the_numbers_are_those_of_validate(written: Path, data: CSVDataset) -> None:
    html = written.read_text()
    scores, table = score_coco(data, FOUND), score_voc(data, FOUND)
    said = voc_table(table).splitlines()
    cat = next(row for row in rows(html) if row and row[0] == "cat")
    assert said[2].split() == " ".join([cat[0], cat[1], cat[3], *cat[7:]]).split()
    assert cat[4:7] == ["2", "0", "0"]  # true, false and missed at 0.7, where F1 is best
    assert cat[2] == f"{scores.per_class['cat']:.3f} {scores.class_intervals['cat']}"
    total = next(row for row in rows(html) if row and row[0] == "all classes")
    ap, mean = scores.stats["AP"], table.mean_average_precision
    ap_and_interval = f"{ap:.3f} {scores.intervals['AP']}"
    assert total[1:4] == ["3", ap_and_interval, f"{mean:.3f} {table.mean_interval}"]
    for name, value in scores.stats.items():
        shown = f"{value:.3f}" if value >= 0 else "-"
        sure = scores.intervals.get(name)
        ends = f"<small> {sure}</small>" if sure else ""
        assert f"<dt>{name}</dt><dd>{shown}{ends}</dd>" in html
    assert "Without annotations: $dog_." in html


def test_the_file_stands_alone_and_its_pictures_lie_beside_it(written: Path) -> None:
    html = written.read_text()
    sources = re.findall('(?:src|href)="(.{15})', html)
    assert len(sources) == len(list((written.parent / "report").glob("*.[jp]*g")))
    assert {source[:11] for source in sources} == {"data:image/"}
    assert "<script>alert" not in html
    assert "<b>run</b>" not in html
    assert sorted(path.name for path in (written.parent / "report").iterdir()) == sorted(
        [*sections.FILES, "missed_1.jpg", "false_1.jpg", "suspects.csv"]
    )


def test_the_threshold_is_where_the_mean_f1_is_best(written: Path) -> None:
    # At 0.7 both cats are found and nothing else is taken for one: F1 1; the other class: F1 0.
    html = written.read_text()
    assert "--score_threshold 0.700" in html
    assert "<dt>best mean F1</dt><dd>0.500</dd>" in html


def test_mistakes_are_counted_at_the_threshold(written: Path) -> None:
    html = written.read_text()
    assert ["&lt;script&gt;alert(1)&lt;/script&gt; taken for $dog_", "1"] in rows(html)
    assert "it&#x27;s &quot;1&quot;.png</b> missed at 0.70: 1 &lt;script&gt;" in html
    assert "$dog_ 0.80: annotated as &lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_all_that_is_said_of_a_threshold_is_counted_at_the_slider(
    data: CSVDataset, tmp_path: Path
) -> None:
    """F1 is best at 0.525, the slider stands at 0.52, where the second cat is found too."""
    found = [
        detections((5, 5, 25, 25, 0.525, 0), (40, 10, 70, 50, 0.525, 1)),
        detections((12, 10, 50, 50, 0.522, 0), (60, 5, 75, 20, 0.522, 1)),
        detections((20, 20, 40, 40, 0.524, 0), (20, 2, 40, 9, 0.523, 0)),
    ]
    html = write_report(tmp_path, measure(data, found), title="run", facts={}).read_text()
    assert "--score_threshold 0.525" in html
    assert re.search('<output id="threshold-value".*?>(.*?)<', html)[1] == "0.52"
    assert "Scores of at least 0.52 (" in html
    assert "No annotation was missed." in html
    [total] = [row for row in rows(html) if row and row[0] == "all classes"]
    assert total[4:7] == ["3", "3", "0"]
    # Three false ones and no annotation drawn twice.
    assert len((tmp_path / "report/suspects.csv").read_text().splitlines()) == 1 + 3


def test_flags_are_not_broken_at_their_dashes() -> None:
    settings = "--lr 1e-4 --anchor_sizes 8 16 --batch_norm frozen"
    facts = training_facts(started_from="none", images=2, batch_size=1, settings=settings)
    flags = ["--lr 1e-4", "--anchor_sizes 8 16", "--batch_norm frozen"]
    assert facts["Learned by"] == "".join(f"<code>{flag}</code> " for flag in flags)


def test_missed_annotations_are_dashed_and_detections_in_the_colours_of_their_classes(
    written: Path,
) -> None:
    picture = np.array(Image.open(written.parent / "report" / "missed_1.jpg")).astype(int)
    assert picture.shape == (360, 480, 3)  # 6 times 60 x 80
    assert np.abs(picture[60:140, 31] - class_color(0)).mean() < 40  # the cat's left edge
    dashes = picture[61, 320:410].mean(axis=1)  # the top edge of what was missed
    assert dashes.min() < 60 < 200 < dashes.max()


def test_writing_again_replaces_the_old_report_and_nothing_else(
    tmp_path: Path, written: Path
) -> None:
    shutil.copytree(written.parent, tmp_path, dirs_exist_ok=True)
    (tmp_path / "report" / "mine.png").touch()
    write_report(tmp_path, None, title="run", facts={}, history=[STEP])
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert names == {"mine.png", "losses.png"}


def test_the_pictures_of_an_old_report_are_known_without_a_mark(
    tmp_path: Path, written: Path
) -> None:
    """Version 1.0 marked its page only: a JPEG is known by it, a chart by matplotlib's mark."""
    shutil.copytree(written.parent, tmp_path, dirs_exist_ok=True)
    chart, photo = tmp_path / "report/losses.png", tmp_path / "report/missed_1.jpg"
    matplotlib = b"tEXtSoftware\0Matplotlib version3.9.0, https://matplotlib.org/"
    chart.write_bytes(b"\x89PNG....IHDR...." + matplotlib)
    unmarked = io.BytesIO()
    Image.new("RGB", (8, 8)).save(unmarked, format="JPEG")
    photo.write_bytes(unmarked.getvalue())
    assert is_own(chart)
    assert not is_own(photo)
    page = tmp_path / "report.html"
    page.write_bytes(page.read_bytes() + b64encode(unmarked.getvalue()))
    assert is_own(photo)
    page.unlink()
    assert not is_own(chart)


def test_a_file_of_somebody_else_is_not_replaced(tmp_path: Path, data: CSVDataset) -> None:
    (tmp_path / "report.html").write_text("<html>my thesis</html>")
    with pytest.raises(DataError, match=r"html: was not written by this program"):
        write_report(tmp_path, measure(data, FOUND), title="run", facts={})
    assert (tmp_path / "report.html").read_text() == "<html>my thesis</html>"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_nothing_found(tmp_path: Path, data: CSVDataset) -> None:
    found = measure(data, [NOTHING] * 3)
    html = write_report(tmp_path, found, title="run", facts={}).read_text()
    assert "Training" not in html  # nothing was trained
    assert "Nothing true has a score above 0.05, so there are no curves." in html
    assert "Scores of at least 0.50 (there is no best F1)" in html
    assert ["cat missed", "2"] in rows(html)
    assert "No detection is false." in html


def test_nothing_annotated(tmp_path: Path) -> None:
    empty = dataset(tmp_path / "images", {"1.png": [], "2.png": []})
    found = measure(empty, [detections((5, 5, 25, 25, 0.9, 0)), NOTHING])
    html = write_report(tmp_path, found, title="run", facts={}).read_text()
    assert "Nothing is annotated, so nothing can be measured." in html
    assert "No annotation was missed." in html
    assert "cat 0.90: nothing is annotated there" in html
    assert "<dt>COCO AP</dt><dd>-</dd>" in html


def test_a_run_without_validation_data(tmp_path: Path) -> None:
    html = write_report(tmp_path, None, title="run", facts=FACTS, history=[STEP]).read_text()
    assert "There is no validation data" in html
    assert html.count("<img") == 1


def test_scores_that_are_known_are_taken_as_they_are(tmp_path: Path, data: CSVDataset) -> None:
    strict = measure(data, FOUND, iou_threshold=0.97, score_threshold=0.4)
    html = write_report(tmp_path, strict, title="run", facts={}).read_text()
    assert "AP, IoU 0.97" in html
    assert "scores above 0.4" in html
    assert ["cat missed", "1"] in rows(html)


def test_what_was_measured_is_not_measured_again(
    tmp_path: Path, data: CSVDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    for module, name in ((coco, "_evaluator"), (voc, "match")):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, f=real, n=name: calls.append(n) or f(*a))
    write_report(tmp_path, measure(data, FOUND), title="run", facts={})
    assert calls == ["_evaluator", "match", "match", "match"]  # pycocotools once, 3 images once


def test_coco_data_with_a_crowd(tmp_path: Path) -> None:
    boxes = [([10, 10, 20, 20], 0), ([40, 5, 35, 50], 1)]
    content = {
        "images": [{"id": 7, "file_name": "a.png", "width": 80, "height": 60}],
        "categories": [{"id": 3, "name": "cat"}],
        "annotations": [
            {"id": k, "image_id": 7, "category_id": 3, "bbox": box, "iscrowd": crowd}
            for k, (box, crowd) in enumerate(boxes)
        ],
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val.json").write_text(json.dumps(content))
    (tmp_path / "val").mkdir()
    Image.new("RGB", (80, 60)).save(tmp_path / "val" / "a.png")
    crowded = CocoDataset(tmp_path, "val")
    found = [detections((45, 10, 60, 30, 0.9, 0), (10, 10, 30, 30, 0.8, 0))]
    [cat] = score_voc(crowded, found).classes
    np.testing.assert_allclose(cat.scores, [0.8])  # what lies on the crowd does not count
    assert cat.average_precision == 1
    html = write_report(tmp_path, measure(crowded, found), title="run", facts={}).read_text()
    assert "What lies on a crowd of its class counts neither way." in html
    assert "No detection is false." in html


def test_no_more_pictures_than_fit(tmp_path: Path) -> None:
    many = dataset(tmp_path / "images", {f"{k}.png": [(5, 5, 25, 25, 0)] for k in range(9)})
    found = [detections((50, 30, 70, 50, 0.9 - 0.1 * k, 0)) for k in range(9)]
    write_report(tmp_path, measure(many, found), title="run", facts={})
    names = [f"report/{path.name}" for path in (tmp_path / "report").iterdir()]
    assert sum(name.startswith("report/missed") for name in names) == PICTURES
    assert all(name in REPORT_FILES for name in names)
