"""Loader processes: batches by every way, and an end to waiting for what never comes."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset
from torchvision.transforms import Compose

from retinanet.data import loading
from retinanet.data.batches import AspectRatioBasedSampler, collater
from retinanet.data.datasets import CocoDataset, CSVDataset
from retinanet.data.loading import Loader, LoadingError
from retinanet.data.shapes import write_shapes
from retinanet.data.transforms import Augmenter, Normalizer, Resizer
from tests.support.paths import ROOT


class Numbers(Dataset[Any]):
    """Samples with their number in them; `slow` never comes, `deadly` ends the process."""

    def __init__(self, *, slow: int = -1, deadly: int = -1) -> None:
        self.slow, self.deadly = slow, deadly

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        if index == self.slow:
            time.sleep(60)
        if index == self.deadly:
            os._exit(9)
        return index


def stacked(samples: list[int]) -> dict[str, Any]:
    """A batch as the program has them: tensors and plain lists."""
    img = torch.full((len(samples), 2, 3, 4), float(samples[0])).permute(0, 3, 1, 2)
    return {"img": img, "annot": torch.tensor(samples), "index": samples}


def load(data: Numbers, workers: int, **more: float) -> list[dict[str, Any]]:
    """All batches of two."""
    return list(Loader(data, workers=workers, collate=stacked, batch_size=2, **more))


def alike(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    """Whether batches hold the same."""
    return len(one) == len(other) and all(
        torch.equal(a["img"], b["img"]) and a["index"] == b["index"]
        for a, b in zip(one, other, strict=True)
    )


def test_batches_are_the_same_by_pipe_and_by_shared_memory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = load(Numbers(), workers=0)
    assert alike(plain, load(Numbers(), workers=1))
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(loading, "shared_memory_left", lambda: 100.0)  # bytes
    assert alike(plain, load(Numbers(), workers=1))
    assert capsys.readouterr().out == (
        "/dev/shm has 0 MB left: batches are copied through pipes; docker's --shm-size=2g or"
        " --ipc=host makes loading faster\n"
    )


def test_a_batch_that_never_comes_is_an_error() -> None:
    with pytest.raises(LoadingError, match=r"no batch came from the loader processes in 1 s; "):
        load(Numbers(slow=2), workers=1, timeout=1.0)


def test_a_process_that_dies_is_an_error() -> None:
    with pytest.raises(LoadingError, match=r"a loader process died \(.*; expected one in time"):
        load(Numbers(deadly=2), workers=1)


@pytest.mark.slow  # a process of this kind imports everything anew
@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_processes_that_are_not_forked_load_the_same(start: str, tmp_path: Path) -> None:
    sample = write_shapes(tmp_path / "shapes", train_images=4, val_images=1)
    transform = Compose([Augmenter(3), Resizer(64, 96), Normalizer()])
    for data in (
        CSVDataset(sample.csv_train, sample.csv_classes, transform),
        CocoDataset(sample.coco_root, "train2017", transform),
    ):
        order = {"batch_sampler": AspectRatioBasedSampler(data, 2, seed=1)}
        here = list(Loader(data, workers=0, collate=collater, **order))
        order = {"batch_sampler": AspectRatioBasedSampler(data, 2, seed=1)}
        context = {"multiprocessing_context": start}
        there = list(Loader(data, workers=2, collate=collater, **order, **context))
        assert alike(here, there)


IN_LITTLE_SHARED_MEMORY = """
import torch
from retinanet.data.loading import Loader

class Large(torch.utils.data.Dataset):
    def __len__(self): return 8
    def __getitem__(self, index): return index

def collate(samples):
    return {"img": torch.full((1, 300_000), float(samples[0])), "index": samples}

for batch in Loader(Large(), workers=2, collate=collate, batch_size=1, timeout=30):
    assert (batch["img"] == batch["index"][0]).all()
print("all came")
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts: needs root")
def test_in_a_container_with_one_megabyte_of_shared_memory() -> None:
    mount = "mount -t tmpfs -o size=1m tmpfs /dev/shm"
    done = subprocess.run(
        [
            *("unshare", "-m", "sh", "-c", f'{mount} || exit 77; exec "$@"', "sh"),
            *(sys.executable, "-c", IN_LITTLE_SHARED_MEMORY),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip("this system lets nobody mount")
    assert done.stdout.splitlines()[-1] == "all came", done.stderr
    assert "batches are copied through pipes" in done.stdout
