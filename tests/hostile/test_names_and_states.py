"""Names, states and other projects' files made to do harm, given to the scripts."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import train
import validate
import visualize
from retinanet.tools import convert
from tests.support.hostile import (
    QUICK,
    TRAIN,
    Inputs,
    coco,
    files,
    png,
    refusal,
    run,
    training,
)
from tests.support.zips import saved

pytestmark = pytest.mark.usefixtures("narrow")


# ---- names ----


@pytest.mark.parametrize("flag", ["--csv_train", "--csv_classes", "--output_dir", "--weights"])
def test_flags_that_would_break_lines(good: Inputs, tmp_path: Path, flag: str) -> None:
    ended = run(train.main, [*training(good), *TRAIN, flag, "a\nb\x1b[31m.csv"], tmp_path / "out")
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert r"a\nb\x1b[31m.csv holds control characters; rename the file" in ended.err
    assert files(tmp_path / "out") == []


def test_image_names_that_are_no_text(good: Inputs, tmp_path: Path) -> None:
    """As unpacked from an old archive: Latin-1 bytes on a system of UTF-8."""
    name = os.fsdecode(b"K\xe4fer.jpg")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / name).write_bytes((good.folder / "good.jpg").read_bytes())
    flags = [good.model, "--image_dir", tmp_path / "photos", *QUICK]
    ended = run(visualize.main, flags, tmp_path / "out")
    assert (ended.code, ended.err) == (0, "")
    assert files(tmp_path / "out") == ["detections", f"detections/{name}"]


def test_image_names_that_would_break_lines_of_the_result(good: Inputs, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    image = tmp_path / "photos" / "two\nlines \x1b[2J.jpg"
    image.write_bytes((good.folder / "good.jpg").read_bytes())
    flags = [good.model, "--image_dir", tmp_path / "photos", *QUICK]
    _, *found, _ = run(visualize.main, flags, tmp_path / "out").out.splitlines()
    assert found
    assert all(line.startswith(rf"{tmp_path}/photos/two\nlines \x1b[2J.jpg: ") for line in found)


def test_a_picture_wider_than_a_jpeg_can_be_is_drawn_smaller(good: Inputs, tmp_path: Path) -> None:
    (tmp_path / "wide.png").write_bytes(png(131_000, 4))
    flags = [good.model, "--image_dir", tmp_path / "wide.png", *QUICK]
    ended = run(visualize.main, flags, tmp_path / "out")
    assert (ended.code, ended.err) == (0, "")
    with Image.open(tmp_path / "out/detections/wide.jpg") as drawn:
        assert drawn.size == (65_500, 2)


# ---- memory ----


def test_too_little_memory_is_said(good: Inputs, tmp_path: Path) -> None:
    content = torch.load(good.model, weights_only=True)
    file = tmp_path / "large.pt"
    file.write_bytes(saved({**content, "min_side": 50_000, "max_side": 50_000}))
    error = refusal(validate.main, [file, "--csv_val", good.csv, *QUICK], tmp_path / "out")
    assert "error: out of memory; lower --batch_size, --max_side or --workers" in error


def doubled(inner: object) -> Any:
    """A list of 2^40 ends, forty lists long."""
    for _ in range(40):
        inner = [inner, inner]
    return inner


@pytest.mark.parametrize(
    ("source", "content"),
    [
        ("detectron2", b"\x80\x02]r\xff\xff\xff\x0f."),  # a memo with 268 million places
        ("detectron2", pickle.dumps({"model": {"a": doubled([])}}, 2)),
        ("mmdetection", saved({"meta": {"config": doubled([])}, "state_dict": {}})),
        ("odtk", saved({"ratios": doubled([])})),
    ],
    ids=["memo", "doubled", "doubled configuration", "doubled ratios"],
)
def test_small_files_of_other_projects_that_grow(
    tmp_path: Path, source: str, content: bytes
) -> None:
    file = tmp_path / ("evil.pkl" if source == "detectron2" else "evil.pt")
    file.write_bytes(content)
    error = refusal(convert.main, ["--from", source, file, "out.pt"], tmp_path / "out")
    assert f"{file.name}: " in error


# ---- states ----


@pytest.fixture(scope="module")
def state(good: Inputs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of a finished run."""
    folder = tmp_path_factory.mktemp("run")
    ended = run(train.main, [*training(good), *TRAIN], folder / "run")
    assert ended.code == 0, ended
    content: dict[str, Any] = torch.load(folder / "run/training_state.pt", weights_only=True)
    return content


@pytest.mark.parametrize(
    "changes",
    [
        {"version": None},
        {"settings": [1]},
        {"best": "high"},
        {"weights": {}},
        {"optimizer": 5},
        {"epoch": 0.5},
        {"running": ["x"]},
        {"unreadable": 5},
        {"network": [1]},
    ],
    ids=str,
)
def test_damaged_states(
    good: Inputs,
    state: dict[str, Any],
    tmp_path: Path,
    changes: dict[str, Any],
) -> None:
    file = tmp_path / "training_state.pt"
    file.write_bytes(saved({**state, **changes}))
    flags = [*training(good), *TRAIN, "--epochs", "2", "--resume", file]
    assert "state" in refusal(train.main, flags, tmp_path / "out")


# ---- COCO ----


LARGE = (2**53 + 1, 2**63 + 1, 10**400)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("images.0.id annotations.0.image_id", "one"),
        *(("images.0.id annotations.0.image_id", value) for value in LARGE),
        *(("categories.0.id annotations.0.category_id", value) for value in LARGE),
    ],
    ids=lambda value: str(value)[:20],
)
def test_ids_that_are_no_small_numbers(
    good: Inputs, tmp_path: Path, entry: str, value: object
) -> None:
    # The other category would come behind it.
    changes = dict.fromkeys(entry.split(), value) | {"categories.1.id": 10**401}
    root = coco(tmp_path / "coco", changes)
    ended = run(validate.main, [good.model, "--coco_path", root, *QUICK], tmp_path / "out")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.count("Average Precision") == 6
