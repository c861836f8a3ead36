"""The learning rate of every step, worked out by hand and by torch's own schedules."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import train
from retinanet.cli.flags import learning_settings
from retinanet.training.optim import OPTIMIZERS, OptimConfig
from tests.support.paths import ROOT

RECIPES = sorted((ROOT / "recipes").glob("*.args"))


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0.25),  # 1/4 of the warm-up, cos(0) = 1
        (3, (1 + math.cos(math.pi * 3 / 12)) / 2),  # warmed up
        (6, 0.5),  # half way: cos(pi / 2) = 0
        (12, 0.0),
    ],
)
def test_rate_warms_up_then_falls_as_a_cosine(step: int, rate: float) -> None:
    optim = OptimConfig(1.0, schedule="cosine", warmup=4, steps=12)
    assert optim.lr_at(step) == pytest.approx(rate, abs=1e-12)


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 0.5), (1, 1), (7, 1), (8, 0.1), (10, 0.1), (11, 0.01), (12, 0.01)]
)
def test_steps_are_those_of_twelve_epochs(step: int, rate: float) -> None:
    optim = OptimConfig(1.0, schedule="step", warmup=2, steps=12)
    assert optim.lr_at(step) == pytest.approx(rate)


def test_cosine_without_warm_up_is_torchs() -> None:
    optim = OptimConfig(0.3, schedule="cosine", steps=50)
    optimizer = torch.optim.SGD([torch.zeros(1)], 0.3)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50)
    for step in range(50):
        assert optim.lr_at(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_are_torchs(name: str) -> None:
    """Three steps of ours and of torch's plain one, gradient 2x, decay 0.1."""
    kinds = {
        "adam": lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.1),
        "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1),
    }
    ours, theirs = (torch.tensor([1.0, -3.0], requires_grad=True) for _ in range(2))
    optim = OptimConfig(0.1, optimizer=name, weight_decay=0.1)
    optimizers = (optim.make_optimizer([ours]), kinds[name]([theirs]))
    for _ in range(3):
        for x, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            x.square().sum().backward()
            optimizer.step()
    assert not torch.equal(ours.detach(), torch.tensor([1.0, -3.0]))
    torch.testing.assert_close(ours, theirs)


@pytest.fixture
def dirty_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Memory that nobody has written to holds NaN."""
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.usefixtures("dirty_memory")
def test_a_skipped_first_step_leaves_no_trace(name: str) -> None:
    """As in float16, where the loss's first scales overflow; then two steps with gradient 2x."""
    skips, counts = (torch.tensor([1.0, -3.0], requires_grad=True) for _ in range(2))
    optim = OptimConfig(0.1, optimizer=name, weight_decay=0.1)
    optimizers = optim.make_optimizer([skips]), optim.make_optimizer([counts])
    skips.grad = torch.full((2,), math.inf)
    optimizers[0].found_inf = torch.ones(())  # type: ignore[attr-defined]
    optimizers[0].step()
    assert skips.tolist() == [1, -3]
    for _ in range(2):
        for x, optimizer in zip((skips, counts), optimizers, strict=True):
            optimizer.found_inf = torch.zeros(())  # type: ignore[attr-defined]
            optimizer.zero_grad()
            x.square().sum().backward()
            optimizer.step()
    assert counts[0] < 1
    assert torch.equal(skips, counts)


def test_the_defaults_are_the_originals_recipe() -> None:
    data = ["--dataset", "csv", "--csv_train", "a.csv", "--csv_classes", "c.csv"]
    given = vars(train.parse([*data, f"@{RECIPES[0].with_name('original.args')}"]))
    assert given == vars(train.parse(data))


def test_the_samples_defaults_are_the_recipe_from_scratch() -> None:
    """All but the matching: at the sample's size the thresholds of IoU reach its boxes."""
    data = ["--dataset", "csv", "--csv_train", "a.csv", "--csv_classes", "c.csv"]
    recipe = train.parse([*data, f"@{RECIPES[0].with_name('from-scratch.args')}"])
    sample = train.parse(["--dataset", "shapes", "--matching", "atss"])
    assert learning_settings(sample) == learning_settings(recipe)
    for name in ("weights", "depth", "batch_size"):
        assert vars(sample)[name] == vars(recipe)[name]


def test_a_file_of_flags_is_read_once() -> None:
    end, start = os.pipe()
    os.write(start, b"--lr 1e-3")
    os.close(start)
    assert train.parse(["--dataset", "shapes", f"@/dev/fd/{end}"]).lr == 1e-3


def test_the_sample_says_which_of_its_settings_stand(capsys: pytest.CaptureFixture[str]) -> None:
    train.parse(["--dataset", "shapes", "--lr", "1e-3", "--depth", "34"])
    said = capsys.readouterr().out
    assert "--epochs 3 --schedule cosine --warmup 100 --batch_norm trained" in said
    assert "--lr" not in said
    assert "--depth" not in said


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_flags(recipe: Path) -> None:
    data = ["--dataset", "csv", "--csv_train", "a.csv", "--csv_classes", "c.csv"]
    args = train.parse([*data, f"@{recipe}", "--epochs", "3"])  # a later flag counts
    assert args.epochs == 3


def test_warm_up_needs_a_schedule(capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--dataset", "csv", "--csv_train", "a.csv", "--csv_classes", "c.csv"]
    with pytest.raises(SystemExit):
        train.parse([*data, "--warmup", "10"])
    complaint = capsys.readouterr().err
    assert "--warmup 10 goes with --schedule cosine" in complaint
    assert "give --warmup 0" in complaint


@pytest.mark.parametrize("more", [["--weights", "none"], ["--batch_norm", "trained"]])
def test_layers_are_kept_only_of_trained_weights(more: list[str], capsys) -> None:
    data = ["--dataset", "csv", "--csv_train", "a.csv", "--csv_classes", "c.csv"]
    assert train.parse([*data, "--trainable_layers", "3"]).trainable_layers == 3
    with pytest.raises(SystemExit):
        train.parse([*data, *more, "--trainable_layers", "3"])
    complaint = capsys.readouterr().err
    assert f"with {' '.join(more)}" in complaint.replace("--weights imagenet ", "")
    assert "give --trainable_layers 5" in complaint


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("0.00", 0),
        ("1e-4", 1e-4),
        ("1", None),
        ("-0.1", None),
        ("nan", None),
        ("x", None),
    ],
)
def test_weight_decay_is_of_0_to_1(text: str, value: float | None, capsys) -> None:
    words = "--dataset csv --csv_train a.csv --csv_classes c.csv --weight_decay".split()
    if value is not None:
        assert train.parse([*words, text]).weight_decay == value
        return
    with pytest.raises(SystemExit):
        train.parse([*words, text])
    assert f"--weight_decay: {text!r} is not" in capsys.readouterr().err
