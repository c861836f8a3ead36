"""Running the scripts on files made to do harm, within limits of time and memory."""

import json
import os
import signal
import sys
import traceback
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from retinanet.model import ModelConfig, RetinaNet
from retinanet.weights.checkpoint import Checkpoint, save_checkpoint

resource = pytest.importorskip("resource")  # limits, which not every system has
if not sys.platform.startswith("linux"):
    pytest.skip("reads its own size from /proc", allow_module_level=True)

SECONDS = 60  # a run on a tiny data set takes two or three
MEGABYTES = 500  # more than a small model (80 MB) needs, twice, and its features

Script = Callable[[Sequence[str]], int]


# ---- running a script within limits ----


class Ended(NamedTuple):
    """How a run ended."""

    code: int  # the exit code, or minus the signal that ended it
    out: str
    err: str


def run(
    script: Script,
    flags: Sequence[object],
    folder: Path,
    seconds: int = SECONDS,
    megabytes: int = MEGABYTES,
) -> Ended:
    """Run a script's main in a fork of this process, in `folder`, which it makes.

    It is killed when it takes too long, and gets no more memory than this process has and some.
    """
    out, err = (folder.with_name(folder.name + name) for name in (".out", ".err"))
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _limit(seconds, megabytes)
        _run_and_exit(script, [str(flag) for flag in flags], folder, out, err)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code != -signal.SIGALRM, f"took longer than {seconds} s: {flags}"
    return Ended(code, out.read_text(errors="replace"), err.read_text(errors="replace"))


def _limit(seconds: int, megabytes: int) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)
    status = Path("/proc/self/status").read_text()
    kilobytes = int(status.split("VmData:")[1].split()[0])
    limit = 1024 * (kilobytes + 1024 * megabytes)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _run_and_exit(script: Script, flags: list[str], folder: Path, out: Path, err: Path) -> None:
    code = 99
    try:
        sys.stdout, sys.stderr = out.open("w"), err.open("w")
        folder.mkdir(exist_ok=True)
        os.chdir(folder)
        code = script(flags)
    except SystemExit as end:  # argparse
        code = int(str(end.code))
    except BaseException:  # noqa: BLE001  as the interpreter would end
        traceback.print_exc()
    finally:
        sys.stdout.close()
        sys.stderr.close()
        os._exit(code)


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def refusal(script: Script, flags: Sequence[object], folder: Path, lines: int = 1) -> str:
    """Run a script that must refuse its input, and return the line that says why."""
    ended = run(script, flags, folder)
    assert ended.code == 1, ended
    assert "Traceback" not in ended.out + ended.err
    assert ended.err.count("\n") == lines, ended.err[:2000]
    assert ended.err.replace("\n", "").isprintable(), ended.err
    assert len(ended.err) < 1000 * lines, ended.err[:2000]
    assert files(folder) == []
    return ended.err


# ---- what the scripts need: a model, a picture, annotations ----


class Inputs(NamedTuple):
    """Good files, to each of which a test may give a bad companion."""

    folder: Path
    model: Path
    csv: Path
    classes: Path


def good_inputs(folder: Path) -> Inputs:
    """A small model that finds something everywhere, a picture, annotations."""
    torch.manual_seed(0)
    model = RetinaNet(ModelConfig(num_classes=2, depth=18))
    nn.init.constant_(model.classificationModel.output.bias, 1.0)  # it finds something everywhere
    checkpoint = Checkpoint(
        model.config, model.state_dict(), ("cat", "dog"), min_side=64, max_side=96
    )
    save_checkpoint(folder / "model.pt", checkpoint)
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "good.jpg")
    (folder / "good.csv").write_text("good.jpg,4,4,40,40,cat\n")
    (folder / "classes.csv").write_text("cat,0\ndog,1\n")
    return Inputs(folder, folder / "model.pt", folder / "good.csv", folder / "classes.csv")


QUICK = ["--workers", "0", "--device", "cpu"]
TRAIN = [
    *("--epochs", "1", "--depth", "18", "--weights", "none", "--batch_size", "1"),
    *("--min_side", "64", "--max_side", "96", "--precision", "fp32", *QUICK),
]


def training(good: Inputs, csv: Path | None = None) -> list[object]:
    """Flags of a run that writes into the working directory."""
    return ["--dataset", "csv", "--csv_train", csv or good.csv, "--csv_classes", good.classes]


# ---- files ----


def png(width: int, height: int) -> bytes:
    """A whole PNG of black pixels, one bit each; row by row, for there may be many."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + check

    packer = zlib.compressobj(1)
    row = bytes(1 + (width + 7) // 8)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes((1, 0, 0, 0, 0))
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def coco(root: Path, changes: dict[str, Any] | bytes) -> Path:
    """A COCO data set of one image, with other values at the paths of `changes`, or other bytes."""
    content: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 48, "width": 64}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": [
            {
                **{"id": 1, "image_id": 1, "category_id": 3, "bbox": [4, 4, 36, 36]},
                **{"area": 1296, "iscrowd": 0},
            }
        ],
    }
    if isinstance(changes, dict):
        for path, value in changes.items():
            *keys, last = (int(key) if key.isdigit() else key for key in path.split("."))
            target: Any = content
            for key in keys:
                target = target[key]
            target[last] = value
        changes = json.dumps(content).encode()
    images = root / "images/val2017"
    images.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(images / "a.jpg")
    (root / "annotations").mkdir()
    (root / "annotations/instances_val2017.json").write_bytes(changes)
    return root


def coco_training(root: Path) -> list[object]:
    return ["--dataset", "coco", "--coco_path", root, "--coco_train_set", "val2017"]


def no_file(path: Path, kind: str) -> Path:
    """Something under a name that should be a file's."""
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "loop":
            path.symlink_to(path)
    return path
