"""Samples as they come, put into batches of one shape, and results put back in order.

Nothing here holds more than a window of samples, so that any number may come.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from retinanet.data.transforms import Sample

Item = TypeVar("Item")
Key = TypeVar("Key")
Value = TypeVar("Value")
Loaded = TypeVar("Loaded")


def batches_of_one_shape(
    loaded: Iterable[tuple[Key, Sample]], batch_size: int, window: int
) -> Iterator[list[tuple[Key, Sample]]]:
    """Batches of samples whose `img` have one shape, at most `batch_size` of them.

    A sample waits for others of its shape until `window` more samples have come. One that is
    unreadable comes alone.
    """
    groups: dict[tuple[int, ...], list[tuple[Key, Sample]]] = {}  # the one that waits longest first
    arrivals: dict[tuple[int, ...], int] = {}  # of the first sample of each group
    for number, (key, sample) in enumerate(loaded):
        if "unreadable" in sample:
            yield [(key, sample)]
            continue
        shape = tuple(sample["img"].shape)
        arrivals.setdefault(shape, number)
        groups.setdefault(shape, []).append((key, sample))
        if len(groups[shape]) < batch_size:
            shape = next(iter(groups))
            if number - arrivals[shape] < window:
                continue
        del arrivals[shape]
        yield groups.pop(shape)
    yield from groups.values()


def in_order(results: Iterable[tuple[tuple[int, Key], Value]]) -> Iterator[tuple[Key, Value]]:
    """Results whose keys are numbered 0, 1, 2 ..., in this order and without the numbers."""
    held: dict[int, tuple[Key, Value]] = {}
    following = 0
    for (number, key), value in results:
        held[number] = key, value
        while following in held:
            yield held.pop(following)
            following += 1


def loaded_ahead(
    items: Iterable[Item], load: Callable[[Item], Loaded], threads: int
) -> Iterator[tuple[Item, Loaded]]:
    """Each item with what `load` makes of it, in order, loaded a little ahead by threads.

    Threads, for decoding and resizing leave Python to others; they share a generator of items,
    start at once, and need no shared memory.
    """
    if threads == 0:
        yield from ((item, load(item)) for item in items)
        return
    pool = ThreadPoolExecutor(threads)
    waiting: deque[tuple[Item, Future[Loaded]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(load, item)))
            if len(waiting) > 2 * threads:
                first, result = waiting.popleft()
                yield first, result.result()
        while waiting:
            first, result = waiting.popleft()
            yield first, result.result()
    finally:
        pool.shutdown(cancel_futures=True)
