"""Opening COCO at train2017's size: time, memory, and what each loader process is given."""

import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from pycocotools.coco import COCO
from torch.utils.data import Dataset

from benchmarks.sides.measure import Function, Row, arguments, medians, peak_memory, show
from retinanet.data.datasets import CocoDataset
from retinanet.data.loading import Loader

ROOT = Path(__file__).parents[2]
SIZES = [(48, 64), (64, 48), (43, 64), (64, 64), (40, 60), (60, 40)]  # height, width
POLYGON = 44  # numbers, so that the file is as large as train2017's: 450 MB
CLASSES = 80
LINKS = 30_000  # of one file: some file systems end at 65,000
STARTS = ("spawn", "forkserver")
PRIVATE, PICKLED = 600e6, 30e6  # limits, bytes


def write_coco(root: Path, images: int, boxes: int) -> Path:
    """Sets of such sizes, and of a 24th for validation, as COCO's is, with boxes and polygons."""
    for name, part in (("train2017", 1), ("val2017", 24)):
        _write_set(root, name, -(-images // part), -(-boxes // part))
    return root


def _write_set(root: Path, name: str, images: int, boxes: int) -> None:
    folder = root / "images" / name
    folder.mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    categories = [{"supercategory": "x", "id": k + 1, "name": f"class{k}"} for k in range(CLASSES)]
    with (root / "annotations" / f"instances_{name}.json").open("w", encoding="ascii") as file:
        file.write(f'{{"info": {{}}, "categories": {json.dumps(categories)}, "images": [')
        file.writelines(_joined(_write_images(folder, images)))
        file.write('], "annotations": [')
        file.writelines(_joined(_annotations(images, boxes)))
        file.write("]}")


def _joined(entries: Iterable[dict[str, object]]) -> Iterator[str]:
    """The entries of a JSON list."""
    return (", " * (k > 0) + json.dumps(entry) for k, entry in enumerate(entries))


def _write_images(folder: Path, count: int) -> Iterator[dict[str, object]]:
    """Small JPEGs, most of them hard links, and their entries."""
    sources: dict[int, Path] = {}
    for k in range(count):
        size = k % len(SIZES)
        path, (height, width) = folder / f"{k:012}.jpg", SIZES[size]
        if k // len(SIZES) % LINKS == 0:
            Image.new("RGB", (width, height)).save(path)
            sources[size] = path
        else:
            path.hardlink_to(sources[size])
        yield {
            "license": 4,
            "file_name": path.name,
            "coco_url": f"http://images.example.org/{folder.name}/{path.name}",
            "height": height,
            "width": width,
            "date_captured": "2013-11-14 17:02:52",
            "flickr_url": "http://photos.example.org/6116/6255196340_da26cf2c9e_z.jpg",
            "id": k + 1,
        }


def _annotations(images: int, boxes: int) -> Iterator[dict[str, object]]:
    """Their boxes; there are a thousand different polygons."""
    random = np.random.default_rng(0)
    polygons = random.uniform(0, 64, (1000, POLYGON)).round(2).tolist()
    of_image = random.integers(0, images, boxes)
    corners = random.uniform(0, 20, (boxes, 2)).round(2)
    sides = random.uniform(2, 20, (boxes, 2)).round(2)
    labels = random.integers(0, CLASSES, boxes)
    for k in range(boxes):
        width, height = sides[k].tolist()
        yield {
            "segmentation": [polygons[k % 1000]],
            "area": round(width * height * 0.6, 3),
            "iscrowd": int(k % 80 == 0),
            "image_id": int(of_image[k]) + 1,
            "bbox": [*corners[k].tolist(), width, height],
            "category_id": int(labels[k]) + 1,
            "id": k + 1,
        }


def ours(root: Path) -> CocoDataset:
    """The set, read and checked."""
    return CocoDataset(root, "train2017")


def theirs(root: Path) -> COCO:
    """The object that the original keeps: the whole file, and pycocotools' index of it."""
    return COCO(root / "annotations" / "instances_train2017.json")


def opening(root: Path) -> Function:
    """Ours, for `peak_memory`."""
    return lambda: ours(root)


def opening_theirs(root: Path) -> Function:
    """The other side, for `peak_memory`."""
    return lambda: theirs(root)


class Clock(Dataset[dict[str, float]]):
    """Takes a data set into a loader process, and tells what that process has taken so far."""

    def __init__(self, data: object) -> None:
        self.data = data

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> dict[str, float]:
        return {"seconds": time.process_time(), "private": private_memory(os.getpid())}


def first_sample(samples: Sequence[dict[str, float]]) -> dict[str, float]:
    """A batch of one sample."""
    return samples[0]


def worker_start(data: object, start: str) -> dict[str, float]:
    """From a data set to the first sample of a loader process: CPU seconds, here and there."""
    before = time.process_time()
    order = {"batch_size": 1, "multiprocessing_context": start}
    (batch,) = Loader(Clock(data), workers=1, collate=first_sample, **order)
    return {**batch, "seconds": batch["seconds"] + time.process_time() - before}


def worker_rows(data: CocoDataset, repeats: int) -> list[Row]:
    """Loader processes that are not forked, beside some that are given nothing."""
    rows = []
    for start in STARTS:
        pairs = [(worker_start(data, start), worker_start(None, start)) for _ in range(repeats)]
        seconds = statistics.median(ours["seconds"] - none["seconds"] for ours, none in pairs)
        private = statistics.median(ours["private"] for ours, _ in pairs)
        what = f"a loader process by {start}"
        rows += [
            Row(f"{what}, CPU to its first sample, beyond imports: a limit", seconds, 2, within=1),
            Row(f"{what}, private memory: a limit", private, PRIVATE, within=1, unit="MB"),
        ]
    return rows


def memory_of(process: int) -> dict[str, int]:
    """Memory of a process in bytes, by the kernel's names."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}


def private_memory(process: int) -> int:
    """Memory that no other process has a part of, bytes."""
    found = memory_of(process)
    return found["Private_Clean"] + found["Private_Dirty"]


def cpu_seconds_of(process: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Seen(NamedTuple):
    """A run of Python, seen at some moment."""

    seconds: float  # of the CPU, its children's too
    private: list[int]  # its private memory and that of its children, bytes
    resident: int  # its memory with the pages of files and of other processes, bytes


def run_until(text: str, command: Sequence[str]) -> Seen:
    """Run Python until it prints a line that begins so; then stop it."""
    process = subprocess.Popen(
        [sys.executable, "-u", *command], cwd=ROOT, text=True, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout
        if not any(line.startswith(text) for line in process.stdout):
            raise RuntimeError(f"{command[0]} ended without a line that begins with {text!r}")
        own = process.pid
        children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
        everyone = [own, *map(int, children)]
        return Seen(
            seconds=sum(map(cpu_seconds_of, everyone)),
            private=[private_memory(member) for member in everyone],
            resident=memory_of(own)["Rss"],
        )
    finally:
        process.terminate()
        process.wait()


def training_rows(root: Path, folder: Path) -> list[Row]:
    """train.py up to its first step, and the share of its imports."""
    code = "import time, train; print('imported'); time.sleep(600)"
    imports = run_until("imported", ["-c", code])
    flags = ["--depth", "18", "--weights", "none", "--min_side", "64", "--max_side", "64"]
    flags += ["--workers", "2", "--output_dir", str(folder)]
    command = ["train.py", "--dataset", "coco", "--coco_path", str(root), *flags]
    run = run_until("Epoch: 0 | Iteration: 0", command)
    first, forked = "train.py to its first step", "its loader process, forked"
    return [
        Row(f"{first}, CPU: a limit", run.seconds, 25, within=1),
        Row(f"{first}, CPU: its imports", run.seconds, imports.seconds),
        Row("its private memory: a limit", run.private[0], PRIVATE, within=1, unit="MB"),
        Row("its private memory: its imports'", run.private[0], imports.private[0], unit="MB"),
        Row("its resident memory: its imports'", run.resident, imports.resident, unit="MB"),
        Row(f"{forked}, private memory: a limit", run.private[1], PRIVATE, within=1, unit="MB"),
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print; `--side` and `--depth` are unused."""
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--images", type=int, default=118_287, help="of the set (118,287)")
    parser.add_argument("--boxes", type=int, default=860_001, help="of the set (860,001)")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        root = write_coco(Path(name) / "coco", args.images, args.boxes)
        seconds = medians(
            {"ours": lambda: ours(root), "theirs": lambda: theirs(root)},
            args.repeats,
            warm_up=0,
            clock=time.process_time,
        )
        memory, their_memory = peak_memory(opening, root), peak_memory(opening_theirs, root)
        pickled, theirs_pickled = len(pickle.dumps(ours(root))), len(pickle.dumps(theirs(root)))
        what = f"COCO, {args.images:,} images, {args.boxes:,} boxes, read and checked"
        other = "pycocotools' object"
        rows = [
            Row(f"{what}, CPU: {other}", seconds["ours"], seconds["theirs"]),
            Row(f"its peak memory above imports: {other}", memory, their_memory, unit="MB"),
            Row(f"pickled for a loader process: {other}", pickled, theirs_pickled, unit="MB"),
            Row("pickled for a loader process: a limit", pickled, PICKLED, within=1, unit="MB"),
            *worker_rows(ours(root), args.repeats),
            *training_rows(root, Path(name) / "run"),
        ]
    show(rows)


if __name__ == "__main__":
    main()
