"""The benchmarks of learning: contenders, seeds, folds and figures. No test looks at a score."""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torchvision.models.detection.image_list import ImageList

import train
from benchmarks.accuracy import learning, torchvision_run
from benchmarks.sides.cases import torchvision_model
from retinanet.anchors import SIZES
from retinanet.data.datasets import CSVDataset
from retinanet.data.shapes import write_shapes
from retinanet.data.transforms import Resizer
from tests.support.narrow import narrow_network
from tests.support.paths import ROOT
from tests.support.processes import Forked

pytestmark = pytest.mark.usefixtures("narrow")


def test_torchvision_trains_on_our_data(tmp_path: Path) -> None:
    """A step, detections and scores, end to end."""
    data = write_shapes(tmp_path / "shapes", train_images=2, val_images=1)
    out = tmp_path / "scores.json"
    files = ["--csv_train", str(data.csv_train), "--csv_val", str(data.csv_val)]
    files += ["--csv_classes", str(data.csv_classes), "--weights", "none", "--output", str(out)]
    sizes = "--depth 18 --min_side 64 --max_side 96 --epochs 1 --batch_size 2 --seed 0".split()
    recipe = "--lr 1e-3 --schedule cosine".split()
    torchvision_run.main([*files, *sizes, *recipe])
    scores = json.loads(out.read_text())
    assert 0 <= scores["AP"] <= scores["AP50"] <= 1


def test_differences_of_a_table_are_paired_by_seed() -> None:
    """.5 - .4 and .7 - .4 are .2 in the mean, with a deviation of .1 * sqrt(2)."""
    seconds = {"AP50": 0.9, "CPU-seconds": 10.0}
    results = {
        "recipe": [{"AP": 0.5, **seconds}, {"AP": 0.7, **seconds}],
        "original": [{"AP": 0.4, **seconds}, {"AP": 0.4, **seconds}],
    }
    last = learning.table(results).splitlines()[-1]
    assert last == "| original | 2 | 0.400 | 0.900 | 10 | +0.200 (deviation 0.141) |"


def forked_here(words: Sequence[str], **more: object) -> None:
    """Instead of `subprocess.run`, which takes seconds of imports."""
    python, *program = words
    assert (python, more["cwd"]) == (sys.executable, ROOT)
    main, flags = (train.main, program[1:])
    if program[0] == "-m":
        assert program[1] == "benchmarks.torchvision_run"
        main, flags = (lambda words: torchvision_run.main(words) or 0), program[2:]
    code, _, errors = Forked(main, flags).end()
    assert code == 0, errors


@pytest.mark.parametrize("forked", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_learning_goes_on_where_it_stopped(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    forked: bool,
) -> None:
    """Ours and torchvision's learn from the same files; a figure that is there is not made anew."""
    if forked:
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(learning, "subprocess", SimpleNamespace(run=forked_here, DEVNULL=-1))
    data = write_shapes(tmp_path / "shapes", train_images=4, val_images=2)
    argv = ["--csv_train", str(data.csv_train), "--csv_val", str(data.csv_val), "--folds"]
    argv += ["--csv_classes", str(data.csv_classes), "--results", str(tmp_path / "results")]
    argv += "--weights none --depth 18 --min_side 64 --max_side 96 --epochs 1 --seeds 2".split()
    argv += "--recipe from-scratch --only recipe torchvision".split()
    kept = {"AP": 0.25, "AP50": 0.5, "CPU-seconds": 9.0}
    (tmp_path / "results").mkdir()
    for name in ("recipe-0", "torchvision-1"):
        (tmp_path / "results" / f"{name}.json").write_text(json.dumps(kept))
    with narrow_network(divisor=8 if forked else 1):
        learning.main(argv)
    printed = capsys.readouterr().out
    assert "recipe, seed 1: {'AP': " in printed
    assert "torchvision, seed 0: {'AP': " in printed
    assert "recipe, seed 0" not in printed
    assert "torchvision, seed 1" not in printed
    assert "| recipe | 2 | " in printed
    with pytest.raises(SystemExit, match="figures of other settings"):
        learning.main([*argv, "--epochs", "2"])


def test_a_third_of_the_epochs_must_be_whole(tmp_path: Path, capsys) -> None:
    argv = [f"--{name}=x.csv" for name in learning.FILES] + ["--weights=none", "--epochs=4"]
    with pytest.raises(SystemExit):
        learning.flags([*argv, f"--results={tmp_path}"])
    assert "--epochs 4 has no third; leave recipe-third out" in capsys.readouterr().err
    only = ["--only", "recipe", "original"]
    assert learning.flags([*argv, f"--results={tmp_path}", *only]).epochs == 4


def test_equal_seconds_are_a_share_of_the_steps(tmp_path: Path) -> None:
    """The recipe took 30 s and torchvision 40 s: it gets 3/4 of its steps."""
    argv = [f"--{name}=x.csv" for name in learning.FILES] + ["--weights=none"]
    args = learning.flags([*argv, f"--results={tmp_path}"])
    for name, seconds in (("recipe", 30.0), ("torchvision", 40.0)):
        (tmp_path / f"{name}-0.json").write_text(json.dumps({"CPU-seconds": seconds}))
    for name, expected in (("torchvision", []), ("torchvision-seconds", ["--share", "0.75"])):
        words = learning.command(learning.CONTENDERS[name], 0, args, tmp_path)
        assert words[words.index("--output") + 2 :] == expected


def test_recipes_add_up_and_torchvision_may_have_its_own_rate(tmp_path: Path, capsys) -> None:
    argv = [f"--{name}=x.csv" for name in learning.FILES] + [f"--results={tmp_path}"]
    argv += "--weights none --recipe small-data from-scratch --anchor_sizes 8 16 32 64 128".split()
    assert "torchvision-tuned" not in learning.flags(argv).only
    with pytest.raises(SystemExit):
        learning.flags([*argv, "--only", "torchvision-tuned"])
    assert "torchvision-tuned needs --torchvision_lr" in capsys.readouterr().err
    args = learning.flags([*argv, "--torchvision_lr", "4e-4"])
    assert args.only == list(learning.CONTENDERS)
    recipes = ["@recipes/small-data.args", "@recipes/from-scratch.args"]
    for name, expected, rate in (
        ("recipe", recipes, []),
        ("original", ["@recipes/original.args"], []),
        ("torchvision", recipes, []),
        ("torchvision-tuned", recipes, ["--lr", "0.0004"]),
    ):
        words = learning.command(learning.CONTENDERS[name], 0, args, tmp_path)
        assert [word for word in words if word.startswith("@")] == expected
        assert words[-2:] == rate or not rate
        assert ("--lr" in words) == bool(rate)
        assert ("--anchor_sizes" in words) == (name != "original")


def test_torchvisions_anchors_are_its_own_unless_said() -> None:
    image, features = (
        torch.zeros(1, 3, 128, 128),
        [torch.zeros(1, 1, n, n) for n in (16, 8, 4, 2, 1)],
    )
    usual = torchvision_model(64, 18).anchor_generator
    found = [
        made(ImageList(image, [(128, 128)]), features)[0]
        for made in (
            usual,
            torchvision_run.anchors_of(SIZES),
            torchvision_run.anchors_of([16, 32, 64, 128, 256]),
        )
    ]
    assert torch.equal(found[0], found[1])
    assert (found[2][0] == torch.tensor([-11.0, -6, 11, 6])).all()  # 16 px: 16 * sqrt(2), / sqrt(2)


@pytest.mark.parametrize(("share", "steps"), [(1.0, 4), (0.75, 3), (1.5, 6)])
def test_torchvision_takes_a_share_of_the_steps(share: float, steps: int, tmp_path: Path) -> None:
    """Four images, one a step: four steps an epoch, and the rate is 0 at the end of the share."""
    data = write_shapes(tmp_path / "shapes", train_images=4, val_images=1)
    argv = [f"--{name}={getattr(data, name)}" for name in learning.FILES]
    argv += "--weights=none --output=x --depth=18 --min_side=64 --max_side=96 --epochs=1".split()
    argv += f"--batch_size=1 --seed=0 --lr=1e-3 --schedule=cosine --share={share}".split()
    args = torchvision_run.flags(argv)
    dataset = CSVDataset(data.csv_train, data.csv_classes, Resizer(64, 96))
    model = torchvision_model(64, 18, dataset.num_classes(), nn.BatchNorm2d)
    rates = []
    seen = register_optimizer_step_pre_hook(
        lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"])
    )
    torchvision_run.train(model, dataset, args)
    seen.remove()
    cosine = [1e-3 * (1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps)]
    assert rates == pytest.approx(cosine)


def test_every_image_is_scored_in_one_fold_and_trained_on_in_the_others(tmp_path: Path) -> None:
    """Five images with 2, 1, 0, 3 and 1 boxes in three parts: 2 + 2 + 1 images, all rows kept."""
    rows = [("a.jpg", 2), ("b.jpg", 1), ("c.jpg", 0), ("d.jpg", 3), ("e.jpg", 1)]
    lines = {name: [f"{name},1,2,{9 + i},9,x" for i in range(n)] for name, n in rows}
    lines["c.jpg"] = ["c.jpg,,,,,"]
    files = [tmp_path / "train.csv", tmp_path / "val.csv"]
    files[0].write_text("\n".join(lines["a.jpg"] + lines["d.jpg"]) + "\n")
    files[1].write_text("\n".join(lines["b.jpg"] + lines["c.jpg"] + lines["e.jpg"]) + "\n")
    args = argparse.Namespace(
        csv_train=files[0], csv_val=files[1], csv_classes=tmp_path / "classes.csv", seeds=3
    )
    whole = sorted(f"{tmp_path}/{line}" for found in lines.values() for line in found)
    scored = []
    for part in range(3):
        folder = tmp_path / str(part)
        folder.mkdir()
        made = learning.write_fold(folder, part, args)
        train, val = (made[name].read_text().splitlines() for name in ("csv_train", "csv_val"))
        assert sorted(train + val) == whole
        images = [{line.split(",")[0] for line in found} for found in (train, val)]
        assert not images[0] & images[1]
        scored.append(sorted(Path(image).name for image in images[1]))
    assert scored == [["a.jpg", "d.jpg"], ["b.jpg", "e.jpg"], ["c.jpg"]]
