"""Exceptions that a user is meant to read: a message in one paragraph, printed without a traceback."""


class InputError(ValueError):
    """Bad input: what is wrong, where, and what to do about it, in one paragraph.

    The command line prints the message and exits with status 2. Write it so that it names the file, the field or line,
    and the remedy.
    """


class TextError(InputError):
    """One of the given texts cannot be worked on: `problem` is what is wrong with text number `index` (from 0)."""

    def __init__(self, index: int, problem: str) -> None:
        super().__init__(f"Text {index} (counted from 0) {problem}")
        self.index, self.problem = index, problem


class TrainingError(RuntimeError):
    """Training cannot go on (a loss that is not finite, say). The command line exits with status 1."""


class Interrupted(Exception):
    """A run was asked to stop, and has saved what it had. The command line exits with status 130."""
