"""Problems of data sets as text: how many of each kind, the first of them, what to do."""

from collections.abc import Sequence
from pathlib import Path

from retinanet.data_check.findings import Findings, PartImage, is_across
from retinanet.errors import counted, printable

SHOWN = 10  # of a kind; check.json and --json have them all


def problem_text(found: Findings, *, decoded: bool, compared: bool) -> str:
    """All kinds of problems, each with its first cases; a sentence on each kind looked for in vain.

    Args:
        found: in the data sets.
        decoded: whether the images were decoded.
        compared: whether near-duplicates were looked for.
    """
    equal = [(group, is_across(group)) for group in found.equal]
    near = [(group, is_across(group)) for group in found.alike]
    in_both = "in the training and in the validation data"
    parts = [
        _listed("image", in_both, [_names(group) for group, across in equal if across]),
        _listed(
            "image",
            "there under several names",
            [_names(group) for group, across in equal if not across],
        ),
        _listed(
            "group",
            f"of images that look alike {in_both}",
            [_names(group) for group, across in near if across],
        ),
        _listed(
            "group",
            "of images that look alike in one of them",
            [_names(group) for group, across in near if not across],
        ),
        _listed(
            "image",
            "unreadable; train.py leaves out such with --on_bad_image skip, after the start with"
            " --resume --on_bad_image skip",
            found.unreadable,
        ),
        _listed("image", "of one colour", [printable(path) for _, path in found.one_colour]),
        _listed(
            "object",
            "drawn twice with different classes",
            [
                f"{printable(double.image)}: {' and '.join(map(printable, double.classes))} at"
                f" {', '.join(f'{value:g}' for value in double.box)}"
                for double in found.double_boxes
            ],
        ),
        *(
            _listed("class", f"with boxes in the {part} data alone", [*map(printable, names)])
            for part, names in found.only_in.items()
        ),
    ]
    text = [part for part in parts if part]
    if not found.equal:
        text.append("No image is there twice.")
    if compared and not found.alike:
        text.append("No images look alike.")
    if decoded and not found.unreadable:
        text.append("Every image can be decoded.")
    return "\n".join(text)


def _listed(noun: str, kind: str, cases: Sequence[str]) -> str:
    """Number of cases of a kind, and the first of them; nothing where there are none."""
    if not cases:
        return ""
    more = [f"  and {len(cases) - SHOWN:,} more"] * (len(cases) > SHOWN)
    head = f"{counted(len(cases), noun)} {kind}:"
    return "\n".join([head, *(f"  {case}" for case in cases[:SHOWN]), *more])


def _names(group: Sequence[PartImage]) -> str:
    paths: list[Path] = [path for _, path in group]
    more = f" and {len(paths) - SHOWN:,} more" if len(paths) > SHOWN else ""
    return " = ".join(printable(path) for path in paths[:SHOWN]) + more
