"""Loader processes: one way to start them, to wait for them, and to say why nothing comes."""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from retinanet.errors import DataError
from retinanet.runtime.console import say
from retinanet.runtime.signals import StopRequest, leave_signals_to_main

TIMEOUT = 600.0  # seconds to wait for a batch: far longer than the largest photographs take
SLICE = 5.0  # seconds of one wait: of a pause of the whole program no more are counted
SHARED_MEMORY = "/dev/shm"
WAYS_OUT = "give docker --shm-size=2g or --ipc=host, or train with --workers 0"


class LoadingError(DataError):
    """The next batch could not be loaded; all before it are whole."""


class UnreadableImageError(LoadingError):
    """An image of the next batch cannot be read, and its data set does not skip such images."""


class Loader:
    """Batches from a data set, made by processes that stay for the next pass.

    A batch goes from a loader process to this one through shared memory; where too little is left
    of that (Docker gives 64 MB), through a pipe, which costs a copy.

    Args:
        dataset: gives samples by their number.
        workers: processes; 0 loads in this one.
        collate: makes a batch of samples, or of one sample where `order` has no batches.
        pin_memory: for copies to a GPU.
        timeout: seconds after which a batch that has not come is an error.
        order: `batch_sampler`, or `sampler` and `batch_size`, as torch's DataLoader takes them.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        *,
        workers: int,
        collate: Callable[[Any], Any],
        pin_memory: bool = False,
        timeout: float = TIMEOUT,
        **order: Any,
    ) -> None:
        self.timeout = timeout
        self._loader: DataLoader[Any] = DataLoader(
            dataset,
            num_workers=workers,
            collate_fn=_HandOver(collate, workers),
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            timeout=min(timeout, SLICE) if workers else 0,
            worker_init_fn=leave_signals_to_main,
            **order,
        )
        self._said = False

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        """Go through the batches of a pass.

        Raises:
            LoadingError: a process died, or a batch did not come in time.
            UnreadableImageError: an image of a batch cannot be read.
        """
        with StopRequest.held():
            batches = iter(self._loader)  # which starts the processes
        while (batch := self._next(batches)) is not None:
            yield self._received(batch)

    def _next(self, batches: Iterator[Any]) -> Any:
        """The next batch; None after the last."""
        waited = 0.0
        while True:
            try:
                return next(batches, None)
            except DataError as error:
                raise UnreadableImageError(str(error)) from error
            except RuntimeError as error:
                text = str(error)
                waited += SLICE
                if "timed out" in text and waited < self.timeout:
                    continue
                if "timed out" in text:
                    reason = f"no batch came from the loader processes in {self.timeout:g} s"
                elif "exited unexpectedly" in text or "killed by signal" in text:
                    reason = f"a loader process died ({text.splitlines()[0]})"
                else:
                    raise
                raise LoadingError(
                    f"{reason}; expected one in time: the disk may hang, or memory be short"
                    f" ({SHARED_MEMORY} has {_megabytes_left()}); {WAYS_OUT}"
                ) from error

    def _received(self, batch: Any) -> Any:
        if not isinstance(batch, _Copied):
            return batch
        if not self._said:
            self._said = True
            say(
                f"{SHARED_MEMORY} has {_megabytes_left()} left: batches are copied through pipes;"
                " docker's --shm-size=2g or --ipc=host makes loading faster"
            )
        return {
            key: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
            for key, value in batch.items.items()
        }


class _Copied:
    """A batch with arrays in place of tensors, which are pickled by value."""

    def __init__(self, batch: Mapping[str, Any]) -> None:
        self.items = {
            key: value.numpy() if isinstance(value, Tensor) else value
            for key, value in batch.items()
        }


class _HandOver:
    """A collate function that looks, in a loader process, how the batch can travel."""

    def __init__(self, collate: Callable[[Any], Any], workers: int) -> None:
        self.collate, self.workers = collate, workers

    def __call__(self, samples: Any) -> Any:
        batch = self.collate(samples)
        if get_worker_info() is None:
            return batch
        size = sum(value.nbytes for value in batch.values() if isinstance(value, Tensor))
        # All processes may hand over at the same time, while each one's last batch waits.
        return batch if shared_memory_left() > 2 * self.workers * size else _Copied(batch)


def shared_memory_left() -> float:
    """Bytes of shared memory that are free; infinite where the system does not limit it so."""
    try:
        found = os.statvfs(SHARED_MEMORY)
    except (AttributeError, OSError):  # Windows and macOS have another kind
        return math.inf
    return found.f_bavail * found.f_frsize


def _megabytes_left() -> str:
    left = shared_memory_left()
    return "no limit" if left == math.inf else f"{left / 2**20:.0f} MB"
