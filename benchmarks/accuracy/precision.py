"""Training the sample in bf16 and in float32: the mAP of several seeds."""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.sides.measure import arguments, machine, markdown
from retinanet.weights.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[2]
PRECISIONS = ("bf16", "fp32")


def trained_map(precision: str, seed: int, folder: Path, flags: Sequence[str]) -> float:
    """MAP on the sample's validation set at the end of a run of train.py."""
    command = [sys.executable, ROOT / "train.py", "--dataset", "shapes", "--eval_every", "4"]
    command += ["--precision", precision, "--seed", str(seed), "--output_dir", folder, *flags]
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
    return load_checkpoint(folder / "model_final.pt").metrics["mAP"]


def main(argv: Sequence[str] | None = None) -> None:
    """Train, print a row a seed, and the difference of the means."""
    parser = arguments(__doc__, repeats=1)
    parser.add_argument("--seeds", type=int, default=3, help="how many (3)")
    args, flags = parser.parse_known_args(argv)
    found = np.zeros((args.seeds, len(PRECISIONS)))
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(args.seeds):
            for k, precision in enumerate(PRECISIONS):
                run = Path(folder) / f"{precision}_{seed}"
                found[seed, k] = trained_map(precision, seed, run, flags)
                print(f"seed {seed}, {precision}: mAP {found[seed, k]:.3f}", flush=True)
    rows = [[str(seed), *(f"{value:.3f}" for value in row)] for seed, row in enumerate(found)]
    rows.append(["mean", *(f"{value:.3f}" for value in found.mean(axis=0))])
    print(markdown(["seed", *PRECISIONS], rows))
    print(f"\nmean of bf16 - float32: {np.diff(found[:, ::-1], axis=1).mean():+.3f}; {machine()}")


if __name__ == "__main__":
    main()
