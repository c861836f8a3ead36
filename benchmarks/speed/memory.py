"""Peak memory of a training step, above the process before it, against torchvision in float32."""

from collections.abc import Callable, Sequence

from benchmarks.sides.cases import BOXES, our_step, plain_step, torchvision_step
from benchmarks.sides.measure import Function, Row, arguments, peak_memory, show


def two_steps(make: Callable[..., Function], *args: object) -> Function:
    """Two steps: the second one has the optimizer's state beside its activations."""
    step = make(*args)
    return lambda: (step(), step())


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print; weights and images are there before. `--repeats` is unused."""
    args = arguments(__doc__, repeats=1).parse_args(argv)
    case = args.side, args.depth
    ours = peak_memory(two_steps, our_step, *case)
    fp32 = peak_memory(two_steps, our_step, *case, "fp32")
    kept = peak_memory(two_steps, our_step, *case, "auto", BOXES, 3)
    theirs = peak_memory(two_steps, torchvision_step, *case)
    plain = peak_memory(two_steps, plain_step, *case)
    show(
        [
            Row("peak memory: torchvision, float32", ours, theirs, within=0.45, unit="MB"),
            Row("peak memory: the plain loop, float32", ours, plain, unit="MB"),
            Row("peak, `--trainable_layers 3`: all layers", kept, ours, within=1.0, unit="MB"),
            Row("peak, `--precision fp32`: torchvision, float32", fp32, theirs, unit="MB"),
        ]
    )


if __name__ == "__main__":
    main()
