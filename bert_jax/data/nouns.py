"""What the inputs of a modality and their parts are called in messages and reports."""

from typing import NamedTuple


class Nouns(NamedTuple):
    """Singular nouns, whose plurals end in s.

    Attributes:
        input: what a query is, such as "image".
        token: what the encoder reads, such as "unit".
        answer: what is predicted for a masked token, such as "code".
        sentence: of what one follows another, such as "part".
    """

    input: str = "text"
    token: str = "token"
    answer: str = "token"
    sentence: str = "sentence"
