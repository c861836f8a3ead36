"""Batches of one shape from samples as they come, results in order, loading ahead."""

import threading
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retinanet.data.transforms import Sample
from retinanet.inference.batching import batches_of_one_shape, in_order, loaded_ahead


def sample(height: int) -> Sample:
    return {"img": torch.zeros(height, 1, 3)}


@given(st.lists(st.integers(1, 4), max_size=60), st.integers(1, 5), st.integers(1, 12))
def test_each_sample_once_in_batches_of_one_shape_after_a_bounded_wait(
    heights: list[int], batch_size: int, window: int
) -> None:
    come = 0  # samples taken so far

    def samples() -> Iterator[tuple[int, Sample]]:
        nonlocal come
        for number, height in enumerate(heights):
            come = number + 1
            yield number, sample(height)

    seen: list[int] = []
    for batch in batches_of_one_shape(samples(), batch_size, window):
        assert 1 <= len(batch) <= batch_size
        assert len({tuple(one["img"].shape) for _, one in batch}) == 1
        seen += [number for number, _ in batch]
        waiting = set(range(come)) - set(seen)
        if come < len(heights):
            assert all(come - 1 - number <= window + 3 for number in waiting)  # 4 shapes at most
    assert sorted(seen) == list(range(len(heights)))


def test_a_rare_shape_does_not_wait_for_the_end() -> None:
    heights = [9] + [1] * 20
    loaded = ((k, sample(height)) for k, height in enumerate(heights))
    batches = [[k for k, _ in batch] for batch in batches_of_one_shape(loaded, 2, window=6)]
    # 0 waits while 1 to 6 come: three batches, the third of which is full when 6 is there.
    assert batches[:5] == [[1, 2], [3, 4], [5, 6], [0], [7, 8]]


def test_an_unreadable_sample_comes_alone_and_at_once() -> None:
    loaded = [(0, sample(1)), (1, Sample(unreadable="a.jpg: empty")), (2, sample(1))]
    batches = [[k for k, _ in batch] for batch in batches_of_one_shape(loaded, 2, window=9)]
    assert batches == [[1], [0, 2]]


def test_results_in_order_as_soon_as_their_turn_has_come() -> None:
    def results() -> Iterator[tuple[tuple[int, str], int]]:
        yield (1, "b"), 10
        yield (0, "a"), 11
        yield (2, "c"), 12
        raise ValueError("c was not waited for")

    ordered = in_order(results())
    assert [next(ordered) for _ in range(3)] == [("a", 11), ("b", 10), ("c", 12)]


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_loading_ahead_keeps_the_order_and_takes_few(threads: int) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    loaded = loaded_ahead(items(), lambda item: -item, threads)
    assert [next(loaded) for _ in range(20)] == [(k, -k) for k in range(1, 21)]
    assert taken <= 20 + 2 * threads + 1
    loaded.close()  # type: ignore[attr-defined]
    assert threading.active_count() < 10


def test_threads_load_at_the_same_time() -> None:
    meeting = threading.Barrier(3)
    loaded = loaded_ahead(range(3), lambda _: meeting.wait(timeout=20), 3)
    assert len({place for _, place in loaded}) == 3


def test_an_error_of_loading_is_passed_on() -> None:
    loaded = loaded_ahead(range(9), lambda k: 1 // (k - 4), threads=2)
    with pytest.raises(ZeroDivisionError):
        list(loaded)
