"""Folders that tests read: the checkout, the reference values, the shared data sets."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
SHARED = ROOT.parent / "shared"  # real images, where there are any: tests of them skip without
