"""How fast this package is, beside the original's way and torchvision's: `python -m benchmarks`."""

from pathlib import Path

# So that a command names a benchmark and not its folder: `python -m benchmarks.step` is
# speed/step.py. Imports name the folder too.
__path__ += [str(Path(__file__).parent / folder) for folder in ("speed", "scale", "accuracy")]
