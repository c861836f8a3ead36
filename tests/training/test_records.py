"""metrics.jsonl: read thinly, cut at a byte, mended at its end."""

import json
import math
import tracemalloc
from pathlib import Path

import pytest

from retinanet.training.records import cut_records, read_records

STEPS = 5  # of an epoch


def step(epoch: int, iteration: int) -> str:
    return json.dumps({"kind": "step", "epoch": epoch, "iteration": iteration, "running_loss": 0.5})


def epoch(number: int) -> str:
    return json.dumps({"kind": "epoch", "epoch": number, "metrics": {"AP": number / 10}})


def lines(epochs: int) -> list[str]:
    """A run's records, in order."""
    return [
        line
        for number in range(epochs)
        for line in (*(step(number, k) for k in range(STEPS)), epoch(number))
    ]


def write(folder: Path, *content: str) -> Path:
    path = folder / "metrics.jsonl"
    path.write_text("".join(content))
    return path


def places(path: Path) -> list[tuple[int, float]]:
    return [(r["epoch"], r.get("iteration", math.inf)) for r in read_records(path)]


@pytest.mark.parametrize("next_epoch", range(4))
@pytest.mark.parametrize("next_step", range(STEPS + 1))
def test_cut_where_the_run_goes_on(tmp_path: Path, next_epoch: int, next_step: int) -> None:
    """Against a plain filter of all lines; at the epoch's end its own record is to come again."""
    path = write(tmp_path, *(f"{line}\n" for line in lines(3)))
    expected = [place for place in places(path) if place < (next_epoch, next_step)]
    cut_records(path, next_epoch, next_step)
    assert places(path) == expected
    assert path.read_text() == "".join(f"{line}\n" for line in lines(3)[: len(expected)])


@pytest.mark.parametrize("lost", [1, 2, 20, len(epoch(1)), len(epoch(1)) + 1])
def test_an_epochs_record_that_was_cut_comes_back(tmp_path: Path, lost: int) -> None:
    whole = "".join(f"{line}\n" for line in lines(2))
    path = write(tmp_path, whole[:-lost])
    for _ in range(2):  # the second time nothing is missing
        cut_records(path, 2, 0, epoch(1))
        assert path.read_text() == whole


def test_nothing_is_added_to_a_file_that_has_it_all(tmp_path: Path) -> None:
    path = write(tmp_path, *(f"{line}\n" for line in lines(2)))
    cut_records(path, 1, 3, epoch(0))
    assert path.read_text() == "".join(f"{line}\n" for line in lines(2)[: STEPS + 1 + 3])


@pytest.mark.parametrize("damaged", ["", "nonsense", "[1]", '{"epoch": null}'])
def test_a_damaged_record_in_a_state_adds_nothing(tmp_path: Path, damaged: str) -> None:
    path = write(tmp_path, step(0, 0) + "\n")
    cut_records(path, 1, 0, damaged)
    assert places(path) == [(0, 0)]


def test_a_new_file_begins_with_what_comes_next(tmp_path: Path) -> None:
    cut_records(tmp_path / "metrics.jsonl", 1, 0, epoch(0))
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_no_file_has_no_records(tmp_path: Path) -> None:
    assert read_records(tmp_path / "metrics.jsonl") == []


def test_many_steps_are_thinned_evenly_and_epochs_all_kept(tmp_path: Path) -> None:
    content = [f"{line}\n" for line in lines(2000)]
    path = write(tmp_path, *content)
    records = read_records(path, most_steps=500)
    assert [r["epoch"] for r in records if r["kind"] == "epoch"] == list(range(2000))
    kept = [r["epoch"] for r in records if r["kind"] == "step"]
    assert 100 < len(kept) <= 500
    parts = [sum(k * 500 <= number < (k + 1) * 500 for number in kept) for k in range(4)]
    assert max(parts) < 1.3 * min(parts)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Ten times the steps, and much less than ten times the memory: of a whole reading, ten."""
    peaks = []
    for count in (2_000, 20_000):
        path = write(tmp_path, *(f"{step(0, k)}\n" for k in range(count)))
        tracemalloc.start()
        read_records(path, most_steps=200)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0]


def test_reading_stops_at_a_damaged_line(tmp_path: Path) -> None:
    path = write(tmp_path, step(0, 0) + "\n", '{"kind": "st')
    assert places(path) == [(0, 0)]
