"""A long run with workers: whether resident memory and open files stay flat."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.sides.measure import arguments
from retinanet.data.shapes import write_shapes

ROOT = Path(__file__).parents[2]
IMAGES, BATCH = 100, 2
WARM_UP = 0.25  # of the run, in which caches fill


def resident_megabytes(process: int) -> float:
    """Of a process, from /proc."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1000
    return 0.0


def main(argv: Sequence[str] | None = None) -> None:
    """Train on small images, look at the process every 20 steps, and print the slopes."""
    parser = arguments(__doc__, repeats=1)
    parser.add_argument("--steps", type=int, default=2000, help="of the run (2000)")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        sample = write_shapes(Path(folder) / "shapes", train_images=IMAGES, val_images=2)
        command = [
            *(sys.executable, ROOT / "train.py", "--dataset", "csv", "--depth", "18"),
            *("--csv_train", sample.csv_train, "--csv_classes", sample.csv_classes),
            *("--csv_val", sample.csv_val, "--eval_every", "10", "--keep", "1"),
            *("--weights", "none", "--min_side", "64", "--max_side", "96", "--workers", "2"),
            *("--epochs", args.steps * BATCH // IMAGES, "--output_dir", Path(folder) / "run"),
        ]
        process = subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert process.stdout
        seen = []
        for step, line in enumerate(x for x in process.stdout if x.startswith("Epoch: ")):
            if step % 20 == 0:
                files = len(os.listdir(f"/proc/{process.pid}/fd"))
                seen.append((step, resident_megabytes(process.pid), files))
                last = line
        print(last.rstrip())
    steps, memory, files = np.array([row for row in seen if row[0] >= WARM_UP * args.steps]).T
    print(f"steps {steps[0]:.0f} to {steps[-1]:.0f} of a run with 2 workers, {len(steps)} looks")
    for name, unit, values in (("memory", "MB", memory), ("open files", "", files)):
        slope = 1000 * np.polyfit(steps, values, 1)[0]
        print(
            f"{name}: {values.min():.0f} to {values.max():.0f} {unit}, {slope:+.2f} per 1000 steps"
        )


if __name__ == "__main__":
    main()
