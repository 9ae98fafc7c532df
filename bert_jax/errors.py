"""Exceptions that a user is meant to read: a message in one paragraph, printed without a traceback."""


class InputError(ValueError):
    """Bad input: what is wrong, where, and what to do about it, in one paragraph.

    The command line prints the message and exits with status 2. Write it so that it names the file, the field or line,
    and the remedy.
    """


class TrainingError(RuntimeError):
    """Training cannot go on (a loss that is not finite, say). The command line exits with status 1."""


class Interrupted(Exception):
    """A run was asked to stop, and has saved what it had. The command line exits with status 130."""
