"""Devices and output folders that are none: said in one line, before the work."""

import ntpath
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import validate
import visualize
from retinanet.errors import DataError
from retinanet.runtime.device import usable_device
from retinanet.runtime.files import check_output_dir, path_below, write_whole
from retinanet.tools import check_data, convert, export

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


@without_gpu
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("0", "no such device here; its name is cuda:0; give one of cpu"),
        ("gpu", "no such device here; its name is cuda; give one of cpu"),
        ("GPU:1", "no such device here; its name is cuda:1; give one of cpu"),
        ("cuda", "no such device here; give one of cpu"),
        ("cuda:7", "no such device here; give one of cpu"),
        ("xpu", "no such device here; give one of cpu"),
        ("hpu", "no such device here; give one of cpu"),
        ("meta", "no such device here; give one of cpu"),
        ("nonsense", "no such device here; give one of cpu"),
    ],
)
def test_devices_that_are_not_here(name: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"^--device {name}: {message}") as error:
        usable_device(name)
    assert len(str(error.value)) < 120
    assert "\n" not in str(error.value)


def test_an_apple_gpu_where_there_is_none() -> None:
    if torch.backends.mps.is_available():
        assert usable_device("mps").type == "mps"
    else:
        with pytest.raises(DataError, match=r"^--device mps: no such device here; give one of cpu"):
            usable_device("mps")


def test_the_processor_is_always_here() -> None:
    assert usable_device("cpu") == torch.device("cpu")


def test_output_folders_that_are_none(tmp_path: Path) -> None:
    check_output_dir(tmp_path)
    check_output_dir(tmp_path / "new" / "deep")
    assert list(tmp_path.iterdir()) == []  # nothing is made
    file = tmp_path / "file"
    file.write_text("x")
    for folder in (file, file / "below"):
        with pytest.raises(DataError, match=r"file: a file; expected a folder; choose another"):
            check_output_dir(folder)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"link: a file; expected a folder"):
        check_output_dir(tmp_path / "link")


@pytest.mark.parametrize("script", [validate.main, visualize.main, check_data.main])
def test_scripts_say_it_before_they_open_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], script: Callable[[list[str]], int]
) -> None:
    (tmp_path / "file").write_text("x")
    data = ["--dataset", "csv", "--csv_train", "none.csv", "--csv_classes", "none.csv"]
    flags = data if script is check_data.main else ["none.pt"]
    assert script([*flags, "--output_dir", str(tmp_path / "file")]) == 1
    assert "file: a file; expected a folder; choose another --output_dir" in capsys.readouterr().err


@pytest.mark.parametrize("tool", [export.main, convert.main])
def test_tools_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tool: Callable[[list[str]], int]
) -> None:
    (tmp_path / "file").write_text("x")
    more = ["--to", "torchvision"] if tool is convert.main else []
    assert tool(["none.pt", str(tmp_path / "file/out.onnx"), *more]) == 1
    assert "file: a file; expected a folder; choose another OUT" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(DataError, match="may not be written to; choose another --output_dir"):
            check_output_dir(tmp_path / "new")
    finally:
        tmp_path.chmod(0o700)


def test_a_file_in_the_way_is_the_error_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match=r"a\.jpg: could not be written .*; make room, or choose"):
        write_whole(tmp_path / "file" / "a.jpg", b"x")


def test_a_path_on_another_drive_of_windows_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    assert path_below(Path("a/b/c.jpg"), Path("a")) == os.path.join("b", "c.jpg")
    monkeypatch.setattr(os.path, "relpath", ntpath.relpath)
    image = Path("D:\\photos\\a.jpg")
    assert path_below(image, Path("D:\\photos")) == "a.jpg"
    assert path_below(image, Path("C:\\data")) == str(image)
