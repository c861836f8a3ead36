"""Start-up of a run, against importing the libraries that it needs."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.sides.measure import Function, Row, arguments, medians, show

ROOT = Path(__file__).parents[2]
LIBRARIES = "import torch, torchvision, pandas, pycocotools.coco"


def python(*args: str) -> Function:
    """A run of the interpreter, from start to end."""
    command = [sys.executable, *args]
    return lambda: subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print; `--side` and `--depth` are unused."""
    args = arguments(__doc__, repeats=9).parse_args(argv)
    time = medians(
        {"ours": python("train.py", "--help"), "libraries": python("-c", LIBRARIES)}, args.repeats
    )
    what = f'`train.py --help`: `python -c "{LIBRARIES}"`'
    show([Row(what, time["ours"], time["libraries"], within=1.1)])


if __name__ == "__main__":
    main()
