"""A training step: against the plain loop, against torchvision, and with many boxes."""

from collections.abc import Sequence

from benchmarks.sides.cases import our_step, plain_step, torchvision_step
from benchmarks.sides.measure import Row, arguments, medians, show

MANY = 300  # boxes of an image


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    args = arguments(__doc__, repeats=5).parse_args(argv)
    case = args.side, args.depth
    time = medians(
        {
            "ours": our_step(*case),
            "many": our_step(*case, boxes=MANY),
            "kept": our_step(*case, trainable=3),
            "fp32": our_step(*case, precision="fp32"),
            "plain": plain_step(*case),
            "theirs": torchvision_step(*case),
            "best": torchvision_step(*case, best=True),
        },
        args.repeats,
    )
    show(
        [
            Row("training step: the plain loop, float32", time["ours"], time["plain"], faster=5),
            Row("training step: torchvision, float32", time["ours"], time["theirs"], faster=4),
            Row(
                "training step: torchvision, channels_last + bf16 autocast",
                *(time["ours"], time["best"]),
                faster=1.3,
            ),
            Row(
                "`--precision fp32`: torchvision, float32",
                *(time["fp32"], time["theirs"]),
                faster=1.2,
            ),
            Row("`--precision fp32`: the plain loop, float32", time["fp32"], time["plain"]),
            Row("`--trainable_layers 3`: all layers", time["kept"], time["ours"]),
            Row(f"{MANY} boxes an image: 8 boxes", time["many"], time["ours"], within=1.15),
        ]
    )


if __name__ == "__main__":
    main()
