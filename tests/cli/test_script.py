"""How a script ends, whatever goes wrong in it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest
from torch.utils.data import DataLoader, Dataset

from retinanet.cli import script as cli
from retinanet.errors import DataError
from retinanet.runtime.signals import StoppedError
from tests.support.processes import Forked


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


class Slow(Dataset[int]):
    """Never comes to its first item's end."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        sys.stdout.write("at work\n")
        sys.stdout.flush()
        time.sleep(60)
        return index


def test_a_killed_loader_worker_is_told_with_advice() -> None:
    @cli.script
    def main(argv: Sequence[str] | None) -> None:
        for _ in DataLoader(Slow(), num_workers=1):
            pass

    process = Forked(main, [])
    process.read_until("at work")
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    )
    os.kill(int(children.stdout.split()[0]), signal.SIGKILL)
    started = time.monotonic()
    code, _, errors = process.end(seconds=60)
    assert time.monotonic() - started < 50
    assert code == 1
    assert "a loader process died" in errors.splitlines()[-1]
    assert "--workers" in errors.splitlines()[-1]
