"""The process: device, precision and seed, and what the machine is."""

import importlib.metadata
import os
import platform
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import PIL
import torch
import torch.distributed as dist
from torch import Tensor

from retinanet.errors import DataError, printable
from retinanet.runtime.distributed import join_process_group

if sys.platform != "win32":
    import resource


PRECISIONS = ("auto", "fp32", "tf32", "bf16", "fp16")

_AUTOCAST = {"fp32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Backend:
    """Abilities of a kind of device. What one lacks is done another way, or not asked of it."""

    channels_last: bool = False
    """Convolutions are right with the channels last, and fast; else they lie as in the image."""
    learns_channels_last: bool = True
    """Their gradients are fast so, too."""
    found_inf: bool = False
    """Fused optimizers change nothing where `found_inf` is 1; else the host waits and decides."""
    pinned: bool = False
    """Copies to and from pinned memory go on beside the host's work."""


def cpu_backend(capability: str) -> Backend:
    """Abilities of a processor, by torch's name for its vector instructions.

    With AVX2 alone a float32 step takes 0.88 of the time where channels do not lie last, but a
    detection 1.06 (benchmarks/README.md). With AVX-512 both are as fast, and slower in bf16.
    """
    return Backend(channels_last=True, learns_channels_last=capability != "AVX2", found_inf=True)


BACKENDS = {
    "cpu": cpu_backend(torch.backends.cpu.get_cpu_capability()),
    "cuda": Backend(channels_last=True, found_inf=True, pinned=True),
    "xpu": Backend(channels_last=True, found_inf=True, pinned=True),
    # Apple's fused Adam does not look at `found_inf`, its convolutions learn slowly channels last.
    "mps": Backend(),
}


def backend(device: torch.device) -> Backend:
    """The abilities of a device; of an unknown kind, none."""
    return BACKENDS.get(device.type, Backend())


def memory_format(device: torch.device, *, training: bool) -> torch.memory_format:
    """Memory format of images and convolutions, in training or without gradients."""
    able = backend(device)
    last = able.channels_last and (able.learns_channels_last or not training)
    return torch.channels_last if last else torch.contiguous_format


@dataclass(frozen=True)
class Runtime:
    """Device, precision and rank, fixed for the run."""

    device: torch.device
    autocast: torch.dtype | None
    """Float type of convolutions; None is float32. Loss, decoding and NMS are float32."""
    rank: int = 0
    world_size: int = 1
    """Processes that train together; 1 without torchrun."""
    tf32: bool = False
    """Whether a GPU may round the factors of float32 products to 10 bits."""
    started: float = field(default_factory=time.monotonic, compare=False)
    """When the program began its work, seconds of the monotonic clock."""

    @property
    def precision(self) -> str:
        """The precision's name, to stand beside every number that depends on it."""
        names = {None: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
        return "tf32" if self.tf32 else names[self.autocast]


def start_runtime(device: str, precision: str, seed: int | None = None) -> Runtime:
    """Choose device and precision, seed torch, and meet the other processes under torchrun.

    Args:
        device: "auto": the accelerator of this machine, else the CPU; or any name that torch knows
            (cpu, cuda, cuda:1, xpu, mps).
        precision: one of `PRECISIONS`; "auto" is bf16 where the hardware multiplies it, else fp32.
        seed: of torch's global generator, from which initial weights are drawn.

    Raises:
        DataError: there is no such device, or it does not have the precision.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = usable_device(_own_device(device) if world_size > 1 else device)
    if precision == "auto":
        precision = "bf16" if _multiplies_bf16(chosen) else "fp32"
    _check_precision(chosen, precision)
    tf32 = precision == "tf32"
    # Torch's own default lets convolutions round, so that "float32" would be TF32.
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    if chosen.type == "cuda" and chosen.index is not None:
        torch.cuda.set_device(chosen)
    if world_size > 1 and not dist.is_initialized():
        join_process_group(chosen)
    if seed is not None:
        torch.manual_seed(seed)
    rank = int(os.environ.get("RANK", "0"))
    return Runtime(chosen, _AUTOCAST[precision], rank, world_size, tf32)


def _accelerator() -> str:
    """The kind of this machine's accelerator, or "cpu"."""
    if not torch.accelerator.is_available():
        return "cpu"
    found = torch.accelerator.current_accelerator()
    return found.type if found else "cpu"


def _own_device(name: str) -> str:
    """The device of this process of a torchrun."""
    kind = _accelerator() if name == "auto" else name
    if kind == "cpu":
        return kind
    if ":" in kind:
        raise DataError(
            f"--device {printable(name)}: under torchrun each process takes its own;"
            f" give {kind.split(':')[0]}"
        )
    return f"{kind}:{os.environ['LOCAL_RANK']}"


def usable_device(name: str) -> torch.device:
    """The device of a name, checked by a first tensor on it.

    Args:
        name: as `start_runtime` takes it.

    Raises:
        DataError: there is no such device; names those that there are.
    """
    kind = _accelerator()
    name = kind if name == "auto" else name
    here = ["cpu"]
    if kind != "cpu":
        here += [f"{kind}:{k}" for k in range(torch.accelerator.device_count())]
    guess = re.sub(r"^(?:gpu|cuda)?:?(\d*)$", r"cuda:\1", name.lower()).rstrip(":")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        known = (guess != name.lower() and f"; its name is {guess}") or ""
        raise DataError(
            f"--device {printable(name)}: no such device here{known}; give one of {', '.join(here)}"
        ) from error
    return device


def _check_precision(device: torch.device, precision: str) -> None:
    """Refuse a precision that the device does not have.

    Raises:
        DataError: names the way out.
    """
    if _AUTOCAST[precision] and not torch.amp.is_autocast_available(device.type):
        raise DataError(f"--precision {precision}: {device} has float32 only; give fp32")
    if precision == "tf32" and not _is_ampere(device):
        raise DataError(
            f"--precision tf32: {device} does not have it, as NVIDIA's GPUs since Ampere; give fp32"
        )


def _is_ampere(device: torch.device) -> bool:
    """Whether it is an NVIDIA GPU of 2020 or later, with bf16 and TF32."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def _multiplies_bf16(device: torch.device) -> bool:
    """Whether bf16 is faster than float32 there: it is emulated, slowly, elsewhere."""
    if device.type == "cuda":
        return _is_ampere(device)
    if device.type == "xpu":
        return torch.xpu.is_bf16_supported()
    if device.type == "cpu":
        # Only recent versions of torch tell.
        capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    return False


def copied_to_host(values: Tensor) -> Callable[[], list[float]]:
    """Begin to copy numbers to the host; the result waits for them, and for nothing begun later.

    Args:
        values: [n], few.
    """
    if not backend(values.device).pinned:
        return values.tolist
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    copied = torch.Event(values.device)
    copied.record()

    def read() -> list[float]:
        copied.synchronize()
        return host.tolist()

    return read


def usable_workers(wanted: int) -> int:
    """As many loader processes as wanted, but never more than this process may use cores."""
    if hasattr(os, "sched_getaffinity"):
        return min(wanted, len(os.sched_getaffinity(0)))
    return min(wanted, os.cpu_count() or 1)


def peak_memory(device: torch.device | None) -> int:
    """The most memory that was in use so far, bytes: of a GPU, or of this process."""
    if device is not None and device.type in ("cuda", "xpu"):
        return int(torch.get_device_module(device).max_memory_allocated(device))
    if sys.platform == "win32":
        return 0  # nothing in the standard library tells
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def describe_machine(runtime: Runtime) -> dict[str, object]:
    """Versions and machine, to be kept beside a run's numbers."""
    packages = ("torch", "torchvision", "numpy", "pandas", "pycocotools")
    gpu = None
    if runtime.device.type in ("cuda", "xpu"):
        gpu = torch.get_device_module(runtime.device).get_device_name(runtime.device)
    return {
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in packages}
        | {"pillow": PIL.__version__},  # which other packages provide, too
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


def shares_batches(runtime: Runtime) -> bool:
    """Whether DataParallel splits batches over several GPUs."""
    everywhere = runtime.device.type == "cuda" and runtime.device.index is None
    return everywhere and runtime.world_size == 1 and torch.cuda.device_count() > 1


def describe(runtime: Runtime) -> str:
    """Device and precision of a run, and a hint where it could be faster."""
    text = f"{runtime.device}, {runtime.precision}"
    if runtime.world_size > 1:
        text += f", {runtime.world_size} processes"
    elif shares_batches(runtime):
        gpus = torch.cuda.device_count()
        text += f"; {gpus} GPUs share each batch (faster: torchrun --nproc_per_node={gpus} ...)"
    return text
