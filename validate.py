"""Evaluate a saved detector on labelled images."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from retinanet.cli.flags import (
    add_bad_image_flag,
    add_data_flags,
    add_detection_flags,
    add_device_flags,
    add_model_flags,
    add_tile_flags,
    model_file,
)
from retinanet.cli.from_flags import (
    open_validation_data,
    predict_by_flags,
    sample_transform,
    with_tile_flags,
)
from retinanet.cli.parser import Parser, fraction
from retinanet.cli.script import script
from retinanet.data.loading import UnreadableImageError
from retinanet.errors import DataError
from retinanet.evaluation.coco import ap_table
from retinanet.evaluation.measure import Evaluation, measure, name_unreadable
from retinanet.evaluation.voc import as_numbers, voc_table
from retinanet.inference.results import coco_results
from retinanet.report.facts import model_facts
from retinanet.report.report import REPORT_FILES, write_report
from retinanet.runtime.console import say
from retinanet.runtime.device import start_runtime
from retinanet.runtime.distributed import is_main_process
from retinanet.runtime.files import check_output_dir, write_whole
from retinanet.weights.checkpoint import load_checkpoint


def parser() -> Parser:
    """The flags of validate.py."""
    result = Parser("Evaluate a saved detector on labelled images.")
    add_model_flags(result)
    add_data_flags(result)
    add_detection_flags(result)
    add_tile_flags(result)
    add_device_flags(result, precision="fp32", batch_size=4)
    group = result.add_argument_group("results")
    add_bad_image_flag(group)
    group.add_argument(
        "--iou_threshold",
        type=fraction,
        default=0.5,
        metavar="IOU",
        help="IoU from which an object counts as found, for mAP",
    )
    group.add_argument(
        "--report", action="store_true", help="write report.html there too: curves and mistakes"
    )
    group.add_argument(
        "--output_dir", metavar="DIR", help="write metrics.json and detections.json there (nowhere)"
    )
    return result


def numbers(scores: Evaluation, precision: str) -> dict[str, object]:
    """All scores by name, as metrics.json holds them."""
    coco, voc = scores.coco, scores.voc
    named: dict[str, object] = {"precision": precision, **coco.stats}
    named["AP_per_class"] = coco.per_class
    named |= {f"{name}_interval": ends for name, ends in coco.intervals.items()}
    named["AP_interval_per_class"] = coco.class_intervals
    if voc:
        rows = {row.name: as_numbers(row, sure) for row, sure in voc.annotated_intervals}
        named |= {"mAP_VOC": voc.mean_average_precision, "VOC_per_class": rows}
        named["mAP_VOC_interval"] = voc.mean_interval
    return named | {"images": len(scores.dataset), "images_left_out": scores.left_out}


@script
def main(argv: Sequence[str] | None = None) -> None:
    """Load, predict, score, tell."""
    flags = parser()
    args = flags.parse(argv)
    file = model_file(flags, args)
    if args.report and not args.output_dir:
        flags.error("--report needs --output_dir")
    runtime = start_runtime(args.device, args.precision)
    if args.output_dir:
        names = ("metrics.json", "detections.json", *(REPORT_FILES if args.report else ()))
        check_output_dir(args.output_dir, names=names)
    checkpoint = with_tile_flags(load_checkpoint(file), args)
    transform = sample_transform(checkpoint)
    skips = args.on_bad_image == "skip"
    dataset = open_validation_data(flags, args, checkpoint, transform, skip_unreadable=skips)

    unreadable: dict[int, str] = {}
    try:
        detections = predict_by_flags(checkpoint, dataset, args, runtime, unreadable)
    except UnreadableImageError as error:
        raise DataError(f"{error}; or leave it out: --on_bad_image skip") from error
    name_unreadable(unreadable, set())
    if not is_main_process():  # scoring takes time and memory: once is enough
        return

    facts = model_facts(checkpoint, runtime.precision) | {
        "Detections": f"scores above {args.score_threshold:g}, NMS {args.nms_threshold:g}, at most"
        f" {args.max_detections} {'a tile' if checkpoint.tile else 'an image'}"
    }
    say(f"{file}: {'; '.join(facts.values())}")
    scores = measure(
        dataset,
        detections,
        unreadable,
        iou_threshold=args.iou_threshold,
        score_threshold=args.score_threshold,
    )
    summary = f"{scores.note}{scores.coco.summary}\n{scores.coco.certainty}"
    say(f"{summary}\n{ap_table(scores.coco)}")
    if scores.voc:
        say(voc_table(scores.voc))

    if args.output_dir:
        results = coco_results(scores.dataset, scores.detections)
        metrics = numbers(scores, runtime.precision)
        for name, content in (("metrics.json", metrics), ("detections.json", results)):
            path = Path(args.output_dir) / name
            write_whole(path, json.dumps(content, indent=1).encode())
            say(f"Written: {path}")
        if args.report:
            path = write_report(Path(args.output_dir), scores, title=Path(file).name, facts=facts)
            say(f"Written: {path}")


if __name__ == "__main__":
    sys.exit(main())
