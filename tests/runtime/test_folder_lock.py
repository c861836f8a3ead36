"""A folder that is one process's own, for as long as it lives and no longer."""

import errno
import os
import signal
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from retinanet.errors import DataError
from retinanet.runtime import folder_lock
from retinanet.runtime.folder_lock import LOCK_FILE, lock_folder
from tests.support.processes import FORK


def hold(folder: Path, inside: Event, *, with_child: bool) -> None:
    """Be in the folder for ever, with a child that lives on when this process is killed."""
    os.setsid()
    with lock_folder(folder):
        if with_child:
            FORK.Process(target=time.sleep, args=(60,)).start()
        inside.set()
        time.sleep(60)


@pytest.mark.parametrize("with_child", [False, True])
def test_another_process_is_named_until_it_is_killed(tmp_path: Path, with_child: bool) -> None:
    inside = FORK.Event()
    other = FORK.Process(target=hold, args=(tmp_path, inside), kwargs={"with_child": with_child})
    other.start()
    assert inside.wait(30)
    with (
        pytest.raises(DataError, match=rf"another run is at work there \(process {other.pid} on "),
        lock_folder(tmp_path),
    ):
        pass
    assert other.pid
    os.kill(other.pid, signal.SIGKILL)
    other.join()
    assert (tmp_path / LOCK_FILE).exists()  # which keeps nobody out
    with lock_folder(tmp_path):
        assert (tmp_path / LOCK_FILE).read_text().startswith(f"process {os.getpid()} on ")
    assert list(tmp_path.iterdir()) == []
    if with_child:
        os.killpg(other.pid, signal.SIGKILL)


def test_folders_that_were_made_for_nothing_go(tmp_path: Path) -> None:
    with lock_folder(tmp_path / "a" / "b"):
        pass
    assert list(tmp_path.iterdir()) == []
    with lock_folder(tmp_path / "a" / "b"):
        (tmp_path / "a" / "result").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["result"]


def test_a_lock_file_that_its_owner_has_just_removed_locks_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened while its owner was in there, locked when the owner was gone with the name."""
    file, real = tmp_path / LOCK_FILE, folder_lock._lock
    waits = iter([True])

    def lock(descriptor: int) -> None:
        if next(waits, False):
            file.unlink()
        real(descriptor)

    monkeypatch.setattr(folder_lock, "_lock", lock)
    with (
        lock_folder(tmp_path),
        pytest.raises(DataError, match="another run"),
        lock_folder(tmp_path),
    ):
        pass


def test_a_file_system_without_locks_is_said_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_locks(descriptor: int) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(folder_lock, "_lock", no_locks)
    with lock_folder(tmp_path), lock_folder(tmp_path):
        pass
    said = capsys.readouterr().out.splitlines()
    assert (
        said
        == [
            f"Warning: {tmp_path} is on a file system without locks (Operation not supported); make"
            " sure that no other run writes there"
        ]
        * 2
    )


def test_the_users_file_of_that_name_stays(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).write_text("mine")
    with (
        pytest.raises(DataError, match=r"retinanet\.lock: was not written by this program"),
        lock_folder(tmp_path),
    ):
        pass
    assert (tmp_path / LOCK_FILE).read_text() == "mine"
