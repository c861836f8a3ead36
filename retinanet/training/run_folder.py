"""The folder of a run: its files, their order of writing, and the files of an old run."""

import json
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from retinanet.data.splits import TRAIN_LIST, VAL_LIST, write_list
from retinanet.errors import DataError, first_few
from retinanet.report.model_card import CARD_FILE
from retinanet.report.report import REPORT_FILES
from retinanet.runtime.console import say
from retinanet.runtime.distributed import is_main_process, run_id, was_restarted
from retinanet.runtime.files import check_output_dir, link_whole, remove_temporaries, write_whole
from retinanet.runtime.folder_lock import lock_folder
from retinanet.runtime.own_files import is_own, remove_own
from retinanet.training.records import METRICS_FILE
from retinanet.training.run_log import TENSORBOARD_FOLDER
from retinanet.training.saved_state import STATE_FILE, STATE_VERSION, SavedState, read_state
from retinanet.weights.checkpoint import Checkpoint, save_checkpoint, write_file

CONFIG_FILE = "config.json"
FINAL_FILE = "model_final.pt"

# What another run may have left in the folder, beside the files that this one will replace; `.tmp`
# is what a kill of version 1.0 left.
_RUN_FILE = re.compile(
    r"((coco|csv|data|shapes)_retinanet_(\d+|best)\.pt|model_final\.pt|training_state\.pt)(\.tmp)?"
    r"|shapes_retinanet_detections\.jpg"
    rf"|{TENSORBOARD_FOLDER}/events\.out\.tfevents\..*"
)


class RunFolder:
    """Files of a run, written whole or not at all, by the main process only.

    As a context it is the run's alone: another run that enters it ends with an error.

    Args:
        path: of the run's folder, which need not exist yet.
        dataset: its kind, the first word of the files' names.
        keep: how many epochs' files stay; None for all.
        save_every_minutes: how long the state may lag behind.
    """

    def __init__(
        self,
        path: Path,
        dataset: str,
        *,
        keep: int | None,
        save_every_minutes: float,
    ) -> None:
        self.path, self.dataset, self.keep = path, dataset, keep
        self.writes = is_main_process()
        self.seconds_between_states = 60 * save_every_minutes
        self.best = float("-inf")
        self.since_best = 0  # evaluations
        self._saved_at = time.monotonic()  # so far there is nothing to lose
        self._old_files: list[Path] = []  # of another run, which `claim` removes
        self._settings: dict[str, Any] = {}
        self._lock = ExitStack()
        self._written: tuple[Checkpoint | None, Path] = (None, path)  # the last epoch's, its file

    def __enter__(self) -> "RunFolder":
        if self.writes:
            check_output_dir(self.path)
            self._lock.enter_context(lock_folder(self.path))
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.close()

    @property
    def state_file(self) -> Path:
        """Path of the state."""
        return self.path / STATE_FILE

    @property
    def best_file(self) -> Path:
        """Path of the checkpoint with the best score."""
        return self.path / f"{self.dataset}_retinanet_best.pt"

    def open(self, resume: bool | str | None, *, overwrite: bool) -> SavedState | None:
        """Look for the state to go on from and for files in the way; nothing is changed yet.

        A process that torchrun restarts (--max_restarts) goes on with its own run, the one whose
        state carries torchrun's id, or begins it again if there is no state yet.

        Args:
            resume: True for this folder's state, the name of another file, or neither.
            overwrite: whether `claim` may remove another run's files.

        Returns:
            The state to go on from; None for a new run.

        Raises:
            DataError: there is no such state; or files are there that are to stay: another run's,
                or of a name that the run would write, and not this program's.
        """
        check_output_dir(self.path, names=self._names())
        restarted = was_restarted() and _run_id_in(self.path / CONFIG_FILE) == run_id()
        state = self._state_to_resume(resume)
        own = state is not None and state.path.resolve() == self.state_file.resolve()
        self._old_files = [] if own else self._another_runs_files(overwrite or restarted)
        # The best file stays behind where a run goes on in another folder.
        if state and own and self.best_file.exists():
            self.best = state.content["best"]
            self.since_best = state.content["since_best"]
        return state

    def _state_to_resume(self, wanted: bool | str | None) -> SavedState | None:
        if was_restarted() and self.state_file.is_file():
            state = read_state(self.state_file)
            if state.content.get("run_id") == run_id():
                return state
        if not wanted:
            return None
        return read_state(self.state_file if wanted is True else Path(wanted))

    def _names(self) -> list[str]:
        """Names that the run will write to, as far as they are known before it."""
        epochs = self.path.glob(f"{self.dataset}_retinanet_*.pt")
        names = [file.name for file in epochs if file.stem.rsplit("_", 1)[1].isdecimal()]
        names += [self.best_file.name, STATE_FILE, FINAL_FILE, CONFIG_FILE, METRICS_FILE]
        return [*names, CARD_FILE, *REPORT_FILES, TRAIN_LIST, VAL_LIST]

    def _another_runs_files(self, overwrite: bool) -> list[Path]:
        """Files of another run, which a new run's must not be mixed with.

        Raises:
            DataError: there are such files and they are not to be overwritten; nothing is touched.
        """
        found = {
            path.relative_to(self.path).as_posix()
            for pattern in ("*", f"{TENSORBOARD_FOLDER}/*")
            for path in self.path.glob(pattern)
        }
        names = {name for name in found if _RUN_FILE.fullmatch(name)} | set(self._names())
        files = [self.path / name for name in sorted(names) if is_own(self.path / name)]
        if files and not overwrite:
            some = first_few(file.name for file in files)
            raise DataError(
                f"{self.path}: holds another run's files ({some}); pass --resume to go on with it,"
                " choose another --output_dir, or pass --overwrite to remove them"
            )
        return files

    def claim(self, settings: Mapping[str, Any], *, epochs: int, weights_size: int) -> None:
        """Make the folder, remove an old run's files, and warn if the disk is too small.

        Args:
            settings: all that a resumed run must agree with, by name; every state holds them.
            epochs: that the run is to take.
            weights_size: of one file of weights, bytes.
        """
        self._settings = dict(settings)
        if not self.writes:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        if self._old_files:
            say(f"Removing the old run's files: {', '.join(map(str, self._old_files))}")
        for file in self._old_files:
            remove_own(file)
        remove_temporaries(self.path)
        # Kept epochs, best and final; the state has two moments more, and twice while replaced.
        need = weights_size * (min(self.keep or epochs, epochs) + 2 + 2 * 3)
        free = shutil.disk_usage(self.path).free
        if need > free:
            say(
                f"Warning: the run will take about {need / 1e9:.1f} GB, and {self.path} has"
                f" {free / 1e9:.1f} GB free; pass --keep N to keep the last N epochs only"
            )

    def save_lists(self, train: Sequence[str], val: Sequence[str]) -> None:
        """Write which images are trained on and which are set aside, as plain lists."""
        if self.writes:
            write_list(self.path / TRAIN_LIST, train)
            write_list(self.path / VAL_LIST, val)

    def save_config(self, flags: Mapping[str, object], machine: Mapping[str, object]) -> None:
        """Write config.json: every flag's value, versions, the machine."""
        if self.writes:
            content = {"flags": dict(flags), "run_id": run_id(), **machine}
            text = json.dumps(content, indent=1, default=str)
            write_whole(self.path / CONFIG_FILE, text.encode())

    def save_epoch(self, checkpoint: Checkpoint) -> None:
        """Write an epoch's file, and remove the one that `keep` leaves no room for."""
        if not self.writes:
            return
        epoch = checkpoint.epoch or 0
        path = self.path / f"{self.dataset}_retinanet_{epoch}.pt"
        save_checkpoint(path, checkpoint)
        self._written = checkpoint, path
        for file in self.path.glob(f"{self.dataset}_retinanet_*.pt"):
            number = file.stem.rsplit("_", 1)[1]
            if self.keep and number.isdecimal() and int(number) <= epoch - self.keep:
                remove_own(file)

    def save_if_best(self, checkpoint: Checkpoint, score: float) -> None:
        """Write the checkpoint again as the best one if no earlier score was as high."""
        self.since_best += 1
        if score > self.best:
            self.best, self.since_best = score, 0
            if self.writes:
                self._save_again(self.best_file, checkpoint)

    def stands_still(self, patience: int | None) -> bool:
        """True if the last `patience` evaluations brought no better score; None waits for ever."""
        return patience is not None and self.since_best >= patience

    def save_final(self, checkpoint: Checkpoint) -> None:
        """Write the checkpoint of the finished run."""
        if self.writes:
            self._save_again(self.path / FINAL_FILE, checkpoint)

    def _save_again(self, path: Path, checkpoint: Checkpoint) -> None:
        """Write a checkpoint under another name: a link if its epoch's file was just written."""
        written, file = self._written
        if written is checkpoint and file.is_file():
            link_whole(file, path)
        else:
            save_checkpoint(path, checkpoint)

    def state_is_due(self) -> bool:
        """True if the last state is older than `save_every_minutes`."""
        return self.writes and time.monotonic() - self._saved_at >= self.seconds_between_states

    def save_state(self, training: Mapping[str, Any], checkpoint: Checkpoint) -> None:
        """Replace the state.

        Args:
            training: `Training.state()`.
            checkpoint: the last one; its network and metrics are kept.
        """
        if self.writes:
            known = {
                "version": STATE_VERSION,
                "settings": self._settings,
                "best": self.best,
                "since_best": self.since_best,
                "run_id": run_id(),
                "metrics": checkpoint.metrics,
                "thresholds": checkpoint.thresholds,
                "thresholds_epoch": checkpoint.thresholds_epoch,
                "network": asdict(checkpoint.config),
            }
            write_file(self.state_file, {**known, **training})
            self._saved_at = time.monotonic()


def _run_id_in(config: Path) -> str | None:
    """Id that torchrun gave the run that wrote a config.json; None if it was started without."""
    try:
        content = json.loads(config.read_bytes())
        return str(content["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
