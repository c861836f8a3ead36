"""The process: device, precision, seed. It knows nothing of models or data."""

import os
from dataclasses import dataclass

import torch

from retinanet.errors import DataError

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Runtime:
    """What is the same for the whole run."""

    device: torch.device
    autocast: torch.dtype | None
    """Of convolutions and activations; None is float32. Loss, decoding and NMS are float32."""

    @property
    def precision(self) -> str:
        """The precision's name, to stand beside every number that depends on it."""
        names = {None: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
        return names[self.autocast]


def start_runtime(device: str, precision: str, seed: int | None = None) -> Runtime:
    """Choose device and precision, and seed torch.

    Args:
        device: "auto", or any name that torch knows (cpu, cuda, cuda:1, mps).
        precision: one of `PRECISIONS`; "auto" is bf16 where the hardware multiplies it, else fp32.
        seed: of torch's global generator, from which initial weights are drawn.

    Raises:
        DataError: there is no such device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"--device {device}: not to be had here ({reason}); try cpu") from error
    torch.set_float32_matmul_precision("high")  # TF32 on GPUs that have it
    if seed is not None:
        torch.manual_seed(seed)
    names = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision == "auto":
        precision = "bf16" if _multiplies_bf16(chosen) else "fp32"
    return Runtime(chosen, names[precision])


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
