"""Charts as SVG and PNG: losses and scores of a run, precision, recall, F1, confusion.

The history of a run is the records of its metrics.jsonl, either
`{"kind": "step", "epoch", "iteration", a loss by its name, ...}` or
`{"kind": "epoch", "epoch", "metrics": {name: value}, ...}`; epochs and iterations count from 0.
"""

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from retinanet.evaluation.intervals import Interval
from retinanet.evaluation.precision_recall import ClassScores, Floats, mean_f1
from retinanet.report.drawing import class_color
from retinanet.runtime.files import write_whole
from retinanet.runtime.own_files import MARK

if TYPE_CHECKING:  # importing it takes a tenth of a script's start, so it waits for the first chart
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

History: TypeAlias = Sequence[Mapping[str, Any]]
POINTS = 300  # of a curve: more cannot be told apart on a screen
INK = "#1f2933"
FAINT = "#8a959f"  # for what is there, but not the point
COLORED_CLASSES = 8  # more colours cannot be told apart
LONGEST_NAME = 18  # letters

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10.5,
    "text.usetex": False,
    "text.parse_math": False,  # a class may be called $
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "xtick.major.pad": 6,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.handlelength": 1.2,
    "svg.fonttype": "none",  # letters stay letters
    "svg.hashsalt": "retinanet",  # the same chart gives the same file
}

_SVG_STYLE = (
    "<style>svg{color:#1f2933}text{font-family:system-ui,sans-serif!important}"
    "@media(prefers-color-scheme:dark){svg{color:#d9dfe5}}</style>"
)


class Chart(NamedTuple):
    """One figure as two files."""

    svg: bytes
    """Transparent ground; ink dark or light as the reader's screen is."""
    png: bytes
    """White ground."""


class Line(NamedTuple):
    """One line of a chart."""

    name: str
    """Name in the legend; empty: not in it."""
    x: Floats
    """[T] positions."""
    y: Floats
    """[T] values."""
    color: str
    width: float = 1.3
    band: tuple[Floats, Floats] | None = None
    """[T] lower and upper ends of an interval, drawn behind the line."""


def loss_curve(history: History, name: str) -> tuple[Floats, Floats]:
    """Epochs [T] and a loss [T] of the steps, or their means over equal stretches if many.

    A loss that was not finite is None, and left out.
    """
    steps = [record for record in history if record["kind"] == "step"]
    length = 1 + max((record["iteration"] for record in steps), default=0)  # of an epoch
    points = [
        (record["epoch"] + record["iteration"] / length, record[name])
        for record in steps
        if record[name] is not None
    ]
    table = np.array(points, dtype=float).reshape(-1, 2)
    if len(table) > POINTS:
        table = np.array([part.mean(axis=0) for part in np.array_split(table, POINTS)])
    return table[:, 0], table[:, 1]


def metric_curve(history: History, name: str) -> tuple[Floats, Floats]:
    """Epochs [T] and a metric [T] of those that have it; -1 is COCO's sign for none."""
    points = [
        (record["epoch"], record["metrics"][name])
        for record in history
        if record["kind"] == "epoch" and record["metrics"].get(name, -1) >= 0
    ]
    table = np.array(points, dtype=float).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def losses_chart(history: History) -> Chart | None:
    """The losses of a run; None where no step is recorded."""
    lines = [
        Line("running loss", *loss_curve(history, "running_loss"), INK),
        Line("classification", *loss_curve(history, "classification_loss"), line_color(1)),
        Line("regression", *loss_curve(history, "regression_loss"), line_color(0)),
    ]
    if not any(len(line.x) for line in lines):
        return None
    # One wild step, of which first epochs are full, would flatten all that follows, and the
    # running loss remembers it for long: the axis is for what most steps have.
    parts = np.concatenate([line.y for line in lines[1:]])
    peak, ceiling = (parts.max(), 3 * np.percentile(parts, 97)) if len(parts) else (0.0, 0.0)
    if peak <= 2 * ceiling:
        return line_chart(lines, xlabel="epoch", ylabel="loss", ylim=(0, None))
    cut = [line._replace(y=np.minimum(line.y, ceiling)) for line in lines]
    return line_chart(
        cut, xlabel="epoch", ylabel=f"loss (cut; up to {peak:.4g})", ylim=(0, ceiling)
    )


def scores_chart(history: History) -> Chart | None:
    """The average precisions after each epoch; None where none was evaluated."""
    main = _score_line("mAP", "mAP", history, INK)
    if not len(main.x):  # which COCO data have not
        main = _score_line("COCO AP50", "AP50", history, INK)
    coco = _score_line("COCO AP", "AP", history, line_color(1))
    lines = [line for line in (main, coco) if len(line.x)]
    if not lines:
        return None
    name, x, y, *_, band = main if main.name == "mAP" else coco  # what the best checkpoint goes by
    best = int(y.argmax())
    ends = [end[best] for end in band or () if not np.isnan(end[best])]
    sure = f" ({Interval(*ends)})" if ends else ""
    mark = (x[best], y[best], f"{name} {y[best]:.3f}{sure} after epoch {x[best]:.0f}")
    return line_chart(lines, xlabel="epoch", ylabel="average precision", mark=mark)


def _score_line(name: str, metric: str, history: History, color: str) -> Line:
    """A metric over the epochs, with its 95 % interval where an epoch has one, else NaN."""
    line = Line(name, *metric_curve(history, metric), color)
    ends = (metric_curve(history, f"{metric}_{end}") for end in ("low", "high"))
    known = [dict(zip(*(column.tolist() for column in curve), strict=True)) for curve in ends]
    low, high = (np.array([end.get(epoch, np.nan) for epoch in line.x.tolist()]) for end in known)
    return line._replace(band=(low, high)) if known[0] else line


def precision_recall_chart(
    classes: Sequence[ClassScores],
    intervals: Sequence[Interval | None],
    mean_average_precision: float,
    mean_interval: Interval | None = None,
) -> Chart:
    """The best precision at each recall or a higher one: the area below a curve is its AP.

    Args:
        classes: by label; at least one with annotations.
        intervals: of their AP, by label.
        mean_average_precision: of these.
        mean_interval: of the mean.
    """
    sure = dict(zip((row.name for row in classes), intervals, strict=True))
    recalls = np.linspace(0, 1, 201)
    return line_chart(
        _class_lines(
            classes,
            recalls,
            lambda row: row.best_precision(recalls),
            lambda row: _with_interval(row.average_precision, sure[row.name]),
            _with_interval(mean_average_precision, mean_interval),
        ),
        xlabel="recall",
        ylabel="precision",
        xlim=(0, 1),
    )


def save_precision_recall(
    classes: Sequence[ClassScores], intervals: Sequence[Interval | None], folder: Path
) -> list[Path]:
    """Write precision over recall as one PNG per class that has ground truth; return the files."""
    paths = []
    for label, (row, sure) in enumerate(zip(classes, intervals, strict=True)):
        if row.num_annotations:
            # A name may hold characters that a file's may not; the label keeps two of them apart.
            safe_name = re.sub(r"[^\w-]+", "_", row.name)
            paths.append(folder / f"{label}_{safe_name}_precision_recall.png")
            chart = precision_recall_chart([row], [sure], row.average_precision)
            write_whole(paths[-1], chart.png)
    return paths


def f1_chart(classes: Sequence[ClassScores], best: tuple[float, float]) -> Chart:
    """F1 at each threshold on the score.

    Args:
        classes: by label; at least one with annotations.
        best: the threshold at which the mean F1 is best, and that F1.
    """
    thresholds = np.linspace(0, 1, 201)
    return line_chart(
        _class_lines(
            classes,
            thresholds,
            lambda row: mean_f1([row], thresholds),
            lambda row: f"{row.best_f1.f1 if row.best_f1 else 0:.3f}",
            f"{best[1]:.3f}",
        ),
        xlabel="least score that counts",
        ylabel="F1",
        xlim=(0, 1),
        mark=(*best, f"best at {best[0]:.3f}"),
    )


def line_chart(
    lines: Sequence[Line],
    *,
    xlabel: str,
    ylabel: str,
    xlim: tuple[float, float] | None = None,
    ylim: tuple[float, float | None] = (0, 1),
    mark: tuple[float, float, str] | None = None,
) -> Chart:
    """Draw lines, the first on top, and a legend below them.

    Args:
        lines: at least one.
        xlabel: what x is.
        ylabel: what y is.
        xlim: ends of the axis; None: those of the lines.
        ylim: ends of the axis; None: that of the lines.
        mark: x and y of a point to ring, and what is written there.
    """
    names = [line.name for line in lines if line.name]
    longest = max(map(len, names))
    columns = 3 if longest < 20 else 2 if longest < 34 else 1

    def draw(figure: "Figure") -> None:
        axes = figure.add_subplot(xlabel=xlabel, ylabel=ylabel)
        for depth, (name, x, y, color, width, band) in enumerate(lines):
            if band:
                axes.fill_between(x, *band, color=color, alpha=0.15, linewidth=0)
            axes.plot(
                x,
                y,
                color=color,
                linewidth=width,
                label=name or "_",  # matplotlib's sign for no legend
                marker="o" if len(x) < 30 else "",  # a lone point has no line
                markersize=width + 2,
                zorder=3 - depth / len(lines),
                clip_on=False,
            )
        axes.set(xlim=xlim, ylim=ylim)
        if xlim is None:
            axes.locator_params("x", integer=True, min_n_ticks=1)
        if mark:
            _write_mark(axes, *mark)
        figure.legend(loc="outside lower left", ncols=columns)

    return _drawn(draw, 6, 3.5 + 0.2 * np.ceil(len(names) / columns))


def matrix_chart(
    counts: NDArray[np.int64], names: Sequence[str], *, xlabel: str, ylabel: str
) -> Chart:
    """Draw a square table of counts, each on a ground that says how large its part of the row is.

    Args:
        counts: [R, R].
        names: of the rows and columns.
        xlabel: what the columns are.
        ylabel: what the rows are.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    places = [place + 0.5 for place in range(len(names))]
    short = [shortened(name) for name in names]
    side = max(4.6, 1.6 + 0.36 * len(names))  # inches
    cell = 72 * (side - 1.6) / len(names)  # points

    def draw(figure: "Figure") -> None:
        axes = figure.add_subplot(xlabel=xlabel, ylabel=ylabel, aspect="equal", anchor="W")
        axes.pcolormesh(_tinted(shares))
        for (row, column), count in np.ndenumerate(counts):
            axes.text(
                places[column],
                places[row],
                f"{count:,}" if count else "·",
                color="white" if shares[row, column] > 0.55 else INK,
                alpha=1 if count else 0.4,
                fontsize=8 if len(names) > 8 else 10,
                horizontalalignment="center",
                verticalalignment="center",
            )
        axes.set_xticks(places, short, rotation=90 if max(map(len, short)) * 6 > cell else 0)
        axes.set_yticks(places, short)
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)

    return _drawn(draw, max(6, side), side)


def line_color(label: int) -> str:
    """The colour of a class on a chart: that of its boxes, dark enough for thin lines on white."""
    color = np.array(class_color(label)) / 255
    brightness = float(np.dot(color**2.2, (0.2126, 0.7152, 0.0722)))  # relative luminance
    color = color * min(1.0, (0.3 / brightness) ** (1 / 2.2))
    red, green, blue = (round(255 * part) for part in color)
    return f"#{red:02x}{green:02x}{blue:02x}"


def shortened(name: str) -> str:
    """A name that leaves room for the chart, of letters that an SVG may hold."""
    name = "".join(letter if letter.isprintable() else "·" for letter in name)
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _class_lines(
    classes: Sequence[ClassScores],
    x: Floats,
    curve: Callable[[ClassScores], Floats],
    number: Callable[[ClassScores], str],
    mean_number: str,
) -> list[Line]:
    """The mean over classes, then each: in colour, or grey where they are many.

    Args:
        classes: by label.
        x: [T] of all curves.
        curve: gives [T] y of a class.
        number: stands before the name of a class.
        mean_number: stands before the mean's.
    """
    labels = [label for label, row in enumerate(classes) if row.num_annotations]
    ranked = sorted(labels, key=lambda label: -classes[label].average_precision)
    if len(ranked) > COLORED_CLASSES:
        ranked = ranked[: COLORED_CLASSES // 2] + ranked[-COLORED_CLASSES // 2 :]
    colored, faint = [], []
    for label in labels:
        row = classes[label]
        if label in ranked:
            name = f"{number(row)} {shortened(row.name)}"
            colored.append(Line(name, x, curve(row), line_color(label)))
        else:
            faint.append(Line("", x, curve(row), FAINT, 0.5))
    if len(labels) == 1:
        return colored
    mean = np.mean([line.y for line in colored + faint], axis=0)
    return [Line(f"{mean_number} all classes", x, mean, INK, 2.4), *colored, *faint]


def _with_interval(value: float, sure: Interval | None) -> str:
    return f"{value:.3f} ({sure})" if sure else f"{value:.3f}"


def _drawn(draw: Callable[["Figure"], None], width: float, height: float) -> Chart:
    """Figure of `width` x `height` inches (72 units of an SVG each) as files, drawn by `draw`."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    svg, png = BytesIO(), BytesIO()
    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that the font lacks become boxes, in the PNG only
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        figure.savefig(svg, format="svg", facecolor="none", metadata={"Date": None})
        figure.savefig(png, format="png", facecolor="white", dpi=200, metadata={"Software": MARK})
    return Chart(_in_readers_ink(svg.getvalue()), png.getvalue())


def _in_readers_ink(svg: bytes) -> bytes:
    text = svg.decode().replace(f": {INK}", ": currentColor")
    return re.sub(r"(<svg[^>]*>)", rf"\1{_SVG_STYLE}", text, count=1).encode()


def _tinted(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """[R, C, 4] one blue, the more opaque the larger the share: right on white and on black."""
    blue = np.broadcast_to([0.18, 0.42, 0.75], (*shares.shape, 3))
    return np.dstack((blue, shares))


def _write_mark(axes: "Axes", x: float, y: float, text: str) -> None:
    """A ring at a point, and words above the chart, where no line is."""
    axes.axvline(x, color=INK, linewidth=0.7, linestyle=(0, (2, 3)))
    axes.plot([x], [y], "o", markersize=7, markerfacecolor="none", color=INK, zorder=4)
    left, right = axes.get_xlim()
    place = (x - left) / (right - left)
    alignment = "left" if place < 0.35 else "right" if place > 0.65 else "center"
    axes.set_title(text, x=place, horizontalalignment=alignment, fontsize="medium")
