"""How torch's threads wait for each other: said to libgomp before torch is imported."""

import os
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
# The variable's value when torch begins to be imported, by a finder that sees every import.
PROGRAM = """
import os, sys

class Seen:
    def find_spec(name, path, target=None):
        if name == "torch":
            print(os.environ.get("GOMP_SPINCOUNT"))
            sys.exit()

sys.meta_path.insert(0, Seen)
import {module}
"""


@pytest.mark.parametrize("module", ["train", "validate", "visualize", "csv_validation"])
@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ({}, "3000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "None"),
    ],
)
def test_they_sleep_soon_unless_the_user_says_else(
    module: str, user: dict[str, str], expected: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in WAITING}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(module=module)],
        cwd=ROOT, env=environment | user, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{expected}\n", "")
