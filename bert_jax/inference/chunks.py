"""Processes any number of texts chunk by chunk, in bounded memory."""

import dataclasses
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import jax

from bert_jax.data.queries import Queries, encode_queries
from bert_jax.errors import InputError, TextError
from bert_jax.runtime.ahead import Finish, one_ahead
from bert_jax.runtime.device_memory import out_of_memory, ran_out_of_memory
from bert_jax.tasks.question import ONE_SEGMENT_TYPE, Encode, Loaded

T = TypeVar("T")

CHUNK = 2048
"""Number of texts that are packed and sent to the devices together."""

_LEAST_TOKENS = 256
"""Tokens per device and batch below which a device that runs out of memory is given up."""

MEMORY_ADVICE = (
    "Close other programs that use the device, load the model in bfloat16 (bert_jax.load(path, ComputeConfig(dtype='bfloat16'))), or set "
    "JAX_PLATFORMS=cpu to compute on the CPU."
)


class TruncationWarning(UserWarning):
    """Texts were longer than the model's maximum length and were truncated."""


class ChunkedAsk:
    """Processes texts chunk by chunk (see `bert_jax.tasks.question.Ask`) and counts those that are truncated.

    Attributes:
        truncated: the number of texts that were truncated.
        count: the number of texts processed so far.
        positions: the number of tokens to which texts are truncated.
    """

    def __init__(self, model: Loaded) -> None:
        self._model = model
        self.truncated, self.count, self.positions = 0, 0, model.description.encoder.max_positions

    def __call__(
        self,
        texts: Iterable[Any],
        pairs: Iterable[Any] | None,
        start: Callable[[Queries], Finish[T]],
        encode: Encode = encode_queries,
        max_tokens: int = 0,
    ) -> list[T]:
        """Return the result of `start` for each chunk of texts. The next chunk is dispatched before the results of a chunk are awaited.

        Args:
            texts: the texts.
            pairs: the second text of each pair, or None.
            start: dispatches a chunk to the devices.
            encode: converts a chunk of texts to queries.
            max_tokens: truncate texts to this many tokens, if fewer than the model's maximum length; 0 for no further limit.
        """
        encoder = self._model.description.encoder
        if pairs is not None and encoder.segment_types == 1:
            # The lookup of segment 1 would silently use row 0, and the answer would be meaningless.
            raise InputError(ONE_SEGMENT_TYPE)
        self.positions = min(encoder.max_positions, max_tokens or encoder.max_positions)

        def started() -> Iterator[Finish[T]]:
            for first, (left, right) in _chunks(texts, pairs, self._model.tokenizer.nouns.input):
                try:
                    queries = encode(left, right, self._model.tokenizer, self.positions)
                except TextError as error:
                    raise error.moved(lambda index, first=first: first + index) from None  # type: ignore[misc]
                self.truncated += queries.truncated
                self.count += len(left)
                yield self._dispatched(start, queries)

        return list(one_ahead(started()))

    def _dispatched(self, start: Callable[[Queries], Finish[T]], queries: Queries) -> Finish[T]:
        """Dispatch a chunk. If a device runs out of memory, now or when the result is awaited, the chunk is sent in smaller batches."""
        sent = list[Finish[T]]()
        with self._smaller_batches_if_needed():
            sent.append(start(queries))

        def finish() -> T:
            while True:
                with self._smaller_batches_if_needed():
                    return (sent.pop() if sent else start(queries))()

        return finish

    @contextmanager
    def _smaller_batches_if_needed(self) -> Iterator[None]:
        """If a device runs out of memory, halve the batches and leave the block with a warning."""
        try:
            yield
        except jax.errors.JaxRuntimeError as error:
            if not ran_out_of_memory(error):
                raise
            forward = self._model.forward
            tokens = forward.shapes.tokens // 2
            if tokens < _LEAST_TOKENS:
                raise out_of_memory("inference", MEMORY_ADVICE, error) from error
            forward.shapes = dataclasses.replace(forward.shapes, tokens=tokens)
            warnings.warn(f"The device ran out of memory; inference continues with batches of {tokens:,} tokens.", stacklevel=2)

    def warn(self, stacklevel: int) -> None:
        """Issue a `TruncationWarning` if texts were truncated."""
        if self.truncated:
            nouns = self._model.tokenizer.nouns
            warnings.warn(
                f"{self.truncated:,} of {self.count:,} {nouns.input}s are longer than the model's limit of {self.positions} "
                f"{nouns.token}s and were truncated.",
                TruncationWarning,
                stacklevel=stacklevel,
            )


def _chunks(texts: Iterable[Any], pairs: Iterable[Any] | None, noun: str) -> Iterator[tuple[int, tuple[list[Any], list[Any] | None]]]:
    """Yield the index of the first text of each chunk, the chunk's texts and their pairs."""
    rest, rest_of_pairs = iter(texts), None if pairs is None else iter(pairs)
    for first in itertools.count(0, CHUNK):
        left = list(itertools.islice(rest, CHUNK))
        right = None if rest_of_pairs is None else list(itertools.islice(rest_of_pairs, CHUNK))
        if right is not None and len(right) != len(left):
            raise InputError(
                f"One list has {first + min(len(left), len(right)):,} {noun}s and the other has more: pass two lists of the same length."
            )
        if not left:
            return
        yield first, (left, right)
