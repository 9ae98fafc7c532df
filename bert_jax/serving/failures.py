"""What goes wrong with a request, independent of the shape in which a convention reports it."""

from bert_jax.errors import InputError


class Failure(Exception):
    """A request cannot be answered.

    Attributes:
        status: the HTTP status.
        message: what is wrong and what to do about it, without the paths of this machine.
        field: the field of the request at fault, or an empty string.
        retry_after: seconds after which the client may try again, or None.
    """

    def __init__(self, status: int, message: str, field: str = "", retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.field, self.retry_after = status, message, field, retry_after


def invalid(error: InputError, field: str) -> Failure:
    """Return the failure of a request whose texts or options the model refuses."""
    return Failure(422, str(error), field)
