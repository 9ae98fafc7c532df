"""What goes wrong with a request, independent of the shape in which a convention reports it."""

from collections.abc import Mapping

from bert_jax.errors import InputError

RETRY_SOON = {"Retry-After": "1"}
"""Tells the client to try again after a second."""


class Failure(Exception):
    """A request cannot be answered.

    Attributes:
        status: the HTTP status.
        message: what is wrong and what to do about it, without the paths of this machine.
        field: the field of the request at fault, or an empty string.
        headers: headers that the answer needs beside those of its body.
    """

    def __init__(self, status: int, message: str, field: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.field, self.headers = status, message, field, dict(headers or {})


def invalid(error: InputError, field: str) -> Failure:
    """Return the failure of a request whose texts or options the model refuses."""
    return Failure(422, str(error), field)
