"""Where the time of a training step or of a detection goes: the profiler's operators, in groups."""

from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.sides.cases import our_step, plain_step
from benchmarks.sides.measure import Function, arguments, machine, markdown
from benchmarks.speed.detection import our_detection
from retinanet.losses import FocalLoss
from retinanet.runtime.device import PRECISIONS, start_runtime

TOP = 12  # operators in the second table

# The first group with a word of which the operator's or an enclosing operator's name has a part.
GROUPS = {
    "convolutions, backward": ("convolution_backward",),
    "convolutions, forward": ("mkldnn_convolution", "aten::convolution", "aten::_convolution"),
    "loss": ("FocalLoss", "SmoothL1LossBackward"),
    "optimizer and clipping": ("Optimizer.", "_foreach", "_fused_adam", "vector_norm"),
    "copies and conversions": ("aten::copy_", "aten::cat", "aten::clone", "aten::fill_"),
    "ReLU, residual and pyramid additions": ("relu", "threshold_backward", "aten::add"),
    "pooling and upsampling": ("max_pool", "upsample"),
    "batch norm folded into weights": (
        "aten::mul",
        "MulBackward",
        "aten::sum",
        "rsqrt",
        "aten::sub",
    ),
}


def detection(args: Namespace) -> Function:
    """Our detection of one image, in the precision that is asked for."""
    autocast = start_runtime("cpu", args.precision).autocast
    return our_detection(args.side, args.depth, autocast, everything=False)


CASES: dict[str, Callable[[Namespace], Function]] = {
    "step": lambda args: our_step(args.side, args.depth, args.precision),
    "plain": lambda args: plain_step(args.side, args.depth),
    "detection": detection,
}


def enclosing(event: FunctionEvent) -> Iterator[str]:
    """The names of an event and of all that it runs in."""
    here: FunctionEvent | None = event
    while here is not None:
        yield here.name
        here = here.cpu_parent


def group(event: FunctionEvent) -> str:
    """The group of an event: that of the loss if it runs in it, whatever it is."""
    names = list(enclosing(event))
    for title in ("loss", "optimizer and clipping", *GROUPS):
        if any(word in name for word in GROUPS[title] for name in names):
            return title
    return "other"


def profiled(step: Function, repeats: int) -> list[FunctionEvent]:
    """The operators of some calls, after one to warm up."""
    forward = FocalLoss.forward

    def named(*args: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with record_function("FocalLoss"):
            return forward(*args)  # type: ignore[arg-type]

    step()
    FocalLoss.forward = named  # type: ignore[method-assign, assignment]
    try:
        with profile(activities=[ProfilerActivity.CPU]) as result:
            for _ in range(repeats):
                step()
    finally:
        FocalLoss.forward = forward  # type: ignore[method-assign]
    return list(result.events())


def table(header: str, micros: Counter[str], repeats: int, count: int | None = None) -> str:
    """The largest of some times, each with its share of all."""
    total = sum(micros.values())
    rows = [
        (name, f"{value / repeats / 1e3:.1f}", f"{value / total:.1%}")
        for name, value in micros.most_common(count)
    ]
    sums = ("**together**", f"{total / repeats / 1e3:.1f}", "100%")
    return markdown((header, "ms", "share"), [*rows, *([] if count else [sums])])


def main(argv: Sequence[str] | None = None) -> None:
    """Profile and print."""
    parser = arguments(__doc__, repeats=3)
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="auto", help="of the step (auto)"
    )
    parser.add_argument(
        "--of", choices=tuple(CASES), default="step", help="plain is the plain loop's step (step)"
    )
    args = parser.parse_args(argv)
    groups: Counter[str] = Counter()
    operators: Counter[str] = Counter()
    for event in profiled(CASES[args.of](args), args.repeats):
        groups[group(event)] += event.self_cpu_time_total
        operators[event.name] += event.self_cpu_time_total
    if args.of != "plain":  # whose loss cannot be told from the rest by the names of its operators
        print(table("group", groups, args.repeats), end="\n\n")
    print(table(f"the {TOP} largest operators", operators, args.repeats, TOP), end="\n\n")
    precision = "fp32" if args.of == "plain" else args.precision
    print(f"{args.of}, precision {precision}, on {machine()}\n", flush=True)


if __name__ == "__main__":
    main()
