"""Reading and checking large data sets: CSV rows, headers of images, the digest before training."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from benchmarks.sides.measure import Function, Row, arguments, medians, peak_memory, show
from retinanet.data.annotations import Annotations
from retinanet.data.box_checks import CSV_READINGS, check_boxes
from retinanet.data.formats.csv_rows import read_annotations
from retinanet.data.image_sizes import read_sizes
from retinanet.data.near_duplicates import alike
from retinanet.data.problems import Problems
from retinanet.data_check.anchor_coverage import TrainingSetup
from retinanet.data_check.text import digest
from retinanet.model import ModelConfig

CLASSES = {"cat": 0, "dog": 1, "horse": 2, "person": 3}
BOXES_PER_IMAGE = 10
HEIGHT, WIDTH = 480, 640
GIGABYTE = 1e9


def boxes(count: int) -> NDArray[np.int64]:
    """[count, 5] boxes of 10 to 100 pixels and their labels."""
    rng = np.random.default_rng(0)
    corners = rng.integers(0, (WIDTH - 100, HEIGHT - 100), (count, 2))
    sides = rng.integers(10, 100, (count, 2))
    return np.hstack((corners, corners + sides, rng.integers(0, len(CLASSES), (count, 1))))


def write_rows(path: Path, count: int) -> Path:
    """A CSV file of so many boxes."""
    names = list(CLASSES)
    with path.open("w", encoding="ascii") as file:
        for k, (x1, y1, x2, y2, label) in enumerate(boxes(count).tolist()):
            file.write(f"images/{k // BOXES_PER_IMAGE:06}.jpg,{x1},{y1},{x2},{y2},{names[label]}\n")
    return path


def ours(path: Path) -> Annotations:
    """All that is done with the rows; finding the images and their sizes is not."""
    problems = Problems(path)
    _, data = read_annotations(path, CLASSES, problems)
    count = len(data.names)
    check_boxes(data, [path] * count, [(HEIGHT, WIDTH)] * count, CSV_READINGS, problems)
    problems.raise_if_any()
    return data


def theirs(path: Path) -> pd.DataFrame:
    """The same file into a table, and one look of numpy at its numbers."""
    table = pd.read_csv(path, header=None)
    x1, y1, x2, y2 = table.iloc[:, 1:5].to_numpy(float).T
    fits = (x1 >= 0) & (y1 >= 0) & (x2 <= WIDTH) & (y2 <= HEIGHT) & (x1 < x2) & (y1 < y2)
    assert fits.all()
    return table


def rows_of(path: Path) -> Function:
    """The reading, for `peak_memory`."""
    return lambda: ours(path)


def write_images(folder: Path, count: int) -> list[Path]:
    """So many JPEGs."""
    first = folder / "0.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((WIDTH, HEIGHT)).save(first)
    paths = [folder / f"{k}.jpg" for k in range(count)]
    for path in paths[1:]:
        path.write_bytes(first.read_bytes())
    return paths


def one_by_one(paths: Sequence[Path]) -> list[tuple[int, int]]:
    """Sizes by Pillow alone, one image after another."""
    sizes = []
    for path in paths:
        with Image.open(path) as image:
            sizes.append((image.height, image.width))
    return sizes


class ManyBoxes:
    """As much of a data set as `digest` looks at."""

    class_names = tuple(CLASSES)

    def __init__(self, count: int) -> None:
        self.boxes = boxes(count).astype(float)

    def __len__(self) -> int:
        return len(self.boxes) // BOXES_PER_IMAGE

    def num_classes(self) -> int:
        """K."""
        return len(CLASSES)

    def image_size(self, image_index: int) -> tuple[int, int]:
        """Mostly another one than that of the image before."""
        return HEIGHT + image_index % 50, WIDTH + image_index % 70

    def load_annotations(self, image_index: int) -> NDArray[np.float64]:
        """[M, 5]."""
        first = image_index * BOXES_PER_IMAGE
        return self.boxes[first : first + BOXES_PER_IMAGE].copy()


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print; `--side` and `--depth` are unused."""
    parser = arguments(__doc__, repeats=9)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the CSV file (1,000,000)")
    parser.add_argument("--images", type=int, default=10_000, help="JPEGs (10,000)")
    parser.add_argument("--boxes", type=int, default=100_000, help="of the digest (100,000)")
    args = parser.parse_args(argv)
    many = ManyBoxes(args.boxes)
    setup = TrainingSetup(608, 1024, ModelConfig(len(CLASSES)))
    with tempfile.TemporaryDirectory() as name:
        path = write_rows(Path(name) / "rows.csv", args.rows)
        images = write_images(Path(name), args.images)
        nothing = np.zeros(len(images), int)
        time = medians(
            {
                "ours": lambda: ours(path),
                "theirs": lambda: theirs(path),
                "in parallel": lambda: read_sizes(images, nothing, Problems(path)),
                "one by one": lambda: one_by_one(images),
                "alike": lambda: alike(images),
                "digest": lambda: digest(many, setup),  # type: ignore[arg-type]
            },
            args.repeats,
        )
        memory = peak_memory(rows_of, path)
    rows = f"{args.rows:,} CSV rows read and checked"
    show(
        [
            Row(f"{rows}: pandas, one pass of numpy", time["ours"], time["theirs"], within=3),
            Row("its peak memory: a limit of 1 GB", memory, GIGABYTE, within=1, unit="MB"),
            Row(
                f"sizes of {args.images:,} JPEGs: Pillow, one after another",
                time["in parallel"],
                time["one by one"],
            ),
            Row(
                f"near-duplicates among {args.images:,} JPEGs: a limit of 60 s",
                time["alike"],
                60,
                within=1,
            ),
            Row(f"digest of {args.boxes:,} boxes: a limit of 2 s", time["digest"], 2, within=1),
        ]
    )


if __name__ == "__main__":
    main()
