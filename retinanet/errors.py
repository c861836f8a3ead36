"""The one exception for what a user can mend."""


class DataError(ValueError):
    """A file, a row, a flag's value or a checkpoint is not as it must be.

    The message says where, what was found, what was expected and what to do. The scripts print it
    without a traceback and exit with 1.
    """

    def __init__(self, message: str) -> None:
        # A loader worker's error arrives with the worker's traceback in front of the message.
        super().__init__(message.rsplit("DataError: ", 1)[-1].rstrip("\n"))
