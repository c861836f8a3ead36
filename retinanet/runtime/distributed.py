"""The other processes of a torchrun: meeting them, and what all of them agree on."""

import os
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

Made = TypeVar("Made")

PEER_TIMEOUT = timedelta(minutes=10)  # longer than any process works alone; then it gives up


def join_process_group(device: torch.device) -> None:
    """Join the other processes of a torchrun.

    Tensors of a GPU go through its own library (nccl, xccl), small facts about a batch through
    gloo, which does not make the host wait for the device.
    """
    kind = device.type
    store, rank, world_size = next(rendezvous("env://", timeout=PEER_TIMEOUT))
    # All restarts of a run share torchrun's store: without a prefix of its own, a process could
    # read there where one that is dead now was listening, and wait for it.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.PrefixStore(attempt, store)  # type: ignore[attr-defined]
    dist.init_process_group(
        f"{kind}:{dist.get_default_backend_for_device(kind)},cpu:gloo" if kind != "cpu" else "gloo",
        timeout=PEER_TIMEOUT,
        store=store,
        rank=rank,
        world_size=world_size,
    )


class GlobalBatch(NamedTuple):
    """The batch of all processes together in one step."""

    height: int
    """Height of the largest image, pixels."""
    width: int
    images: int
    """Images of all processes."""
    stop: bool
    """True if any process was asked to stop."""


def is_main_process() -> bool:
    """Whether this process speaks and writes files: rank 0, or a run without torchrun."""
    return os.environ.get("RANK", "0") == "0"


def run_id() -> str | None:
    """Id that torchrun gives this run and all its restarts; None without torchrun."""
    return os.environ.get("TORCHELASTIC_RUN_ID")


def was_restarted() -> bool:
    """Whether torchrun has started this process again after another had died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def rank_and_world_size() -> tuple[int, int]:
    """This process's rank and how many there are; (0, 1) without torchrun."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def global_batch(height: int, width: int, images: int, *, stop: bool) -> GlobalBatch:
    """Agree on the size of a step's batch, and on whether to stop after it.

    Args:
        height: of this process's images, pixels.
        width: of this process's images, pixels.
        images: how many this process has.
        stop: whether this process was asked to stop.

    Returns:
        The same for all processes; the arguments where there is only one.
    """
    if not dist.is_initialized():
        return GlobalBatch(height, width, images, stop)
    own = torch.tensor([height, width, images, int(stop)])
    every = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(every, own)
    largest, total = torch.stack(every).amax(dim=0).tolist(), int(sum(x[2] for x in every))
    return GlobalBatch(largest[0], largest[1], total, bool(largest[3]))


def all_reduce_sum(values: Tensor) -> Tensor:
    """Add up a tensor over all processes, in place, without waiting for the device."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def gather(part: Any) -> list[Any]:
    """Gather the parts of all processes, in order of rank; `[part]` where there is only one."""
    if not dist.is_initialized():
        return [part]
    parts = [None] * dist.get_world_size()
    dist.all_gather_object(parts, part)
    return parts


def from_main(make: Callable[[], Made]) -> Made:
    """Make something in the first process alone, and give it to all."""
    if not dist.is_initialized():
        return make()
    made = [make() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(made, src=0)
    return cast(Made, made[0])


def shut_down() -> None:
    """Leave the process group in good order, at the end."""
    if dist.is_initialized():
        dist.destroy_process_group()


def broadcast_from_main(tensors: Iterable[Tensor]) -> None:
    """Give tensors the values that they have in the first process."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def barrier() -> None:
    """Wait until every process has come here."""
    if dist.is_initialized():
        dist.barrier()
