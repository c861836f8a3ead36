"""The state that a run goes on from: read whole and checked, before anything is built."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retinanet.errors import DataError, printable, shown
from retinanet.weights.safe_load import read_file

STATE_VERSION = 3

STATE_FILE = "training_state.pt"

# Beside the settings, what a run needs of its state before the model is built.
_KINDS: dict[str, type | tuple[type, ...]] = {
    "metrics": dict,
    "best": (int, float),
    "since_best": int,
}

# Settings that states of version 1.0 do not name, and what they were there.
BEFORE = {"--matching": "iou", "--augment": "none", "--fpn_channels": 256, "--head_convs": 4}


@dataclass(frozen=True)
class SavedState:
    """The content of a state file, of the version that this program writes."""

    path: Path
    """The file, for messages."""
    content: dict[str, Any]

    def check(self, settings: Mapping[str, Any]) -> None:
        """Make sure that the resumed run would end in the weights of one that was never stopped.

        Args:
            settings: all that decides the weights, by name, as `RunFolder.save_state` took them.

        Raises:
            DataError: some differ; each is named.
        """
        saved = BEFORE | self.content["settings"]
        differences = [
            f"{name} is {_short(value)}, was {_short(saved.get(name))}"
            for name, value in settings.items()
            if saved.get(name) != value
        ]
        if differences:
            raise DataError(
                f"{self.path}: the run cannot be resumed with other settings:"
                f" {'; '.join(differences)}; give the same flags and data, or start a new run with"
                " --weights"
            )


def read_state(path: Path) -> SavedState:
    """Read the state of a run; nothing but the file decides the result.

    Raises:
        DataError: no such file, no state, damaged, or of another version.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no state to resume from; start without --resume")
    content = read_file(path)
    if not isinstance(content, dict) or not isinstance(content.get("settings"), dict):
        raise DataError(
            f"{path}: it is no state of a run; expected a {STATE_FILE}; a model to start from"
            " goes to --weights"
        )
    version = printable(shown(content.get("version")))
    if version != str(STATE_VERSION):
        raise DataError(f"{path}: a state of version {version}; use that program")
    for name, kind in _KINDS.items():
        if not isinstance(content.get(name), kind):
            found = shown(content[name]) if name in content else "missing"
            raise DataError(
                f"{path}: a damaged state ({name} is {printable(found)}); resume from another one,"
                " or start without --resume"
            )
    return SavedState(path, content)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
