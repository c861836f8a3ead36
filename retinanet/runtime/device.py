"""The process: device, precision and seed, and what the machine is."""

import importlib.metadata
import os
import platform
import re
import sys
from dataclasses import dataclass

import PIL
import torch
import torch.distributed as dist

from retinanet.errors import DataError, printable
from retinanet.runtime.distributed import join_process_group

if sys.platform != "win32":
    import resource


PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Runtime:
    """Device, precision and rank, fixed for the run."""

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
    chosen = usable_device(device)
    torch.set_float32_matmul_precision("high")  # TF32 on GPUs that have it
    if chosen.type == "cuda" and chosen.index is not None:
        torch.cuda.set_device(chosen)
    if world_size > 1 and not dist.is_initialized():
        join_process_group(chosen)
    if seed is not None:
        torch.manual_seed(seed)
    names = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision == "auto":
        precision = "bf16" if _multiplies_bf16(chosen) else "fp32"
    return Runtime(
        chosen, names[precision], rank=int(os.environ.get("RANK", "0")), world_size=world_size
    )


def usable_device(name: str) -> torch.device:
    """The device of a name, after a try whether it works.

    Raises:
        DataError: there is no such device; names those that there are.
    """
    here = ["cpu", *(f"cuda:{k}" for k in range(torch.cuda.device_count()))]
    here += ["mps"] * torch.backends.mps.is_available()
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
    packages = ("torch", "torchvision", "numpy", "pandas", "pycocotools")
    gpu = torch.cuda.get_device_name(runtime.device) if runtime.device.type == "cuda" else None
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
