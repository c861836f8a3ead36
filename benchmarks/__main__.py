"""Run benchmarks by name, or all of them: `python -m benchmarks [NAME ...] [FLAG ...]`.

Each one runs in a process of its own, so that none finds the memory or the threads of another.
"""

import importlib
import subprocess
import sys
from collections.abc import Sequence
from itertools import takewhile

NAMES = (
    *("step", "convolutions", "memory", "loss", "sample", "detection", "evaluation"),
    *("evaluators", "annotations", "coco_open", "formats", "records", "growth", "startup"),
    *("endurance", "precision", "profile"),
)


def summary() -> str:
    """The names, each with the first line of its module."""
    lines = ["python -m benchmarks [NAME ...] [FLAG ...]; all of them without a name:"]
    for name in NAMES:
        text = importlib.import_module(f"benchmarks.{name}").__doc__ or ""
        lines.append(f"  {name:13} {text.splitlines()[0]}")
    lines.append("Flags go to each benchmark: see `python -m benchmarks.NAME --help`.")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Run what is named, one after another; the first failure's exit code, else 0."""
    names = list(takewhile(lambda word: not word.startswith("-"), argv))
    flags = argv[len(names) :]
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(f"no benchmark is called {', '.join(unknown)}\n{summary()}", file=sys.stderr)
        return 2
    if not names:
        print(summary(), flush=True)
        if "-h" in flags or "--help" in flags:
            return 0
    codes = [
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *flags], check=False).returncode
        for name in names or NAMES
    ]
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
