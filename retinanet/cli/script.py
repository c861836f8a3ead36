"""The end of a script: its exit code, and one line for what its user can mend."""

import functools
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from retinanet.errors import DataError
from retinanet.runtime.distributed import rank_and_world_size, shut_down
from retinanet.runtime.signals import StoppedError


def verdict(error: BaseException) -> tuple[int, str]:
    """The exit code and the one line for an error that its user can mend; 0 for a defect."""
    text = str(error)
    if isinstance(error, StoppedError | KeyboardInterrupt):
        number = error.signal_number if isinstance(error, StoppedError) else signal.SIGINT
        return 128 + number, text or "stopped"
    if isinstance(error, DataError | OSError):  # OSError: no room, no permission
        return 1, text
    if isinstance(error, RuntimeError | MemoryError):
        if "DataLoader worker" in text:
            return 1, (
                "a loader process died, perhaps out of memory; lower --workers or"
                f" --batch_size ({text.splitlines()[0]})"
            )
        wants = ("out of memory", "not enough memory", "can't allocate memory")  # in torch's words
        if isinstance(error, MemoryError) or any(want in text for want in wants):
            return 1, "out of memory; lower --batch_size, --max_side or --workers"
        if rank_and_world_size() != (0, 1) and "peer" in text:
            return 1, "another process of this run has ended; its message says why"
    return 0, ""


def script(main: Callable[[Sequence[str] | None], None]) -> Callable[..., int]:
    """Make a script's main return its exit code: 0, or 1 with one line where the data is wrong."""

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        try:
            main(argv)
        except (Exception, KeyboardInterrupt) as error:
            code, message = verdict(error)
            if not code:
                raise
            sys.stderr.write(f"{Path(sys.argv[0]).name}: error: {message}\n")
            # The frames of an error that crossed a loader are held by it, in a cycle, and hold its
            # workers: without this they live until the interpreter ends, and then die noisily.
            traceback.clear_frames(error.__traceback__)
            return code
        finally:
            shut_down()
        return 0

    return run
