"""Reading and cutting the metrics.jsonl of a long run, as at its end and at each --resume."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.sides.measure import Function, Row, arguments, medians, peak_memory, show
from retinanet.training.records import cut_records, read_records

STEPS = 59_000  # of an epoch of COCO, in batches of 2
STEP = {
    **{"kind": "step", "epoch": 0, "iteration": 0},
    **{"classification_loss": 0.51234567890123, "regression_loss": 0.31234567890123},
    **{"running_loss": 0.81234567890123, "gradient_norm": 1.2345678901234, "lr": 1e-05},
    **{"images_per_second": 12.345, "waiting_for_data": 0.0123, "memory_bytes": 3_123_456_789},
}
LIMIT_SECONDS, LIMIT_BYTES = 20, 100e6


def write_steps(path: Path, count: int) -> Path:
    """A file of so many records of steps."""
    with path.open("w", encoding="ascii") as file:
        for number in range(count):
            epoch, iteration = divmod(number, STEPS)
            file.write(json.dumps({**STEP, "epoch": epoch, "iteration": iteration}) + "\n")
    return path


def read_all(path: Path) -> list[object]:
    """Every record, as a list."""
    with path.open("rb") as file:
        return [json.loads(line) for line in file]


def thin(path: Path) -> Function:
    """Our reading, for `peak_memory`."""
    return lambda: read_records(path)


def whole(path: Path) -> Function:
    """The other reading, for `peak_memory`."""
    return lambda: read_all(path)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print; `--side` and `--depth` are unused."""
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--records", type=int, default=6_000_000, help="of the file (6,000,000)")
    parser.add_argument(
        "--shorter", type=int, default=10, metavar="N", help="the other side's part, 1 / N (10)"
    )
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        path = write_steps(Path(name) / "metrics.jsonl", args.records)
        part = write_steps(Path(name) / "part.jsonl", args.records // args.shorter)
        last = divmod(args.records - 1, STEPS)
        time = medians(
            {
                "read": lambda: read_records(path),
                "cut": lambda: cut_records(path, *last),
                "read part": lambda: read_records(part),
                "all of part": lambda: read_all(part),
            },
            args.repeats,
        )
        memory = peak_memory(thin, path)
        memory_of_part, all_of_part = peak_memory(thin, part), peak_memory(whole, part)
    lines, fewer = f"{args.records:,} records", f"{args.records // args.shorter:,} records"
    show(
        [
            Row(f"{lines} read: a limit", time["read"], LIMIT_SECONDS, within=1),
            Row("its peak memory: a limit", memory, LIMIT_BYTES, within=1, unit="MB"),
            Row(f"{lines} cut at the last step: a limit", time["cut"], LIMIT_SECONDS, within=1),
            Row(f"{fewer} read: every one kept", time["read part"], time["all of part"]),
            Row("its peak memory: every one kept", memory_of_part, all_of_part, unit="MB"),
        ]
    )


if __name__ == "__main__":
    main()
