"""COCO's numbers: those of pycocotools, on data of every kind, by either evaluator."""

import contextlib
import io
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn

from retinanet.coco_eval import evaluate_coco
from retinanet.data.datasets import CocoDataset, CSVDataset
from retinanet.evaluation.coco import STATS, ap_table, score_coco
from retinanet.inference.results import coco_results
from retinanet.postprocess import Detections
from tests.support.paths import SHARED

pytestmark = pytest.mark.usefixtures("narrow")

DATA = SHARED / "data"
ORACLE, COCO_MINI = DATA / "coco_eval_oracle", DATA / "coco_mini"

# Three pictures of 200 x 160 pixels, the last one empty; a box of each of COCO's sizes. No emu.
NAMES = ("cat", "dog", "emu")
TRUTH = [
    [(10, 10, 30, 30, 0), (50, 10, 120, 80, 0), (20, 40, 180, 150, 1)],
    [(0, 0, 100, 150, 1), (60.5, 20, 90, 60, 0)],
    [],
]
FOUND = [
    [(12, 10, 30, 31, 0.9, 0), (50, 20, 120, 80, 0.8, 1), (25, 40, 180, 145, 0.7, 1)],
    [(5, 5, 95, 150, 0.6, 1), (5, 5, 90, 140, 0.5, 1), (60, 20, 92, 61, 0.4, 0)],
    [(30, 30, 60, 60, 0.3, 0)],
]


def detections(rows):
    """Rows of x1, y1, x2, y2, score, label as `Detections`.

    In float64, because boxes of the oracle lie exactly at a threshold of IoU.
    """
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 6)
    return Detections(table[:, 4], table[:, 5].long(), table[:, :4])


def csv_dataset(folder, truth=TRUTH):
    lines = []
    for index, rows in enumerate(truth):
        Image.new("RGB", (200, 160)).save(folder / f"{index}.png")
        boxes = [",".join(map(str, row[:4])) + f",{NAMES[row[4]]}" for row in rows]
        lines += [f"{index}.png,{box}" for box in boxes or [",,,,"]]
    (folder / "val.csv").write_text("\n".join(lines) + "\n")
    (folder / "classes.csv").write_text("".join(f"{n},{i}\n" for i, n in enumerate(NAMES)))
    return CSVDataset(folder / "val.csv", folder / "classes.csv", transform=as_sample)


def coco_file(truth=TRUTH):
    """The truth in COCO's format, by hand: categories 1 to 3, images 1 to 3."""
    annotations = []
    for image, rows in enumerate(truth, start=1):
        for x1, y1, x2, y2, label in rows:
            w, h = x2 - x1, y2 - y1
            place = {"image_id": image, "category_id": label + 1}
            box = {"bbox": [x1, y1, w, h], "area": w * h, "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, **place, **box})
    return {
        "images": [
            {"id": i + 1, "file_name": f"{i}.png", "width": 200, "height": 160}
            for i in range(len(truth))
        ],
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(NAMES)],
        "annotations": annotations,
    }


def coco_dataset(folder, content):
    (folder / "annotations").mkdir(parents=True)
    (folder / "annotations" / "instances_val.json").write_text(json.dumps(content))
    (folder / "images" / "val").mkdir(parents=True)
    for image in content["images"]:
        size = (image["width"], image["height"])
        Image.new("RGB", size).save(folder / "images" / "val" / image["file_name"])
    return CocoDataset(folder, set_name="val")


def as_sample(sample):
    """A transform without any arithmetic."""
    img = torch.as_tensor(np.asarray(sample["img"])).float()
    return {"img": img, "annot": sample["annot"], "scale": 1.0}


def call_pycocotools(content, results):
    """The twelve numbers and the printed summary, as pycocotools' own documentation has it."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = content
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    with contextlib.redirect_stdout(io.StringIO()) as summary:
        evaluation.summarize()
    return evaluation.stats, summary.getvalue()


HAND_MADE_RESULTS = [
    {
        "image_id": image,
        "category_id": label + 1,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "score": score,
    }
    for image, rows in enumerate(FOUND, start=1)
    for x1, y1, x2, y2, score, label in rows
]


def test_csv_data_get_what_pycocotools_gives(tmp_path) -> None:
    scores = score_coco(csv_dataset(tmp_path), [detections(rows) for rows in FOUND])
    expected, summary = call_pycocotools(coco_file(), HAND_MADE_RESULTS)
    assert tuple(scores.stats) == STATS
    np.testing.assert_allclose(list(scores.stats.values()), expected, atol=1e-12)
    assert scores.summary == summary.rstrip("\n")
    assert len(scores.summary.splitlines()) == 12
    assert 0 < scores.stats["AP"] < 1


def test_coco_data_get_the_same(tmp_path, capsys) -> None:
    found = [detections(rows) for rows in FOUND]
    dataset = coco_dataset(tmp_path, coco_file())
    capsys.readouterr()
    scores = score_coco(dataset, found)
    expected, _ = call_pycocotools(coco_file(), HAND_MADE_RESULTS)
    np.testing.assert_allclose(list(scores.stats.values()), expected, atol=1e-12)
    assert scores == score_coco(dataset, found)  # the ground truth is as it was
    assert capsys.readouterr().out == ""


def test_an_annotation_of_number_0_can_be_found(tmp_path) -> None:
    # pycocotools alone takes a match with it for no match.
    content = coco_file()
    content["annotations"][0]["id"] = 0
    perfect = [detections([(*row[:4], 0.9, row[4]) for row in rows]) for rows in TRUTH]
    scores = score_coco(coco_dataset(tmp_path, content), perfect)
    assert scores.stats["AP"] == pytest.approx(1)


def test_annotations_without_area_and_iscrowd(tmp_path) -> None:
    content = coco_file()
    for annotation in content["annotations"]:
        del annotation["area"], annotation["iscrowd"]
    scores = score_coco(coco_dataset(tmp_path, content), [detections(rows) for rows in FOUND])
    expected, _ = call_pycocotools(coco_file(), HAND_MADE_RESULTS)
    np.testing.assert_allclose(list(scores.stats.values()), expected, atol=1e-12)


def test_crowds_are_neither_missed_nor_false(tmp_path) -> None:
    content = coco_file()
    content["annotations"][1]["iscrowd"] = 1  # the second cat
    rows = [(*row[:4], 0.9, row[4]) for row in TRUTH[0]]
    inside_the_crowd = (60, 20, 80, 50, 0.95, 0)
    found = [detections([rows[0], rows[2], inside_the_crowd])]
    found += [detections([(*row[:4], 0.9, row[4]) for row in rows]) for rows in TRUTH[1:]]
    scores = score_coco(coco_dataset(tmp_path, content), found)
    assert scores.stats["AP"] == pytest.approx(1)


def test_ap_by_class(tmp_path) -> None:
    # Dogs are found exactly, of three cats the one that is surest is, with two false ones behind:
    # AP of cats is the share of COCO's 101 recalls (0, 0.01, ..., 1) up to 1/3: 34 / 101.
    found = [
        [(*TRUTH[0][0][:4], 0.9, 0), (*TRUTH[0][2][:4], 0.9, 1), (150, 0, 160, 9, 0.3, 0)],
        [(*TRUTH[1][0][:4], 0.8, 1), (150, 0, 160, 9, 0.3, 0)],
        [],
    ]
    scores = score_coco(csv_dataset(tmp_path), [detections(rows) for rows in found])
    assert scores.per_class == pytest.approx({"cat": 34 / 101, "dog": 1})
    assert scores.absent == ("emu",)
    assert ap_table(scores).splitlines() == [
        "class     AP  95 % interval",
        f"cat    0.337  {scores.class_intervals['cat']}",
        "dog    1.000  1.000-1.000",
        "without annotations: emu",
    ]


def test_classes_whose_ids_are_in_another_order_than_their_labels(tmp_path) -> None:
    # The file numbers dogs before cats and has no emu, which gets a number behind them.
    found = [detections(rows) for rows in FOUND]
    content = coco_file()
    expected = score_coco(coco_dataset(tmp_path / "same", content), found)
    for entry in content["annotations"]:
        entry["category_id"] = {1: 2, 2: 1}[entry["category_id"]]
    content["categories"] = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    coco_dataset(tmp_path / "other", content)
    dataset = CocoDataset(tmp_path / "other", set_name="val", class_names=NAMES)
    scores = score_coco(dataset, found)
    assert scores == expected
    assert scores.class_intervals == expected.class_intervals
    for name in ("cat", "dog"):
        for ours, theirs in zip(scores.matches[name], expected.matches[name], strict=True):
            np.testing.assert_array_equal(ours, theirs)
    # Without cats in it, too: dogs are the second of the classes and the only one of the file.
    content["annotations"] = [e for e in content["annotations"] if e["category_id"] == 1]
    content["categories"] = content["categories"][:1]
    coco_dataset(tmp_path / "fewer", content)
    dataset = CocoDataset(tmp_path / "fewer", set_name="val", class_names=NAMES)
    assert score_coco(dataset, found).absent == ("cat", "emu")


def test_zero_detections(tmp_path) -> None:
    scores = score_coco(csv_dataset(tmp_path), [detections([])] * 3)
    assert list(scores.stats.values()) == [0] * 12
    assert scores.per_class == {"cat": 0, "dog": 0}


def test_no_annotations_at_all(tmp_path) -> None:
    dataset = csv_dataset(tmp_path, truth=[[], []])
    for found in (FOUND[:2], [[], []]):
        scores = score_coco(dataset, [detections(rows) for rows in found])
        assert list(scores.stats.values()) == [-1] * 12
        assert (scores.per_class, scores.absent) == ({}, NAMES)
    assert ap_table(scores).splitlines()[1:] == ["without annotations: cat, dog, emu"]


def test_results_are_plain_numbers(tmp_path) -> None:
    dataset = coco_dataset(tmp_path, coco_file())
    results = coco_results(dataset, [detections(rows) for rows in FOUND])
    assert json.loads(json.dumps(results)) == results
    assert len(results) == len(HAND_MADE_RESULTS)
    for ours, expected in zip(results, HAND_MADE_RESULTS, strict=True):
        assert list(ours) == ["image_id", "category_id", "bbox", "score"]
        assert (ours["image_id"], ours["category_id"]) == (
            *(expected["image_id"], expected["category_id"]),
        )
        assert ours["bbox"] == pytest.approx(expected["bbox"])
        assert ours["score"] == pytest.approx(expected["score"])


class Finder(nn.Module):
    """A detector that finds the first dog in every image."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.thresholds = []

    def detect(self, images, sizes, limits):
        self.thresholds.append(limits.score_threshold)
        return [detections([(*TRUTH[0][2][:4], 0.9, 1)]) for _ in images]


def test_evaluate_coco_says_the_twelve_lines(tmp_path, capsys) -> None:
    model = Finder()
    scores = evaluate_coco(csv_dataset(tmp_path), model)
    said = capsys.readouterr().out
    assert said == f"{scores.summary}\n{scores.certainty}\n"
    first = " Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = "
    assert said.startswith(first)
    assert set(model.thresholds) == {0.05}


def oracle(folder):
    """The data set that ships with COCO's own API, and the official fake detections."""
    content = json.loads((ORACLE / "instances_val2014_100.json").read_text())
    results = json.loads((ORACLE / "instances_val2014_fakebbox100_results.json").read_text())
    dataset = coco_dataset(folder, content)
    label_of = {dataset.category_id(label): label for label in range(dataset.num_classes())}
    rows = {dataset.image_id(index): [] for index in range(len(dataset))}
    for record in results:
        x, y, w, h = record["bbox"]
        label = label_of[record["category_id"]]
        rows[record["image_id"]].append((x, y, x + w, y + h, record["score"], label))
    return dataset, [detections(found) for found in rows.values()]


def without_hotcoco(monkeypatch):
    monkeypatch.setitem(sys.modules, "hotcoco", None)  # which makes its import fail


@pytest.fixture(params=["pycocotools", "hotcoco"])
def _evaluator(request, monkeypatch):
    if request.param == "pycocotools":
        without_hotcoco(monkeypatch)
    else:
        pytest.importorskip("hotcoco")


@pytest.mark.skipif(not ORACLE.exists(), reason="../shared/data/coco_eval_oracle is absent")
@pytest.mark.usefixtures("_evaluator")
def test_the_official_numbers(tmp_path) -> None:
    scores = score_coco(*oracle(tmp_path))
    # In the order of STATS; of the recalls by size no official number is known.
    official = [0.505, 0.697, 0.573, 0.586, 0.519, 0.501, 0.387, 0.594, 0.595]
    assert [round(value, 3) for value in scores.stats.values()][:9] == official


def shaken(dataset, seed=0):
    """Detections near the annotations of a data set: moved, relabelled or left out at random."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(len(dataset)):
        boxes = dataset.load_annotations(index)
        boxes = np.repeat(boxes[rng.random(len(boxes)) < 0.8], 3, axis=0)
        boxes[:, :4] += rng.normal(0, 6, (len(boxes), 4))
        boxes[:, 2:4] = np.maximum(boxes[:, 2:4], boxes[:, :2] + 1)
        wrong = rng.random(len(boxes)) < 0.1
        boxes[wrong, 4] = rng.integers(dataset.num_classes(), size=wrong.sum())
        scores = np.round(rng.random(len(boxes)), 2)  # with ties
        found.append(detections(np.column_stack((boxes[:, :4], scores, boxes[:, 4]))))
    return found


def assert_both_evaluators_agree(dataset, found, monkeypatch):
    """The numbers, those of the classes, the matches behind the intervals: bit for bit."""
    pytest.importorskip("hotcoco")
    quick = score_coco(dataset, found)
    without_hotcoco(monkeypatch)
    slow = score_coco(dataset, found)
    assert quick == slow
    assert quick.summary == slow.summary
    for name, matches in slow.matches.items():
        for column, expected in zip(quick.matches[name], matches, strict=True):
            np.testing.assert_array_equal(column, expected)
    assert quick.intervals == slow.intervals
    return slow


@pytest.mark.skipif(not ORACLE.exists(), reason="../shared/data/coco_eval_oracle is absent")
def test_both_evaluators_agree_on_the_oracle(tmp_path, monkeypatch) -> None:
    assert_both_evaluators_agree(*oracle(tmp_path), monkeypatch)


@pytest.mark.skipif(not COCO_MINI.exists(), reason="../shared/data/coco_mini is absent")
def test_both_evaluators_agree_on_real_annotations(monkeypatch) -> None:
    dataset = CocoDataset(COCO_MINI, "val2017")
    scores = assert_both_evaluators_agree(dataset, shaken(dataset), monkeypatch)
    assert 0.1 < scores.stats["AP"] < 0.9


def quirky(images, seed):
    """Annotations with crowds, areas that are not their boxes', gaps in ids, an empty class."""
    rng = np.random.default_rng(seed)
    content = coco_file([[] for _ in range(images)])
    for image in content["images"]:
        for _ in range(rng.integers(0, 5)):
            x, y = rng.integers(0, 100, 2).tolist()
            w, h = rng.choice([8, 31, 32, 33, 60, 96, 97], 2).tolist()
            content["annotations"].append(
                {
                    **{"id": 7 * len(content["annotations"]), "image_id": image["id"]},
                    **{"category_id": int(rng.integers(1, 3)), "bbox": [x, y, min(w, 199 - x), h]},
                    "area": float(w * h * rng.choice([1, 0.5])),
                    "iscrowd": int(rng.random() < 0.3),
                }
            )
    content["annotations"] = [
        a for a in content["annotations"] if a["bbox"][1] + a["bbox"][3] < 160
    ]
    return content


@pytest.mark.parametrize("seed", range(4))
def test_both_evaluators_agree_on_cocos_quirks(tmp_path, monkeypatch, seed) -> None:
    dataset = coco_dataset(tmp_path, quirky(6, seed))
    found = [detections([])] if seed == 3 else shaken(dataset, seed)[:1]  # none at all; some
    found += shaken(dataset, seed)[1:] if seed != 3 else [detections([])] * 5
    assert_both_evaluators_agree(dataset, found, monkeypatch)


def test_both_evaluators_agree_without_annotations(tmp_path, monkeypatch) -> None:
    dataset = csv_dataset(tmp_path, truth=[[], []])
    assert_both_evaluators_agree(dataset, [detections(rows) for rows in FOUND[:2]], monkeypatch)
