"""AP after the same images seen: the original's settings, a recipe, torchvision's RetinaNet.

torchvision-seconds instead takes as many CPU-seconds as the recipe's run with the same seed, so it
comes after that one and after torchvision's; torchvision-tuned has a learning rate of its own.

Each run is a process of its own on one thread; what it came to stays in `--results`, so that the
whole can be stopped and gone on with, and two halves of it (`--only`) can go on side by side.
CPU-seconds are those of the whole process: start, training, one evaluation at the end.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.sides.measure import machine, markdown
from retinanet.model import MATCHINGS
from retinanet.weights.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[2]


class Contender(NamedTuple):
    """A program that learns with the settings of --recipe."""

    program: str
    original: bool = False
    """With the original's settings instead."""
    tuned: bool = False
    """At --torchvision_lr instead."""
    share: int = 1
    """One in so many of the epochs."""
    same_seconds: bool = False
    """As many steps as fit into the recipe's CPU-seconds; both whole runs must be there."""


TORCHVISION = "-m benchmarks.torchvision_run"
CONTENDERS = {
    "recipe": Contender("train.py"),
    "recipe-third": Contender("train.py", share=3),
    "original": Contender("train.py", original=True),
    "torchvision": Contender(TORCHVISION),
    "torchvision-third": Contender(TORCHVISION, share=3),
    "torchvision-seconds": Contender(TORCHVISION, same_seconds=True),
    "torchvision-tuned": Contender(TORCHVISION, tuned=True),
}
FILES = ("csv_train", "csv_val", "csv_classes")
VARIES = ("results", "seeds", "only")  # between the parts of a series


def flags(argv: Sequence[str] | None) -> argparse.Namespace:
    """What to train on and for how long."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in FILES:
        parser.add_argument(f"--{name}", required=True, type=Path)
    parser.add_argument("--weights", required=True, help="none, or a ResNet's")
    parser.add_argument("--results", required=True, type=Path, help="folder of the figures")
    parser.add_argument(
        "--recipe",
        nargs="+",
        default=["small-data"],
        metavar="NAME",
        help="of recipes/, which add up (small-data)",
    )
    parser.add_argument(
        "--torchvision_lr",
        type=float,
        metavar="LR",
        help="the best found for it: torchvision-tuned",
    )
    parser.add_argument(
        "--anchor_sizes",
        nargs="+",
        metavar="PX",
        help="what train.py proposes, of all but original",
    )
    parser.add_argument(
        "--matching", choices=MATCHINGS, help="of train.py, in all its runs but original"
    )
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--min_side", type=int, default=304)
    parser.add_argument("--max_side", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=3, help="how many (3)")
    parser.add_argument(
        "--folds", action="store_true", help="cross-validation instead: a part for each seed"
    )
    parser.add_argument(
        "--only", nargs="+", choices=CONTENDERS, help="some of them (all that the flags allow)"
    )
    args = parser.parse_args(argv)
    possible = [name for name in CONTENDERS if args.torchvision_lr or not CONTENDERS[name].tuned]
    args.only = args.only or possible
    if not set(args.only) <= set(possible):
        parser.error("torchvision-tuned needs --torchvision_lr")
    for name in args.only:
        if args.epochs % CONTENDERS[name].share:
            parser.error(f"--epochs {args.epochs} has no third; leave {name} out by --only")
    return args


def claim(args: argparse.Namespace) -> None:
    """Make the folder of the figures; end where it holds those of other settings."""
    settings = {name: str(value) for name, value in vars(args).items() if name not in VARIES}
    if args.folds:
        settings["seeds"] = str(args.seeds)  # as many parts
    made_with = args.results / "settings.json"
    if made_with.exists() and json.loads(made_with.read_text()) != settings:
        sys.exit(f"{args.results} holds figures of other settings: {made_with}")
    args.results.mkdir(parents=True, exist_ok=True)
    made_with.write_text(json.dumps(settings))


def run(contender: Contender, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """COCO's AP and AP50 of a new run, and its CPU-seconds."""
    with tempfile.TemporaryDirectory() as folder:
        before = children_seconds()
        subprocess.run(
            command(contender, seed, args, Path(folder)),
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        seconds = children_seconds() - before
        scores: dict[str, Any] = (
            load_checkpoint(Path(folder, "run", "model_final.pt")).metrics
            if contender.program == "train.py"
            else json.loads(Path(folder, "scores.json").read_text())
        )
    return {"AP": scores["AP"], "AP50": scores["AP50"], "CPU-seconds": round(seconds, 1)}


def command(contender: Contender, seed: int, args: argparse.Namespace, folder: Path) -> list[str]:
    """The words of a run that leaves its model or its scores in `folder`."""
    names = ("weights", "depth", "min_side", "max_side", *FILES)
    values = {name: vars(args)[name] for name in names}
    values |= {"epochs": args.epochs // contender.share, "seed": seed}
    if args.folds:
        values |= write_fold(folder, seed, args)
    if contender.program == "train.py":
        values |= {"dataset": "csv", "output_dir": folder / "run", "workers": 0}
        values |= {"eval_every": values["epochs"], "keep": 1}
    else:
        values["output"] = folder / "scores.json"
    if contender.same_seconds:
        seconds = [figures(name, seed, args)["CPU-seconds"] for name in ("recipe", "torchvision")]
        values["share"] = seconds[0] / seconds[1]
    if contender.tuned:
        values["lr"] = args.torchvision_lr
    recipes = ["original"] if contender.original else args.recipe
    words = [sys.executable, *contender.program.split()]
    words += [f"@recipes/{name}.args" for name in recipes]
    if args.anchor_sizes and not contender.original:
        words += ["--anchor_sizes", *args.anchor_sizes]
    if args.matching and contender.program == "train.py" and not contender.original:
        words += ["--matching", args.matching]
    return words + [word for name, value in values.items() for word in (f"--{name}", str(value))]


def write_fold(folder: Path, part: int, args: argparse.Namespace) -> dict[str, Path]:
    """Deal the images of both files out, like cards; one of `--seeds` parts is for scoring."""
    rows = []
    for file in (args.csv_train, args.csv_val):
        with file.open(newline="") as lines:
            rows += [[str(file.parent.absolute() / row[0]), *row[1:]] for row in csv.reader(lines)]
    parts = {image: i % args.seeds for i, image in enumerate(sorted({row[0] for row in rows}))}
    files = {"csv_train": folder / "train.csv", "csv_val": folder / "val.csv"}
    for held_out, file in enumerate(files.values()):
        with file.open("w", newline="") as lines:
            chosen = (row for row in rows if (parts[row[0]] == part) == bool(held_out))
            csv.writer(lines).writerows(chosen)
    return files


def figures(name: str, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """What a run that was made came to."""
    found: dict[str, float] = json.loads(result_file(name, seed, args).read_text())
    return found


def result_file(name: str, seed: int, args: argparse.Namespace) -> Path:
    """Where the figures of a run stay."""
    return Path(args.results, f"{name}-{seed}.json")


def children_seconds() -> float:
    """CPU time of all processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """A row a contender; differences are those of seeds, mean and standard deviation."""
    recipe = np.array([result["AP"] for result in results["recipe"]])
    rows = []
    for name, found in results.items():
        precision, at_half, seconds = np.array([list(result.values()) for result in found]).T
        gain = recipe[: len(precision)] - precision[: len(recipe)]
        spread = f" (deviation {gain.std(ddof=1):.3f})" if len(gain) > 1 else ""
        lead = "" if name == "recipe" else f"{gain.mean():+.3f}{spread}"
        means = (f"{precision.mean():.3f}", f"{at_half.mean():.3f}", f"{seconds.mean():.0f}")
        rows.append([name, str(len(found)), *means, lead])
    return markdown(["", "seeds", "AP", "AP50", "CPU-seconds", "recipe - this"], rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Make the runs that are missing, seed by seed, and print the table."""
    args = flags(argv)
    claim(args)
    results: dict[str, list[dict[str, float]]] = {}
    for seed in range(args.seeds):
        for name in args.only:
            file = result_file(name, seed, args)
            if not file.exists():
                found = run(CONTENDERS[name], seed, args)
                file.write_text(json.dumps(found))
                print(f"{name}, seed {seed}: {found}", flush=True)
            results.setdefault(name, []).append(figures(name, seed, args))
    if "recipe" in results:
        print(table(results))
    print(f"\n{machine()}; one thread a run")


if __name__ == "__main__":
    main()
