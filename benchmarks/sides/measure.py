"""Time two sides by turns, measure peak memory in a fresh process, print the table.

It knows nothing of what is measured.
"""

import argparse
import ctypes
import gc
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import torch

Function = Callable[[], object]
UNITS = {"s": (1.0, "s"), "ms": (1e3, "ms"), "MB": (1e-6, "MB")}


@dataclass(frozen=True)
class Row:
    """One line of the table: two sides, and which ratio is wanted."""

    what: str
    ours: float
    """Seconds, or bytes."""
    other: float
    """The same of the other side."""
    faster: float | None = None
    """Target: other / ours is at least this."""
    within: float | None = None
    """Target: ours / other is at most this."""
    unit: Literal["s", "ms", "MB"] = "s"

    def cells(self) -> tuple[str, str, str, str, str]:
        """The line's five cells."""
        factor, unit = UNITS[self.unit]
        ours, other = (f"{value * factor:.4g} {unit}" for value in (self.ours, self.other))
        if self.within is not None:
            return self.what, ours, other, f"{self.ours / self.other:.2f}x", f"<= {self.within:g}x"
        target = "-" if self.faster is None else f">= {self.faster:g}x faster"
        return self.what, ours, other, f"{self.other / self.ours:.2f}x faster", target


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def machine() -> str:
    """CPU, cores, torch's version and threads, and what multiplies bf16."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    # Only recent versions of torch tell.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    kinds = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16"}
    bf16 = next((kind for key, kind in kinds.items() if capabilities.get(key)), "emulated")
    cores = capabilities.get("num_logical_cores") or len(names) or "?"
    threads = torch.get_num_threads()
    return f"{name}, {cores} cores, torch {torch.__version__}, {threads} threads, bf16: {bf16}"


def show(rows: Sequence[Row]) -> None:
    """Print the table, the command that made it and the machine."""
    print(markdown(("what", "ours", "other", "ratio", "target"), [row.cells() for row in rows]))
    print(f"\n`{shlex.join(['python', *sys.orig_argv[1:]])}` on {machine()}\n", flush=True)


def arguments(description: str | None, repeats: int) -> argparse.ArgumentParser:
    """The flags that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--side", type=int, default=608, help="shorter side of images (608 px)")
    parser.add_argument("--depth", type=int, default=50, help="of the ResNet (50)")
    parser.add_argument("--repeats", type=int, default=repeats, help=f"of each side ({repeats})")
    return parser


def medians(
    functions: Mapping[str, Function],
    repeats: int,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Seconds that each function takes.

    They run by turns, so that a machine that slows down does it to all of them.

    Args:
        functions: by name.
        repeats: timed runs of each.
        warm_up: runs of each before those.
        clock: gives seconds; `time.process_time` those of the CPU.

    Returns:
        The median of each, by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(-warm_up, repeats):
        for name, function in functions.items():
            start = clock()
            function()
            elapsed = clock() - start
            if turn >= 0:
                seconds[name].append(elapsed)
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_memory(make: Callable[..., Function], *args: object) -> int:
    """How far the memory of a fresh process rises while a function runs, in bytes.

    Linux with glibc only.

    Args:
        make: a module's function that prepares all that the measured function needs, and returns
            it. What exists then does not count.
        args: of `make`.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_rise, make, args).result()


def _rise(make: Callable[..., Function], args: Sequence[object]) -> int:
    function = make(*args)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # freed memory that the allocator kept would serve again
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = process_memory("VmRSS")
    function()
    return process_memory("VmHWM") - before


def process_memory(field: str) -> int:
    """A size from the kernel's account of this process, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024
