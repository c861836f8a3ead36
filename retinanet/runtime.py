"""The process: device, precision, seed, its peers under torchrun, requests to stop.

It knows nothing of models or data.
"""

import importlib.metadata
import multiprocessing
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import Any, NamedTuple, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from retinanet.errors import DataError

if sys.platform != "win32":
    import resource

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
PEER_TIMEOUT = timedelta(minutes=10)  # longer than any process works alone; then it gives up
SAME_REQUEST = 1.0  # seconds in which signals to stop count as one


@dataclass(frozen=True)
class Runtime:
    """What is the same for the whole run."""

    device: torch.device
    autocast: torch.dtype | None
    """Of convolutions and activations; None is float32. Loss, decoding and NMS are float32."""
    rank: int = 0
    world_size: int = 1
    """Processes that train together; 1 without torchrun."""

    @property
    def precision(self) -> str:
        """The precision's name, to stand beside every number that depends on it."""
        names = {None: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
        return names[self.autocast]

    @property
    def is_main(self) -> bool:
        """Whether this process speaks and writes files."""
        return self.rank == 0


def start_runtime(device: str, precision: str, seed: int | None = None) -> Runtime:
    """Choose device and precision, seed torch, and meet the other processes under torchrun.

    Args:
        device: "auto", or any name that torch knows (cpu, cuda, cuda:1, mps).
        precision: one of `PRECISIONS`; "auto" is bf16 where the hardware multiplies it, else fp32.
        seed: of torch's global generator, from which initial weights are drawn.

    Raises:
        DataError: there is no such device.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if world_size > 1 and device.startswith("cuda"):
        if device != "cuda":
            raise DataError(
                f"--device {device}: under torchrun each process takes its own GPU; give cuda"
            )
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"--device {device}: not to be had here ({reason}); try cpu") from error
    torch.set_float32_matmul_precision("high")  # TF32 on GPUs that have it
    if chosen.type == "cuda" and chosen.index is not None:
        torch.cuda.set_device(chosen)
    if world_size > 1 and not dist.is_initialized():
        _meet_peers(chosen)
    if seed is not None:
        torch.manual_seed(seed)
    names = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision == "auto":
        precision = "bf16" if _multiplies_bf16(chosen) else "fp32"
    return Runtime(
        chosen, names[precision], rank=int(os.environ.get("RANK", "0")), world_size=world_size
    )


def _meet_peers(device: torch.device) -> None:
    """Join the other processes of a torchrun.

    Tensors of the device go through nccl, small facts about a batch through gloo, which does not
    make the host wait for the device.
    """
    store, rank, world_size = next(rendezvous("env://", timeout=PEER_TIMEOUT))
    # All restarts of a run share torchrun's store: without a prefix of its own, a process could
    # read there where one that is dead now was listening, and wait for it.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.PrefixStore(attempt, store)  # type: ignore[attr-defined]
    dist.init_process_group(
        "cuda:nccl,cpu:gloo" if device.type == "cuda" else "gloo",
        timeout=PEER_TIMEOUT,
        store=store,
        rank=rank,
        world_size=world_size,
    )


def _multiplies_bf16(device: torch.device) -> bool:
    """Whether bf16 is faster than float32 there: it is emulated, slowly, elsewhere."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # Only recent versions of torch tell.
        capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    return False


def usable_workers(wanted: int) -> int:
    """As many loader processes as wanted, but never more than this process may use cores."""
    if hasattr(os, "sched_getaffinity"):
        return min(wanted, len(os.sched_getaffinity(0)))
    return min(wanted, os.cpu_count() or 1)


def peak_memory(device: torch.device | None) -> int:
    """The most memory that was in use so far, bytes: of a GPU, or of this process."""
    if device is not None and device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0  # nothing in the standard library tells
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def describe_machine(runtime: Runtime) -> dict[str, object]:
    """Versions and machine, to be kept beside a run's numbers."""
    packages = ("torch", "torchvision", "numpy", "pandas", "pillow", "pycocotools")
    gpu = torch.cuda.get_device_name(runtime.device) if runtime.device.type == "cuda" else None
    return {
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in packages},
        "machine": {
            "system": platform.platform(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "device": str(runtime.device),
            "gpu": gpu,
            "precision": runtime.precision,
            "processes": runtime.world_size,
        },
    }


# ---- peers under torchrun ----


class JointBatch(NamedTuple):
    """What all processes together take in one step."""

    height: int
    """Of the largest image, pixels."""
    width: int
    images: int
    """How many, over all processes."""
    stop: bool
    """Whether any process was asked to stop."""


def run_id() -> str | None:
    """What torchrun calls this run and all its restarts; None without torchrun."""
    return os.environ.get("TORCHELASTIC_RUN_ID")


def was_restarted() -> bool:
    """Whether torchrun has started this process again after another had died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def peers() -> tuple[int, int]:
    """This process's rank and how many there are; (0, 1) without torchrun."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def joint_batch(height: int, width: int, images: int, *, stop: bool) -> JointBatch:
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
        return JointBatch(height, width, images, stop)
    own = torch.tensor([height, width, images, int(stop)])
    every = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(every, own)
    largest, total = torch.stack(every).amax(dim=0).tolist(), int(sum(x[2] for x in every))
    return JointBatch(largest[0], largest[1], total, bool(largest[3]))


def sum_over_processes(values: Tensor) -> Tensor:
    """Add up a tensor over all processes, in place, without waiting for the device."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def gather(part: Any) -> list[Any]:
    """What every process gives, in order of rank; `[part]` where there is only one."""
    if not dist.is_initialized():
        return [part]
    parts = [None] * dist.get_world_size()
    dist.all_gather_object(parts, part)
    return parts


def part_from_peers() -> None:
    """Leave the other processes in good order, at the end."""
    if dist.is_initialized():
        dist.destroy_process_group()


def take_from_first(tensors: Iterable[Tensor]) -> None:
    """Give tensors the values that they have in the first process."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def wait_for_all() -> None:
    """Go on when every process has come here."""
    if dist.is_initialized():
        dist.barrier()


# ---- requests to stop ----


class StoppedError(Exception):
    """The process was asked to stop by a signal; `advice` says how to go on."""

    def __init__(self, signal_number: int, advice: str = "") -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}; {advice}".strip("; "))
        self.signal_number = signal_number


class StopRequest:
    """SIGINT and SIGTERM as a question that the run asks where it can stop well.

    The first signal is noted; inside `at_once` it raises `StoppedError` where it comes. Another one
    ends the process as if nothing were here, but for those that come with the first: `timeout` and
    torchrun send theirs twice.

    Args:
        advice: how to go on, for the message.
    """

    def __init__(self, advice: str) -> None:
        self.advice = advice
        self.signal_number: int | None = None
        self._taken = 0.0  # when, seconds
        self._raises = False
        self._before: dict[int, Any] = {}
        self._process = os.getpid()

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def raise_if_asked(self) -> None:
        """Stop here if a signal has come."""
        if self.signal_number:
            raise StoppedError(self.signal_number, self.advice)

    def stop(self) -> NoReturn:
        """Stop here, because this process or another of the run was asked to."""
        raise StoppedError(self.signal_number or signal.SIGTERM, self.advice)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """While nothing would be lost: a signal need not wait."""
        self.raise_if_asked()
        self._raises = True
        try:
            yield
        finally:
            self._raises = False

    def _take(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a loader worker that was just forked; signals are the main process's
        if self.signal_number is None:
            self.signal_number, self._taken = number, time.monotonic()
            if self._raises:
                self.stop()
        elif time.monotonic() - self._taken > SAME_REQUEST:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def leave_signals_to_main(worker: int) -> None:
    """A loader worker ignores what all processes are sent: Ctrl-C, and a batch system's SIGTERM.

    The main process decides; only its own SIGTERM, by which it ends its workers, ends one.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # elsewhere nobody can tell who sent a signal
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_the_parent_says_so, daemon=True).start()
    else:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end_when_the_parent_says_so() -> None:
    """SIGTERM is blocked in this process's threads; take it here."""
    parent = multiprocessing.parent_process()
    while parent and signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(0)
