"""Measure a saved detector on COCO or CSV data."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from retinanet import cli, coco_eval, csv_eval
from retinanet.checkpoint import load_checkpoint
from retinanet.dataloader import CSVDataset
from retinanet.files import whole_file
from retinanet.inference import predict
from retinanet.logger import say
from retinanet.runtime import start_runtime, usable_workers


def parser() -> cli.Parser:
    """The flags of validate.py."""
    result = cli.Parser("Measure a saved detector on COCO or CSV data.")
    cli.add_model_flags(result)
    cli.add_data_flags(result)
    cli.add_detection_flags(result)
    cli.add_device_flags(result, precision="fp32", batch_size=4)
    group = result.add_argument_group("results")
    group.add_argument(
        "--iou_threshold",
        type=cli.fraction,
        default=0.5,
        metavar="IOU",
        help="overlap that counts as found, for the VOC-style AP of CSV data (0.5)",
    )
    group.add_argument(
        "--output_dir", metavar="DIR", help="write metrics.json and detections.json there (nowhere)"
    )
    return result


@cli.script
def main(argv: Sequence[str] | None = None) -> None:
    """Load, predict, score, tell."""
    flags = parser()
    args = flags.parse(argv)
    file = cli.model_file(flags, args)
    runtime = start_runtime(args.device, args.precision)
    checkpoint = load_checkpoint(file)
    transform = cli.evaluation_transform(checkpoint.min_side, checkpoint.max_side)
    dataset = cli.open_validation_data(flags, args, checkpoint, transform)

    detections = predict(
        checkpoint.build(runtime.device),
        dataset,
        batch_size=args.batch_size,
        workers=usable_workers(args.workers),
        autocast=runtime.autocast,
        progress=True,
        score_threshold=args.score_threshold,
        nms_threshold=args.nms_threshold,
        candidates_per_level=args.candidates_per_level,
        max_detections=args.max_detections,
    )

    say(
        f"{file}: ResNet-{checkpoint.config.depth}, {checkpoint.min_side}-{checkpoint.max_side} px,"
        f" {runtime.precision}; scores above {args.score_threshold:g}, NMS {args.nms_threshold:g},"
        f" at most {args.max_detections} detections an image"
    )
    coco = coco_eval.score_coco(dataset, detections)
    say(f"{coco.summary}\n{coco_eval.class_table(coco)}")
    metrics: dict[str, object] = {"precision": runtime.precision, **coco.stats}
    metrics["AP_per_class"] = coco.per_class
    if isinstance(dataset, CSVDataset):
        voc = csv_eval.score_csv(
            dataset, detections, args.iou_threshold, args.score_threshold, args.max_detections
        )
        say(csv_eval.csv_table(voc))
        metrics["mAP_VOC"] = voc.mean_average_precision
        metrics["VOC_per_class"] = {row.name: csv_eval.as_numbers(row) for row in voc.annotated}

    if args.output_dir and runtime.is_main:
        results = coco_eval.coco_results(dataset, detections)
        for name, content in (("metrics.json", metrics), ("detections.json", results)):
            path = Path(args.output_dir) / name
            with whole_file(path) as stream:
                stream.write(json.dumps(content, indent=1).encode())
            say(f"Written: {path}")


if __name__ == "__main__":
    sys.exit(main())
