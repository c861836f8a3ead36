"""The argument parser and the types of values."""

import argparse
import difflib
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from retinanet.errors import printable

# A flag may be written with dashes too, and several flags may stand in a file: @FILE.
EPILOG = "Flags may be written with dashes too; @FILE stands for the flags in a file (# comments)."


def _underscores(argument: str) -> str:
    """--some-flag=a-value to --some_flag=a-value."""
    return re.sub(r"^--[a-z][a-z0-9-]*", lambda m: "--" + m[0][2:].replace("-", "_"), argument)


class _HelpFormatter(argparse.HelpFormatter):
    """Help of 100 columns, with a short word for the value of each type."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=100)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """The flag's own name: the names it had elsewhere stand below the flags."""
        if not action.option_strings or not action.option_strings[0].startswith("--"):
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{action.option_strings[0]} {value}".strip()

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        known = METAVARS.get(action.type)
        return known or super()._get_default_metavar_for_optional(action)

    def _get_help_string(self, action: argparse.Action) -> str:
        """The flag's text, which ends with its default in parentheses; its own ones come first."""
        text = action.help or ""
        switch = action.default is None or action.default is False
        if switch or action.default == argparse.SUPPRESS or text.endswith(")"):
            return text
        return f"{text} ({value_text(action.default)})"


def value_text(value: object) -> str:
    """A flag's value as one would type it: 6e-4 rather than 0.0006 or 6e-04."""
    if not isinstance(value, float):
        return str(value)
    return re.sub(r"\.?0*e-0*", "e-", f"{value:e}") if 0 < value < 1e-3 else f"{value:g}"


class Parser(argparse.ArgumentParser):
    """Argparse with flags from files, dashes accepted for underscores, errors in one line.

    Args:
        description: of the program.
        stray: advice for a value that no flag takes.
    """

    def __init__(self, description: str, *, stray: str = "a value stands behind its flag") -> None:
        module = getattr(sys.modules["__main__"].__spec__, "name", "")
        super().__init__(
            # How a tool is called: its file's name alone is no command.
            prog=f"python -m {module}" if module.startswith("retinanet.") else None,
            description=description,
            epilog=EPILOG,
            allow_abbrev=False,
            formatter_class=_HelpFormatter,
        )
        self._stray = stray

    def parse(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """Parse `argv`, or the process's arguments."""
        words = self._expanded(sys.argv[1:] if argv is None else argv)
        for word in words:
            if printable(word) != word:  # it would break the lines that name it
                self.error(f"{printable(word)} holds control characters; rename the file")
        args, unknown = self.parse_known_args([_underscores(word) for word in words])
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}; {self._advice(unknown)}")
        return args

    def _advice(self, unknown: Sequence[str]) -> str:
        """The nearest flags to words that no flag takes."""
        flag = next((word.split("=")[0] for word in unknown if word.startswith("-")), None)
        if flag is None:
            return self._stray
        near = difflib.get_close_matches(flag, self._option_string_actions, n=1)
        return f"did you mean {near[0]}?" if near else "there is no such flag"

    def _expanded(self, words: Sequence[str], outer: tuple[str, ...] = ()) -> list[str]:
        """The words with every @FILE replaced by the words in it; `outer` are the files around."""
        result: list[str] = []
        for word in words:
            name = word[1:]
            if not word.startswith("@"):
                result.append(word)
            elif name in outer:
                self.error(f"@{printable(name)} names itself; take the line out")
            else:
                result += self._expanded(self._words_of(name), (*outer, name))
        return result

    def _words_of(self, file: str) -> list[str]:
        """The words in a file: any number on a line, quotes as in a shell, comments.

        A backslash is itself, as in paths on Windows: a value with spaces stands in quotes.
        """
        found: list[str] = []
        try:
            for line in Path(file).read_text(encoding="utf-8-sig").splitlines():
                lexer = shlex.shlex(line, posix=True, punctuation_chars=False)
                lexer.whitespace_split, lexer.escape = True, ""
                found += lexer
        except OSError as error:
            self.error(f"@{printable(file)}: {error.strerror}; correct the path")
        except UnicodeDecodeError as error:
            self.error(f"@{printable(file)}: {error}; expected UTF-8 text")
        except ValueError as error:  # of the lexer; or a NUL in the name
            self.error(f"@{printable(file)}: {error}; expected flags; quote what holds quotes")
        return found

    def show_defaults(self, defaults: Mapping[str, object], **kinds: Mapping[str, object]) -> None:
        """Put the defaults of flags that are filled in later into their texts.

        Args:
            defaults: by flag.
            kinds: those of other kinds of data, where they differ.
        """
        for action in self._actions:
            name = action.dest
            if name in defaults:
                others = [
                    f"{kind}: {value_text(v[name])}" for kind, v in kinds.items() if name in v
                ]
                values = "; ".join([value_text(defaults[name]), *others])
                action.help = f"{action.help} ({values})"

    def format_help(self) -> str:
        """A line for each flag, and one for all the other names that flags have."""
        names = (action.option_strings for action in self._actions)
        old = [f"{', '.join(other)} = {name}" for name, *other in filter(None, names) if other]
        old = [text for text in old if text.startswith("--") and "--help" not in text]
        self.epilog = EPILOG + (f" Other names: {'; '.join(old)}." if old else "")
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        """Print one line on stderr and exit with code 2."""
        self.exit(2, f"{Path(sys.argv[0]).name}: error: {message} (see --help)\n")


def positive_int(text: str) -> int:
    """A whole number, 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def non_negative_int(text: str) -> int:
    """A whole number, 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def positive_float(text: str) -> float:
    """A finite number above 0."""
    value = _number(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def fraction_or_zero(text: str) -> float:
    """A number of 0 to 1, 1 excluded."""
    return 0.0 if _number(text) == 0 else fraction(text)


def _number(text: str) -> float:
    """Number of a text; NaN if it is none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def fraction(text: str) -> float:
    """A number between 0 and 1, both excluded."""
    value = positive_float(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1")
    return value


METAVARS: dict[object, str] = {
    positive_int: "N",
    non_negative_int: "N",
    positive_float: "X",
    fraction: "P",
    fraction_or_zero: "X",
}
