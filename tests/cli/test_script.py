"""How a script ends, whatever goes wrong in it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest

from retinanet.cli import script as cli
from retinanet.errors import DataError
from retinanet.runtime.signals import StoppedError
from tests.support.paths import ROOT


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DataError("a.csv:1: nothing; expected rows"), 1, "a.csv:1: nothing"),
        (PermissionError(13, "Permission denied", "a.csv"), 1, "Permission denied: 'a.csv'"),
        (StoppedError(signal.SIGTERM, "go on"), 143, "stopped by SIGTERM; go on"),
        (KeyboardInterrupt(), 130, "stopped"),
        (RuntimeError("CUDA out of memory. Tried to"), 1, "lower --batch_size, --max_side"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you"), 1, "lower --batch_size"),
    ],
)
def test_what_a_user_can_mend_is_one_line(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, said: str
) -> None:
    @cli.script
    def main(argv: Sequence[str] | None) -> None:
        raise error

    assert main([]) == code
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1


def test_a_defect_keeps_its_traceback() -> None:
    @cli.script
    def main(argv: Sequence[str] | None) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        main([])


PROGRAM = """
import sys, time
from torch.utils.data import DataLoader
from retinanet.cli import script as cli

class Slow:
    def __len__(self): return 8
    def __getitem__(self, index):
        print(index, flush=True)
        time.sleep(60)

@cli.script
def main(argv):
    for _ in DataLoader(Slow(), num_workers=1): pass

sys.exit(main())
"""


def test_a_killed_loader_worker_is_told_with_advice() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout
    process.stdout.readline()  # the worker is at work
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    )
    os.kill(int(children.stdout.split()[0]), signal.SIGKILL)
    started = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - started < 50
    assert process.returncode == 1
    assert "a loader process died" in errors.splitlines()[-1]
    assert "--workers" in errors.splitlines()[-1]
