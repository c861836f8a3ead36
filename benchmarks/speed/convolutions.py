"""A training step over its bare convolutions: what all the rest costs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.sides.cases import normalised, our_model, our_step, pictures
from benchmarks.sides.measure import Function, Row, arguments, medians, show
from retinanet.runtime.device import PRECISIONS, start_runtime


class Convolution(NamedTuple):
    """One call of a convolution: its tensors (of the dtype and memory format seen) and settings."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    settings: tuple[Any, ...]
    """Stride, padding, dilation, transposed, output padding, groups."""
    gradient: Tensor


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps every convolution that runs, below autograd and autocast."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Convolution] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator as it is; note it if it is a convolution."""
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default:
            x, weight, bias, *settings = args
            gradient = torch.randn_like(out)
            self.calls.append(Convolution(x, weight, bias, tuple(settings), gradient))
        return out


def recorded(side: int, depth: int, autocast: torch.dtype | None) -> list[Convolution]:
    """The convolutions of one forward of our network in training, batch norm folded into them."""
    model = our_model(depth, training=True)
    model.train()
    model.freeze_bn()
    images = normalised(pictures(side))
    precision = torch.autocast("cpu", autocast, enabled=autocast is not None)
    with torch.no_grad(), precision, Recorder() as recorder:
        model.head_outputs(images)
    return recorder.calls


@torch.no_grad()
def run(calls: Sequence[Convolution]) -> None:
    """Forward, and the gradients of weight and input, of each; the images need no gradient."""
    for x, weight, bias, settings, gradient in calls:
        torch.ops.aten.convolution(x, weight, bias, *settings)
        wanted = [x.shape[1] != 3, True, False]
        torch.ops.aten.convolution_backward(gradient, x, weight, None, *settings, wanted)


def bare_convolutions(side: int, depth: int, precision: str = "auto") -> Function:
    """Record, and return what runs them."""
    calls = recorded(side, depth, start_runtime("cpu", precision).autocast)
    return lambda: run(calls)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = arguments(__doc__, repeats=5)
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="of both (auto)")
    args = parser.parse_args(argv)
    case = args.side, args.depth, args.precision
    time = medians({"ours": our_step(*case), "bare": bare_convolutions(*case)}, args.repeats)
    what = f"training step, {args.precision}: its bare convolutions"
    show([Row(what, time["ours"], time["bare"], within=1.5)])


if __name__ == "__main__":
    main()
