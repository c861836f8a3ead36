"""Detection of one image, against torchvision; and when every score passes the threshold."""

from collections.abc import Sequence

import torch
from skimage import data
from torch import Tensor
from torch.nn import functional as F

from benchmarks.sides.cases import (
    image_size,
    let_pass,
    normalised,
    our_model,
    spread,
    torchvision_model,
)
from benchmarks.sides.measure import Function, Row, arguments, medians, show

CANDIDATES = 3000  # pairs of anchor and class over the threshold


def photograph(side: int) -> Tensor:
    """A photograph of 0..1: [1, 3, H, W]."""
    pixels = torch.from_numpy(data.coffee())
    return F.interpolate(pixels.permute(2, 0, 1)[None] / 255, image_size(side), mode="bilinear")


def our_detection(
    side: int, depth: int, autocast: torch.dtype | None, everything: bool
) -> Function:
    """Ours; with a usual number of candidates, or with all scores at 0.5."""
    model = our_model(depth).eval()
    image = normalised(photograph(side))
    spread(model.regressionModel.output, lambda: model.head_outputs(image)[1], 1.0)
    output = model.classificationModel.output
    if everything:
        torch.nn.init.zeros_(output.bias)  # type: ignore[arg-type]  # its weights are zero already
    else:
        let_pass(output, lambda: model.head_outputs(image)[0], CANDIDATES)

    @torch.inference_mode()
    def run() -> None:
        with torch.autocast("cpu", autocast, enabled=autocast is not None):
            model.detect(image, [image_size(side)])

    return run


def torchvision_detection(side: int, depth: int) -> Function:
    """The same of torchvision, in float32, with as many candidates."""
    model = torchvision_model(side, depth).eval()
    picture = photograph(side)[0]

    def heads() -> dict[str, Tensor]:
        images, _ = model.transform([picture])
        return model.head(list(model.backbone(images.tensors).values()))

    # Its deltas are in units of the anchor, ours in tenths of that.
    spread(model.head.regression_head.bbox_reg, lambda: heads()["bbox_regression"], 0.1)
    cls_logits = model.head.classification_head.cls_logits
    let_pass(cls_logits, lambda: heads()["cls_logits"], CANDIDATES)
    return torch.inference_mode()(lambda: model([picture]))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    args = arguments(__doc__, repeats=9).parse_args(argv)
    case = args.side, args.depth
    time = medians(
        {
            "fp32": our_detection(*case, None, everything=False),
            "bf16": our_detection(*case, torch.bfloat16, everything=False),
            "fp32, all": our_detection(*case, None, everything=True),
            "bf16, all": our_detection(*case, torch.bfloat16, everything=True),
            "theirs": torchvision_detection(*case),
        },
        args.repeats,
    )
    rows = [
        Row("detection, bf16: torchvision, float32", time["bf16"], time["theirs"], faster=4),
        Row("detection, fp32: torchvision, float32", time["fp32"], time["theirs"]),
    ]
    for name in ("bf16", "fp32"):
        what = f"detection, {name}, all scores 0.5: {CANDIDATES} over the threshold"
        rows.append(Row(what, time[f"{name}, all"], time[name], within=1.5))
    show(rows)


if __name__ == "__main__":
    main()
