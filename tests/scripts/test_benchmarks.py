"""The benchmarks compare equals, and every one of them runs. No test looks at a time."""

import mmap
import os
import re
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks import __main__
from benchmarks.scale import annotations, coco_open, formats, growth, records
from benchmarks.sides import cases, measure, plain, plain_detection
from benchmarks.sides.measure import Row
from benchmarks.speed import (
    convolutions,
    detection,
    evaluation,
    evaluators,
    loss,
    memory,
    profile,
    sample,
    startup,
    step,
)
from retinanet.anchors import image_anchors
from retinanet.data.image_sizes import read_sizes
from retinanet.data.problems import Problems
from retinanet.data.transforms import evaluation_transform
from retinanet.inference.image_folder import ImageFiles
from retinanet.model import RetinaNet, resnet18, resnet50
from retinanet.runtime.device import start_runtime
from retinanet.runtime.distributed import global_batch
from retinanet.training.loss_log import LossLog
from retinanet.training.optim import OptimConfig
from retinanet.training.run_log import RunLog
from retinanet.training.trainer import Training
from tests.support.helpers import ruled_images, take_ruled_weights, worst_match
from tests.support.narrow import narrow_network
from tests.support.paths import ROOT

pytestmark = pytest.mark.usefixtures("narrow")
TINY = ["--side", "64", "--depth", "18", "--repeats", "1"]
BOXES = torch.tensor(
    [
        [[10.0, 12, 50, 60, 0], [30, 5, 90, 33, 2], [40, 40, 40.5, 70, 1]],  # one thinner than 1 px
        [[-1.0] * 5] * 3,  # no box
        [[20.0, 20, 28, 28, 1], [-1.0] * 5, [-1.0] * 5],  # too small for any anchor
    ]
)


@pytest.fixture(params=[resnet18, resnet50], ids=["basic blocks", "bottlenecks"])
def model(request: pytest.FixtureRequest) -> RetinaNet:
    """A model with the weights of the reference values, which find many things."""
    made = request.param(num_classes=3)
    take_ruled_weights(made)
    made.freeze_bn()
    return made


def pixels(count: int) -> Tensor:
    """Images [count, 3, 64, 96]."""
    return torch.cat((ruled_images(3, 64, 96), ruled_images(4, 64, 96)))[:count]


# ---- the plain loop is equal to ours


@pytest.mark.parametrize("size", [(64, 96), (65, 97)])
def test_plain_anchors_are_ours(size) -> None:
    assert np.allclose(plain.anchors(*size), image_anchors(*size).numpy(), atol=1e-4)


def test_plain_losses_are_ours(model) -> None:
    expected = plain.losses(plain.PlainRetinaNet(model), pixels(3), BOXES)
    found = model([pixels(3), BOXES])
    for ours, theirs in zip(found, expected, strict=True):
        assert theirs > 0
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-4)


def assert_same_values(
    found: nn.Module, expected: nn.Module, of: Callable[[Tensor], Tensor]
) -> None:
    """Compare something of all parameters, relative to the largest value of each."""
    pairs = zip(found.named_parameters(), expected.parameters(), strict=True)
    for (name, ours), theirs in pairs:
        scale = of(theirs).abs().max().item()
        assert torch.allclose(of(ours), of(theirs), rtol=0, atol=1e-5 * scale), name


# In float64: in float32 a unit whose sum is nearly 0 may pass its ReLU on one side only.
def test_plain_gradients_are_ours(model) -> None:
    plainly = plain.PlainRetinaNet(model.double())
    sum(plain.losses(plainly, pixels(3).double(), BOXES)).backward()
    sum(model([pixels(3).double(), BOXES])).backward()
    assert_same_values(model, plainly.net, lambda parameter: parameter.grad)


# By gradient descent: Adam's first step is the gradient's sign, and rounding has a sign too.
def test_plain_step_is_ours(model) -> None:
    plainly = plain.PlainRetinaNet(model.double())
    images = pixels(3).double()
    training = Training(
        model,
        start_runtime("cpu", "fp32"),
        OptimConfig(),
        LossLog(RunLog(), Path, skips_overflow=False),
    )
    training.optimizer = torch.optim.SGD(model.parameters(), lr=1.0, fused=True)
    theirs = torch.optim.SGD(plainly.parameters(), lr=1.0)
    model.train()
    model.freeze_bn()
    joint = global_batch(*images.shape[-2:], len(images), stop=False)
    losses = training.train_step({"img": images, "annot": BOXES}, joint)
    loss = plain.train_step(plainly, theirs, images, BOXES)
    assert losses[:2].sum().item() == pytest.approx(loss, rel=1e-6)
    assert_same_values(model, plainly.net, lambda parameter: parameter)


def test_plain_detections_are_ours(model) -> None:
    image = pixels(1)
    with torch.no_grad():
        ours = model.eval()(image)
    plainly = plain_detection.detect(plain.PlainRetinaNet(model), image)
    assert len(plainly.scores) == len(ours[0]) > 100
    assert worst_match(plainly, ours) < 1e-3
    assert worst_match(ours, plainly) < 1e-3


def test_plain_detection_of_nothing() -> None:
    found = plain_detection.detect(plain.PlainRetinaNet(resnet18(num_classes=3)), pixels(1))
    assert [tuple(column.shape) for column in found] == [(0,), (0,), (0, 4)]


def test_plain_detections_stay_inside_the_picture(model) -> None:
    found = plain_detection.detect(plain.PlainRetinaNet(model), pixels(1), size=(50, 70))
    assert found.boxes.min() == 0
    assert found.boxes.amax(dim=0)[2:].tolist() == [70, 50]


def test_plain_sample_is_ours(tmp_path) -> None:
    path = sample.photograph(tmp_path)
    ours = ImageFiles(path, evaluation_transform(min_side=300, max_side=1000))[0]
    plainly = plain_detection.read_sample(path, min_side=300, max_side=1000)
    assert ours["img"].shape == plainly["img"].shape == (320, 416, 3)  # 300 x 400, padded
    for key in ("size", "original_size", "scale"):
        assert ours[key] == plainly[key]
    # Not quite the same filter; the deviation of the whole is 1.
    assert (ours["img"] - plainly["img"]).abs().mean() < 0.05
    assert plainly["img"][300:].abs().max() == 0


def test_both_focal_losses_are_equal() -> None:
    assert loss.ours(64)() == pytest.approx(loss.theirs(64)(), rel=1e-3)
    assert loss.theirs(64, from_labels=True)() == pytest.approx(loss.theirs(64)(), rel=1e-6)


def test_every_convolution_is_recorded_and_run() -> None:
    calls = convolutions.recorded(64, 18, torch.bfloat16)
    model = resnet18(num_classes=80)
    heads = 4 + 4 + 2  # their layers are run on each of five levels
    layers = sum(isinstance(module, nn.Conv2d) for module in model.modules())
    assert len(calls) == layers + (5 - 1) * heads
    # P7's convolution alone is float32 on purpose.
    assert sorted(str(call.x.dtype) for call in calls)[-2:] == ["torch.bfloat16", "torch.float32"]
    convolutions.run(calls)


def test_so_many_candidates_pass() -> None:
    output = nn.Conv2d(8, 20, 1)
    x = torch.randn(1, 8, 30, 30, generator=torch.Generator().manual_seed(0))
    cases.let_pass(output, lambda: output(x), candidates=100)
    assert 95 <= (output(x).sigmoid() > 0.05).sum() <= 100


@pytest.mark.parametrize("name", formats.KINDS)
def test_boxes_of_both_sides_are_equal_in_every_format(tmp_path, name) -> None:
    root = formats.write(tmp_path / name, name, 4)
    opened, plainly = formats.ours(root, name), formats.plainly(root, name)
    found = [row.tolist() for k in range(4) for row in opened.load_annotations(k)]
    expected = [row for _, rows in formats.images(4) for row in rows]
    np.testing.assert_allclose(found, expected, atol=1e-3)  # YOLO's numbers have six digits
    parts = plainly[0] if name in ("coco", "csv") else [box for file in plainly for box in file]
    assert len(parts) == len(found) == 4 * 10


def test_annotations_of_both_sides_are_equal(tmp_path) -> None:
    path = annotations.write_rows(tmp_path / "rows.csv", 50)
    found, table = annotations.ours(path), annotations.theirs(path)
    assert len(found.names) == 5
    expected = table.assign(label=table[5].map(annotations.CLASSES))[[1, 2, 3, 4, "label"]]
    assert found.boxes.tolist() == expected.to_numpy().tolist()


def test_coco_of_both_sides_is_equal(tmp_path) -> None:
    root = coco_open.write_coco(tmp_path, 20, 160)
    found, expected = coco_open.ours(root), coco_open.theirs(root)
    assert len(found) == len(expected.imgs) == 20
    assert found.class_names == tuple(entry["name"] for entry in expected.cats.values())
    entries = list(expected.anns.values())
    assert sum(entry["iscrowd"] for entry in entries) == 2  # of 160, every 80th
    objects = found.objects()
    assert (objects.images + 1).tolist() == [entry["image_id"] for entry in entries]
    assert objects.boxes.tolist() == [entry["bbox"] for entry in entries]
    assert len(coco_open.CocoDataset(root, "val2017").objects().images) == 7  # of 160, a 24th


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_private_memory_is_what_this_process_has_taken() -> None:
    before = coco_open.private_memory(os.getpid())
    # Of the system itself: a bytearray may be of memory that this process had before.
    taken = mmap.mmap(-1, 100_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for page in range(0, len(taken), mmap.PAGESIZE):
        taken[page] = 1
    assert coco_open.private_memory(os.getpid()) - before > 0.9 * len(taken)


def test_sizes_of_both_sides_are_equal(tmp_path) -> None:
    images = annotations.write_images(tmp_path, 3)
    expected = [(annotations.HEIGHT, annotations.WIDTH)] * 3
    assert annotations.one_by_one(images) == expected
    assert read_sizes(images, np.zeros(3, int), Problems("rows.csv")) == expected


# ---- measuring


def test_sides_run_by_turns() -> None:
    order = []
    sides = {name: lambda name=name: order.append(name) for name in "ab"}
    assert set(measure.medians(sides, repeats=2, warm_up=1)) == {"a", "b"}
    assert order == ["a", "b"] * 3


@pytest.mark.parametrize(
    ("row", "cells"),
    [
        # A target for how much faster: the other side over ours.
        (Row("x", 0.5, 2.0, faster=3), ("0.5 s", "2 s", "4.00x faster", ">= 3x faster")),
        # A target for how much more: ours over the other side.
        (Row("x", 3e8, 4e8, within=0.9, unit="MB"), ("300 MB", "400 MB", "0.75x", "<= 0.9x")),
        # No target.
        (Row("x", 0.002, 0.001, unit="ms"), ("2 ms", "1 ms", "0.50x faster", "-")),
    ],
)
def test_a_row_shows_both_sides_and_their_ratio(row, cells) -> None:
    assert row.cells() == ("x", *cells)


def allocation(megabytes):
    """A function that uses this much memory for a moment."""
    return lambda: bytearray(megabytes * 10**6).count(1)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_peak_memory_counts_what_is_freed_again() -> None:
    assert 90e6 < measure.peak_memory(allocation, 100) < 120e6


# ---- all of them, small


def run_here(make, *args):
    """Instead of `peak_memory`, which takes a process: run what it would measure."""
    make(*args)()
    return 1


@pytest.mark.parametrize(
    ("benchmark", "flags"),
    [
        (step, []),
        (convolutions, ["--precision", "fp32"]),
        (loss, []),
        (sample, []),
        (detection, []),
        (evaluation, ["--count", "3"]),
        (memory, []),
        (annotations, ["--rows", "50", "--images", "4", "--boxes", "50"]),
        (records, ["--records", "50"]),
        (formats, ["--images", "3"]),
        (evaluators, ["--images", "3"]),
        pytest.param(coco_open, ["--images", "30", "--boxes", "90"], marks=pytest.mark.slow),
        pytest.param(startup, [], marks=pytest.mark.slow),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_benchmark_prints_its_table(benchmark, flags, capsys, monkeypatch) -> None:
    for module in (annotations, coco_open, formats, loss, memory, records):
        monkeypatch.setattr(module, "peak_memory", run_here)
    benchmark.main(TINY + flags)
    printed = capsys.readouterr().out
    assert "| what | ours | other | ratio | target |" in printed
    assert "cores, torch" in printed
    if benchmark is evaluation:
        assert "on the same pixels: at most 0.000000 apart" in printed


@pytest.mark.slow  # a process for each row
def test_growth_prints_a_row_for_each_size(capsys) -> None:
    with narrow_network(divisor=1):  # as in the processes that it starts
        sizes = "--photographs 1 2 --megapixels 1 --boxes 3 --frames 2 --stream 3"
        growth.main([*TINY, *sizes.split()])
    rows = capsys.readouterr().out.splitlines()[2:9]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[1] for row in cells] == ["1", "2", "1", "1", "3", "2", "3"]
    assert [row[2] for row in cells[:2]] == ["10", "20"]
    assert [row[2] for row in cells[4:]] == ["3", "20", "30"]
    assert all(float(row[3]) > 0 and float(row[4]) > 0 for row in cells)


def test_profile_prints_its_groups(capsys) -> None:
    profile.main([*TINY, "--precision", "fp32"])
    printed = capsys.readouterr().out
    for group in ("convolutions, backward", "loss", "optimizer and clipping", "**together**"):
        assert f"| {group} |" in printed
    profile.main([*TINY, "--of", "plain"])
    printed = capsys.readouterr().out
    assert "| aten::convolution_backward |" in printed
    assert "plain, precision fp32, on " in printed
    profile.main([*TINY, "--of", "detection", "--precision", "fp32"])
    printed = capsys.readouterr().out
    assert "| convolutions, forward |" in printed
    assert "| convolutions, backward |" not in printed


def test_evaluation_of_own_images_needs_their_classes(capsys) -> None:
    with pytest.raises(SystemExit):
        evaluation.main(["--csv", "val.csv"])
    assert "--csv and --classes go together" in capsys.readouterr().err


def test_all_are_listed(capsys) -> None:
    assert __main__.main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in __main__.NAMES)


def test_every_documented_command_is_there() -> None:
    """A command names no folder: `python -m benchmarks.step` is benchmarks/speed/step.py."""
    pages = (ROOT / "benchmarks/README.md", ROOT / "README.md", *ROOT.glob("docs/*.md"))
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    named = set(re.findall(r"(?<![\w/])benchmarks\.([a-z_]+)", text))
    assert {"step", "learning", "torchvision_run"} <= named
    for name in named | set(__main__.NAMES):
        assert find_spec(f"benchmarks.{name}"), name


def test_unknown_name(capsys) -> None:
    assert __main__.main(["steps", "--side", "64"]) == 2
    assert "no benchmark is called steps" in capsys.readouterr().err
