"""Properties of random inputs, and a share of what `tests.support.fuzzing` tries at length."""

import io
import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from retinanet.boxes import clip_boxes, pairwise_iou
from retinanet.data.box_checks import FRACTION_OVERHANG
from retinanet.data.datasets import CocoDataset, CSVDataset
from retinanet.data.formats.class_list import read_classes
from retinanet.data.transforms import Augmenter, Resizer
from retinanet.evaluation.coco import STATS, score_coco
from retinanet.inference.prediction import to_original
from retinanet.postprocess import Detections
from tests.support.fuzz_targets import CLASSES, TARGETS
from tests.support.fuzzing import fuzz, inputs

share = settings(derandomize=True, max_examples=60)


# ---- changed files ----


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize(
    ("target", "count"),
    [
        *(("csv", 400), ("classes", 2000), ("coco", 400), ("image", 1000), ("checkpoint", 300)),
        *(("yolo", 300), ("yaml", 150), ("voc", 300), ("labelme", 300)),
    ],
)
def test_changed_files_give_a_result_or_a_data_error(
    tmp_path: Path, target: str, count: int
) -> None:
    outcome = fuzz(target, 0, range(count), tmp_path)
    assert outcome.failures == {}
    assert outcome.results + outcome.refused == count
    assert outcome.refused > 0


def test_an_input_depends_on_its_number_alone() -> None:
    some = dict(inputs("csv", 3, range(5, 9)))
    assert list(some) == [5, 6, 7, 8]
    assert dict(inputs("csv", 3, [7])) == {7: some[7]}
    assert len({*some.values(), *dict(inputs("csv", 4, range(5, 9))).values()}) == 8


@pytest.mark.parametrize("target", [*"csv classes coco yolo yaml voc labelme image model".split()])
def test_the_unchanged_samples_are_read(tmp_path: Path, target: str) -> None:
    """Else the changed ones would all fail for one reason; the other targets' are no models."""
    for sample in TARGETS[target].samples():
        path = tmp_path / TARGETS[target].name
        path.write_bytes(sample)
        TARGETS[target].read(path)


# ---- annotations ----

PICTURE = (200, 160)  # width, height
corner = st.integers(0, 140)
side = st.integers(1, 60)
a_box = st.tuples(corner, corner, side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
rows = st.lists(
    st.tuples(st.sampled_from(["a.png", "b c.png"]), a_box, st.sampled_from([*CLASSES])),
    min_size=1,
    max_size=8,
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of equal pictures: a.png, b c.png, 0.png to 4.png."""
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("a", "b c", *"01234"):
        Image.new("L", PICTURE).save(folder / f"{name}.png")
    return folder


@share
@given(rows, st.randoms(use_true_random=False))
def test_what_is_put_right_changes_nothing(pictures: Path, rows: Any, rng: Any) -> None:
    """Quotes, spaces, blank lines, a header, fractions, repeats, line ends, a byte order mark."""
    # With their repeats at most half of the boxes reach outside: more may mean something else.
    outside = [box for _, box, _ in rows if box[3] > PICTURE[1]]
    assume(3 * len(outside) <= len(rows))

    def read(text: str) -> list[list[float]]:
        file = pictures / "rows.csv"
        file.write_bytes(text.encode())
        data = CSVDataset(file, CLASSES)
        return [[k, *box] for k in range(len(data)) for box in data.load_annotations(k).tolist()]

    def dressed(field: object) -> str:
        text = f'"{field}"' if "," in str(field) or rng.random() < 0.3 else str(field)
        return " " * rng.randrange(2) + text + " " * rng.randrange(2)

    plain, odd = [], ["path,x1,y1,x2,y2,class"] * rng.randrange(2)
    for name, box, label in rows:
        plain.append(",".join((name, *map(str, box), f'"{label}"')))
        fields = (name, *(rng.choice((v, f"{v}.0", f"{v}e0", f"+{v}")) for v in box), label)
        odd += [",".join(map(dressed, fields))] * rng.choice((1, 1, 2))
        odd += [rng.choice(("", "  ", ",,,,,"))] * rng.randrange(2)
    end = rng.choice(("\n", "\r\n", "\r"))
    assert read(rng.choice(("", "\ufeff")) + end.join(odd)) == read("\n".join(plain))


number = st.floats(-20, 180, width=32).map(lambda v: round(v, 1))
size = st.floats(0, 90, width=32).map(lambda v: round(v, 1))
annotation = st.fixed_dictionaries(
    {
        "image_id": st.sampled_from([4, 7, 9]),
        "category_id": st.sampled_from([1, 5, 90]),
        "bbox": st.tuples(st.floats(0, 140).map(round), st.floats(0, 100).map(round), size, size),
        "iscrowd": st.sampled_from([0, 0, 0, 1]),
    }
).filter(  # else it may be one in fractions of the image
    lambda entry: max(entry["bbox"]) > 1 + FRACTION_OVERHANG
)


def coco_data(folder: Path, annotations: list[dict[str, Any]]) -> CocoDataset:
    """Three pictures, three categories, ids with gaps and out of order."""
    root = folder / "coco"
    if not root.exists():
        (root / "annotations").mkdir(parents=True)
        os.symlink(folder, root / "val")
    names = {9: "0.png", 4: "1.png", 7: "2.png"}
    content = {
        "images": [{"id": key, "file_name": name} for key, name in names.items()],
        "categories": [{"id": key, "name": f"class {key}"} for key in (90, 1, 5)],
        "annotations": [
            {"id": k, "area": entry["bbox"][2] * entry["bbox"][3], **entry}
            for k, entry in enumerate(annotations, start=1)
        ],
    }
    (root / "annotations/instances_val.json").write_text(json.dumps(content))
    solid = [entry for entry in annotations if not entry["iscrowd"]]
    boxes = [entry["bbox"] for entry in solid]
    odd = [
        b for b in boxes if min(b[2:]) < 1 or b[0] + b[2] > PICTURE[0] or b[1] + b[3] > PICTURE[1]
    ]
    assume(len(solid) == 1 or 2 * len(odd) <= len(solid))  # else the file is refused
    return CocoDataset(root, "val")


@share
@given(st.lists(annotation, max_size=12))
def test_coco_boxes_are_those_that_pycocotools_finds(pictures: Path, annotations: Any) -> None:
    data = coco_data(pictures, annotations)
    with redirect_stdout(io.StringIO()):
        theirs = COCO(pictures / "coco/annotations/instances_val.json")
    for index in range(len(data)):
        expected: list[list[float]] = []
        for entry in theirs.loadAnns(theirs.getAnnIds(data.image_id(index), iscrowd=False)):
            x, y, w, h = entry["bbox"]
            corners = [x, y, min(x + w, PICTURE[0]), min(y + h, PICTURE[1])]
            row = [*corners, [1, 5, 90].index(entry["category_id"])]
            if min(w, h) >= 1 and row not in expected:
                expected.append(row)
        np.testing.assert_allclose(
            data.load_annotations(index), np.array(expected).reshape(-1, 5), atol=1e-9
        )


# ---- boxes ----

tables = st.lists(a_box, min_size=1, max_size=5).map(lambda boxes: torch.tensor(boxes).double())
shift = st.floats(-1000, 1000)


@share
@given(tables, tables, shift, shift, st.floats(0.01, 100))
def test_iou_is_symmetric_and_knows_no_place_and_no_unit(
    some: Tensor, others: Tensor, x: float, y: float, scale: float
) -> None:
    iou = pairwise_iou(some, others)
    assert ((iou >= 0) & (iou <= 1)).all()
    torch.testing.assert_close(iou, pairwise_iou(others, some).T)
    torch.testing.assert_close(pairwise_iou(some, some).diagonal(), torch.ones(len(some)).double())
    moved = [boxes * scale + torch.tensor([x, y, x, y]).double() for boxes in (some, others)]
    torch.testing.assert_close(pairwise_iou(*moved), iou, atol=1e-7, rtol=1e-7)


@share
@given(tables, shift, shift, st.integers(1, 200), st.integers(1, 200))
def test_clipped_boxes_lie_inside_and_stay(
    boxes: Tensor, x: float, y: float, height: int, width: int
) -> None:
    clipped = clip_boxes(boxes + torch.tensor([x, y, x, y]), height, width)
    assert (clipped >= 0).all()
    assert (clipped <= torch.tensor([width, height, width, height])).all()
    assert (clipped[:, 2:] >= clipped[:, :2]).all()
    assert torch.equal(clip_boxes(clipped, height, width), clipped)


# ---- resizing and flipping ----

length = st.integers(1, 90)


@share
@given(length, length, st.integers(1, 70), st.integers(0, 130), st.randoms(use_true_random=False))
def test_boxes_find_their_way_back_to_the_file(
    height: int, width: int, min_side: int, more: int, rng: Any
) -> None:
    """What was resized, flipped or not, and is seen as detections, is what was annotated."""
    xs, ys = (sorted(rng.uniform(0, end) for _ in range(2)) for end in (width, height))
    box = torch.tensor([[xs[0], ys[0], xs[1], ys[1], 1.0]])
    sample = {"img": torch.zeros(height, width, 3, dtype=torch.uint8), "annot": box}
    resizer, flip = Resizer(min_side, min_side + more), lambda s: Augmenter()(s, flip_x=1.0)
    for steps in ((resizer,), (flip, flip, resizer), (flip, resizer, flip), (resizer, flip, flip)):
        seen: Any = sample
        for step in steps:
            seen = step(seen)
        found = Detections(torch.ones(1), torch.ones(1).long(), seen["annot"][:, :4])
        torch.testing.assert_close(to_original(found, seen).boxes, box[:, :4], atol=1e-3, rtol=0)


# ---- evaluation ----


def detections(data: CocoDataset, rng: Any) -> list[Detections]:
    """Some exact, some near, some anywhere; scores of few values, so that many are equal."""
    found = []
    for index in range(len(data)):
        boxes = []
        for entry in data.coco.imgToAnns[data.image_id(index)]:
            x, y, w, h = entry["bbox"]
            for _ in range(rng.randrange(4)):
                dx, dy = (rng.choice((0, 0, 1, -2, w / 3)) for _ in range(2))
                label = rng.choice((data.coco_labels_inverse[entry["category_id"]], 0))
                boxes.append((x + dx, y + dy, x + dx + w, y + dy + h, rng.randrange(1, 5), label))
        boxes += [(5, 5, 50, 70, rng.randrange(1, 5), rng.randrange(3))] * rng.randrange(3)
        table = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 6)
        found.append(Detections(table[:, 4] / 5, table[:, 5].long(), table[:, :4]))
    return found


def pycocotools_says(file: Path, data: CocoDataset, found: list[Detections]) -> list[float]:
    """The twelve numbers of COCO's own program, given the files as people give them."""
    results = [
        {
            "image_id": data.image_id(index),
            "category_id": data.category_id(int(label)),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        for index, one in enumerate(found)
        for score, label, (x1, y1, x2, y2) in zip(*(c.tolist() for c in one), strict=True)
    ]
    with redirect_stdout(io.StringIO()):
        truth = COCO(file)
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(evaluation.stats)


@pytest.mark.parametrize("evaluator", ["pycocotools", "hotcoco"])
@settings(share, max_examples=40)
@given(annotations=st.lists(annotation, max_size=10), rng=st.randoms(use_true_random=False))
def test_scores_are_those_of_pycocotools(
    pictures: Path, evaluator: str, annotations: Any, rng: Any
) -> None:
    if evaluator == "hotcoco":
        pytest.importorskip("hotcoco")
    data = coco_data(pictures, annotations)
    found = detections(data, rng)
    with pytest.MonkeyPatch.context() as patch:
        if evaluator == "pycocotools":
            patch.setitem(sys.modules, "hotcoco", None)  # which makes its import fail
        scores = score_coco(data, found).stats
    if sum(len(one.scores) for one in found):
        expected = pycocotools_says(pictures / "coco/annotations/instances_val.json", data, found)
        assert list(scores.values()) == pytest.approx(expected, abs=1e-12)
    else:  # which pycocotools cannot read
        assert set(scores.values()) <= {0.0, -1.0}
    assert tuple(scores) == STATS


# ---- found by all this ----


@pytest.mark.parametrize(
    "row", ['a.png,1,2,9,9,"big, bad wolf" ', '"a.png" ,1 ,2,9,9, "big, bad wolf"']
)
def test_a_space_behind_quotes_that_hold_a_comma(pictures: Path, row: str) -> None:
    """It was taken for a quote that is not closed."""
    (pictures / "rows.csv").write_text(row + "\n")
    assert CSVDataset(pictures / "rows.csv", CLASSES).load_annotations(0).tolist() == [
        [1, 2, 9, 9, 2]
    ]
    (pictures / "classes.csv").write_text('"big, bad wolf" , 0\n')
    assert read_classes(pictures / "classes.csv") == {"big, bad wolf": 0}
