"""A network that learned 20-px objects on single tiles finds them on a sheet of 24 megapixels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.ops import box_iou

import retinanet
import train
from retinanet.inference.detector import Result

TILE = 128
NAMES = ("diamond", "disc")
Row = tuple[int, int, int, int, int]  # x1, y1, x2, y2, label
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("narrow")]


def render(height: int, width: int, count: int, seed: int) -> tuple[NDArray[np.uint8], list[Row]]:
    """Diamonds and discs of 17 to 23 pixels, 4 apart at least, on clouds and noise."""
    rng = np.random.default_rng(seed)
    clouds = rng.normal(128, 25, (height // 8 + 1, width // 8 + 1, 3)).clip(0, 255)
    image = np.asarray(Image.fromarray(clouds.astype(np.uint8)).resize((width, height)), np.int16)
    image = image + rng.normal(0, 8, (height, width, 1)).astype(np.int16)
    taken = np.zeros((height, width), bool)
    rows: list[Row] = []
    while len(rows) < count:
        side = int(rng.integers(17, 24))
        x, y = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
        if taken[max(y - 4, 0) : y + side + 4, max(x - 4, 0) : x + side + 4].any():
            continue
        taken[y : y + side, x : x + side] = True
        label = int(rng.integers(2))
        dy, dx = np.mgrid[:side, :side] - (side - 1) / 2
        inside = dx**2 + dy**2 <= (side / 2) ** 2 if label else abs(dx) + abs(dy) <= side / 2
        dark = rng.random() < 0.5
        colour = rng.integers(0, 60, 3) if dark else rng.integers(200, 256, 3)
        image[y : y + side, x : x + side][inside] = colour
        rows.append((x, y, x + side, y + side, label))
    return image.clip(0, 255).astype(np.uint8), rows


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A checkpoint of a network trained on 400 single tiles."""
    lines = []
    for k in range(400):
        image, rows = render(TILE, TILE, k % 9, k)
        Image.fromarray(image).save(tmp_path / f"{k}.png")
        lines += [f"{k}.png,{x1},{y1},{x2},{y2},{NAMES[c]}\n" for x1, y1, x2, y2, c in rows]
        lines += [f"{k}.png,,,,,\n"] * (not rows)
    (tmp_path / "train.csv").write_text("".join(lines))
    (tmp_path / "classes.csv").write_text("diamond,0\ndisc,1\n")
    flags = ["--dataset", "csv", "--csv_train", str(tmp_path / "train.csv")]
    flags += ["--csv_classes", str(tmp_path / "classes.csv"), "--depth", "18", "--weights", "none"]
    flags += ["--batch_norm", "trained", "--schedule", "cosine", "--lr", "1e-3", "--warmup", "50"]
    flags += ["--epochs", "12", "--min_side", str(TILE), "--max_side", str(TILE), "--workers", "0"]
    flags += ["--anchor_sizes", "16", "32", "64", "128", "256", "--batch_size", "8"]
    flags += ["--precision", "fp32", "--log_every", "100", "--keep", "1"]
    assert train.main([*flags, "--output_dir", str(tmp_path / "run")]) == 0
    return tmp_path / "run/model_final.pt"


def hits(result: Result, rows: list[Row]) -> NDArray[np.int64]:
    """[objects] how many detections of its class each has, at an IoU of 0.5."""
    truth = torch.tensor(rows)
    overlap = box_iou(truth[:, :4].float(), torch.from_numpy(result.boxes)) > 0.5
    count: NDArray[np.int64] = (
        (overlap & (truth[:, 4:] == torch.from_numpy(result.labels))).sum(dim=1).numpy()
    )
    return count


def test_what_single_tiles_show_a_sheet_shows_once(model: Path) -> None:
    sheet, rows = render(4000, 6000, 600, 1000)
    single = retinanet.load(model, "cpu", score_threshold=0.3, batch_size=16)
    tiles, places = [], []
    for x1, y1, x2, y2, label in rows:  # a tile around each object
        left = min(max((x1 + x2 - TILE) // 2, 0), 6000 - TILE)
        top = min(max((y1 + y2 - TILE) // 2, 0), 4000 - TILE)
        tiles.append(sheet[top : top + TILE, left : left + TILE])
        places.append((x1 - left, y1 - top, x2 - left, y2 - top, label))
    alone = [
        hits(result, [place])[0] > 0
        for (_, result), place in zip(single.stream(tiles), places, strict=True)
    ]
    assert np.mean(alone) > 0.8  # it has learned something

    detector = retinanet.load(model, "cpu", score_threshold=0.3, tile=TILE, tile_overlap=0.3)
    detector.batch_size = 16
    result = detector(sheet)
    found = hits(result, rows)
    assert np.mean(found > 0) >= 0.95 * np.mean(alone)
    assert found.max() == 1
    detector.batch_size = 5
    again = detector(sheet)
    np.testing.assert_allclose(again.boxes, result.boxes, atol=1e-3)
    np.testing.assert_allclose(again.scores, result.scores, atol=1e-5)
