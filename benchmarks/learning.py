"""AP on real images after the same images seen: the original's settings, a recipe, torchvision.

Each run is a process of its own on one thread; what it came to stays in `--results`, so that the
whole can be stopped and gone on with. CPU-seconds are those of the whole process: start, training,
one evaluation at the end.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import machine, markdown
from retinanet.checkpoint import load_checkpoint

ROOT = Path(__file__).parent.parent
CONTENDERS = {
    "recipe": ("train.py", "small-data"),
    "original": ("train.py", "original"),
    "torchvision": ("-m benchmarks.torchvision_run", "small-data"),
}


def flags(argv: Sequence[str] | None) -> argparse.Namespace:
    """What to train on and for how long."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("csv_train", "csv_classes", "csv_val"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--weights", required=True, help="none, or a ResNet's")
    parser.add_argument("--results", required=True, type=Path, help="folder of the figures")
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--min_side", type=int, default=304)
    parser.add_argument("--max_side", type=int, default=512)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=3, help="how many (3)")
    parser.add_argument("--only", choices=CONTENDERS, help="one of them")
    return parser.parse_args(argv)


def run(contender: str, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """COCO's AP and AP50 of a new run, and its CPU-seconds."""
    program, recipe = CONTENDERS[contender]
    names = ("csv_train", "csv_classes", "csv_val", "weights", "depth", "min_side", "max_side")
    values = [(f"--{name}", str(vars(args)[name])) for name in (*names, "batch_size", "epochs")]
    command = [sys.executable, *program.split(), f"@recipes/{recipe}.args"]
    command += [*(word for pair in values for word in pair), "--seed", str(seed)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "scores.json"
        if program == "train.py":
            command += ["--dataset", "csv", "--output_dir", folder, "--workers", "0"]
            command += ["--eval_every", str(args.epochs), "--keep", "1"]
        else:
            command += ["--output", str(out)]
        before = children_seconds()
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT, env=environment)
        seconds = children_seconds() - before
        scores: dict[str, Any] = (
            load_checkpoint(Path(folder) / "model_final.pt").metrics
            if program == "train.py"
            else json.loads(out.read_text())
        )
    return {"AP": scores["AP"], "AP50": scores["AP50"], "CPU-seconds": round(seconds, 1)}


def children_seconds() -> float:
    """CPU time of all processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """A row a contender; differences are those of seeds, mean and standard deviation."""
    recipe = np.array([result["AP"] for result in results["recipe"]])
    rows = []
    for name, found in results.items():
        precision, at_half, seconds = np.array([list(result.values()) for result in found]).T
        gain = recipe[: len(precision)] - precision[: len(recipe)]
        spread = f" (deviation {gain.std(ddof=1):.3f})" if len(gain) > 1 else ""
        cells = [name, str(len(found)), f"{precision.mean():.3f}", f"{at_half.mean():.3f}"]
        rows.append([*cells, f"{seconds.mean():.0f}", f"{gain.mean():+.3f}{spread}"])
    return markdown(["", "seeds", "AP", "AP50", "CPU-seconds", "recipe - this"], rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Make the runs that are missing, seed by seed, and print the table."""
    args = flags(argv)
    args.results.mkdir(parents=True, exist_ok=True)
    results: dict[str, list[dict[str, float]]] = {}
    for seed in range(args.seeds):
        for contender in [args.only] if args.only else CONTENDERS:
            file = args.results / f"{contender}-{seed}.json"
            if not file.exists():
                found = run(contender, seed, args)
                file.write_text(json.dumps(found))
                print(f"{contender}, seed {seed}: {found}", flush=True)
            results.setdefault(contender, []).append(json.loads(file.read_text()))
    if "recipe" in results:
        print(table(results))
    print(f"\n{machine()}; one thread a run")


if __name__ == "__main__":
    main()
