"""COCO's twelve numbers by hotcoco, against pycocotools on the same detections."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.sides.measure import Row, arguments, medians, show
from retinanet.data.annotations import Objects
from retinanet.evaluation.coco import CocoScores, score_coco
from retinanet.postprocess import Detections


class Labels:
    """Annotations and detections without any pictures: what the evaluation asks of a data set."""

    def __init__(self, truth: Any, results: Any) -> None:
        self.ids = [image["id"] for image in truth["images"]]
        self.categories = [category["id"] for category in truth["categories"]]
        self.class_names = tuple(map(str, self.categories))
        self._truth = truth["annotations"]
        self.found = [Detections(*columns) for columns in self._columns(results)]

    def __len__(self) -> int:
        return len(self.ids)

    def image_id(self, index: int) -> int:
        """COCO's number of an image."""
        return int(self.ids[index])

    def category_id(self, label: int) -> int:
        """COCO's number of a class."""
        return int(self.categories[label])

    def objects(self) -> Objects:
        """All annotations."""
        places = {image: index for index, image in enumerate(self.ids)}
        return Objects(
            images=np.array([places[row["image_id"]] for row in self._truth]),
            labels=np.array([self.categories.index(row["category_id"]) for row in self._truth]),
            boxes=np.array([row["bbox"] for row in self._truth], float),
            areas=np.array([row["area"] for row in self._truth], float),
            crowds=np.array([row["iscrowd"] for row in self._truth], bool),
        )

    def _columns(self, results: Any) -> list[tuple[torch.Tensor, ...]]:
        rows: dict[int, list[Any]] = {image: [] for image in self.ids}
        for one in results:
            rows[one["image_id"]].append(one)
        found: list[tuple[torch.Tensor, ...]] = []
        for ours in rows.values():
            boxes = torch.tensor([one["bbox"] for one in ours], dtype=torch.float64).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            labels = [self.categories.index(one["category_id"]) for one in ours]
            scores = torch.tensor([one["score"] for one in ours], dtype=torch.float64)
            found.append((scores, torch.tensor(labels, dtype=torch.int64), boxes))
        return found


def made_up(images: int, classes: int = 80) -> Labels:
    """COCO's numbers: 7 boxes an image, which 21 detections lie near, and 14 anywhere."""
    rng = np.random.default_rng(0)
    truth: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image in range(1, images + 1):
        boxes = np.column_stack((rng.uniform(0, 400, (7, 2)), rng.uniform(8, 200, (7, 2))))
        labels = rng.integers(1, classes + 1, 7)
        anywhere = np.column_stack((rng.uniform(0, 400, (14, 2)), rng.uniform(8, 200, (14, 2))))
        near = np.repeat(boxes, 3, axis=0) + rng.normal(0, 6, (21, 4))
        found = np.concatenate((near, anywhere))
        found[:, 2:] = np.maximum(found[:, 2:], 1)
        found_labels = np.concatenate((np.repeat(labels, 3), rng.integers(1, classes + 1, 14)))
        for label, box in zip(labels.tolist(), boxes.tolist(), strict=True):
            kind = {"category_id": label, "iscrowd": int(rng.random() < 0.01)}
            truth.append({"image_id": image, "bbox": box, "area": box[2] * box[3], **kind})
        for label, box in zip(found_labels.tolist(), found.tolist(), strict=True):
            score = float(rng.random())
            results.append({"image_id": image, "category_id": label, "bbox": box, "score": score})
    ids = {"images": images, "categories": classes}
    numbered = {kind: [{"id": k} for k in range(1, most + 1)] for kind, most in ids.items()}
    return Labels({**numbered, "annotations": truth}, results)


def oracle(folder: Path) -> Labels:
    """The detections that ship with COCO's own API."""
    truth = json.loads((folder / "instances_val2014_100.json").read_text())
    return Labels(
        truth, json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text())
    )


def by_pycocotools(data: Labels) -> CocoScores:
    """The scores where hotcoco is not installed."""
    installed = sys.modules.get("hotcoco")
    sys.modules["hotcoco"] = None  # type: ignore[assignment] # which makes its import fail
    try:
        return score_coco(data, data.found)  # type: ignore[arg-type]
    finally:
        if installed:
            sys.modules["hotcoco"] = installed
        else:
            del sys.modules["hotcoco"]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print; `--side` and `--depth` are unused."""
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--images", type=int, default=5000, help="made up (5000)")
    parser.add_argument("--oracle", type=Path, help="folder of COCO's own 100 images (left out)")
    args = parser.parse_args(argv)
    sets = {f"{args.images:,} images, 80 classes": made_up(args.images)}
    if args.oracle:
        sets["COCO's own 100 images"] = oracle(args.oracle)
    rows = []
    for name, data in sets.items():
        scores: dict[str, CocoScores] = {}

        def fast(data: Labels = data, scores: dict[str, CocoScores] = scores) -> None:
            scores["fast"] = score_coco(data, data.found)  # type: ignore[arg-type]

        def slow(data: Labels = data, scores: dict[str, CocoScores] = scores) -> None:
            scores["slow"] = by_pycocotools(data)

        seconds = medians({"fast": fast, "slow": slow}, args.repeats, clock=time.process_time)
        what = f"COCO's numbers of {name}, with what intervals need, CPU: pycocotools"
        rows.append(Row(what, seconds["fast"], seconds["slow"], faster=10))
        pairs = zip(scores["fast"].stats.values(), scores["slow"].stats.values(), strict=True)
        print(f"{name}: the twelve numbers differ by {max(abs(a - b) for a, b in pairs)}")
    show(rows)


if __name__ == "__main__":
    main()
