"""The models of a server, by name: which questions they answer, how many tokens texts have, and the queue of each."""

import asyncio
import base64
import binascii
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bert_jax.errors import InputError, TextError
from bert_jax.inference.bert import Bert
from bert_jax.modalities import find
from bert_jax.serving.batching import Batcher, Limits, QueueFull
from bert_jax.serving.failures import RETRY_SOON, Failure, invalid
from bert_jax.tasks.question import Answers, Question

_MOST_PREDICTIONS = 1 << 19
"""Predictions of masked tokens in an answer: as JSON, they are about 30 MB."""


@dataclass(frozen=True)
class RequestLimits:
    """What a request may hold.

    Attributes:
        texts: the number of texts, counting both of a pair.
        tokens: the number of tokens of all texts.
        truncate: whether texts longer than the model reads are truncated even if the request does not ask for it.
    """

    texts: int = 256
    tokens: int = 65536
    truncate: bool = False


class Served:
    """A model that answers requests.

    Attributes:
        name: its name in requests and answers.
        model: the loaded model; only its vocabulary and description are used outside its queue.
        dtype: the type of the matrix products.
        queue: the requests that wait for it.
    """

    def __init__(
        self, name: str, model: Bert, batches: Limits, requests: RequestLimits, observe: Callable[[int], None], dtype: str = "float32"
    ) -> None:
        self.name, self.model, self._limits, self.dtype = name, model, requests, dtype
        self.queue = Batcher(model, batches, observe)
        self._decoding = threading.Lock()

    @property
    def questions(self) -> Mapping[str, Question]:
        """The questions that the model answers, by name."""
        return self.model.questions

    async def ask(
        self, name: str, texts: Sequence[str], pairs: Sequence[str] | None = None, field: str = "texts", truncate: bool = False,
        **options: Any,
    ) -> tuple[Answers, int]:  # fmt: skip
        """Answer a question about each text, and return the answers and the number of tokens of all texts.

        Args:
            name: the question.
            texts: the texts; for a model of images or recordings, their files in base64.
            pairs: the second text of each pair.
            field: the field of the request that holds the texts, for messages.
            truncate: truncate texts that are too long instead of refusing them.
            options: the question's options.

        Raises:
            Failure: there are too many texts or tokens, a text is empty or too long, an option is wrong, or too many requests wait.
        """
        if not texts:
            raise Failure(422, f"{field} is empty: send at least one {self.model.tokenizer.nouns.input}.", field)
        if pairs is not None and len(pairs) != len(texts):
            raise Failure(422, f"There are {len(texts)} {field} and {len(pairs)} pairs: give each text its pair.", "pairs")
        decode = self._decoded if self.model.tokenizer.units else list
        inputs, second = decode(texts), None if pairs is None else decode(pairs)
        searched = {option: decode(options[option]) for option in self.questions[name].files}
        groups = {field: (inputs, second)} | {option: (found, None) for option, found in searched.items() if found}
        tokens = await asyncio.to_thread(self._count, name, groups, truncate or self._limits.truncate, options)
        try:
            answers = await asyncio.wrap_future(self.queue.submit(name, inputs, second, **options | searched))
        except QueueFull:
            raise _busy() from None
        except InputError as error:
            raise invalid(error, field) from None
        return answers, tokens

    async def complete(self, content: str) -> dict[str, Any]:
        """Mask half of an image or a recording; return `pictures` of it with `captions`, and a `note` on how many units are right.

        Args:
            content: the file in base64.

        Raises:
            Failure: the model reads text, the file cannot be read, or it is too long.
        """
        reader = self.model.tokenizer
        if not reader.units:
            raise Failure(424, f"This model reads {reader.nouns.input}s: ask /fill-mask, with [MASK] in each.", "model")
        (item,) = self._decoded([content])
        await asyncio.to_thread(self._count, "fill_mask", {"texts": ([item], None)}, False, {})
        modality = find(self.model.description.input.modality)
        query = await asyncio.to_thread(modality.with_mask, reader, item)
        try:
            answers = await asyncio.wrap_future(self.queue.submit("fill_mask", [query], None, top_k=1))
        except QueueFull:
            raise _busy() from None
        filled = await asyncio.to_thread(modality.filled, reader, query, answers[0])
        return {name: filled[name] for name in ("note", "pictures", "captions")}

    def _count(
        self, name: str, groups: Mapping[str, tuple[Sequence[Any], Sequence[Any] | None]], truncate: bool, options: Mapping[str, Any]
    ) -> int:
        """Return the number of tokens, without special tokens and prompts, of texts and their pairs by field, after checking it."""
        reader, limits, total = self.model.tokenizer, self._limits, 0
        count = sum(len(texts) + len(pairs or ()) for texts, pairs in groups.values())
        first = next(iter(groups))
        if count > limits.texts:
            raise Failure(413, f"{first} has {count:,} texts, more than the {limits.texts:,} of a request: send several requests.", first)
        for field, (texts, pairs) in groups.items():
            try:
                lengths, masks = self._sizes([*texts, *(pairs or ())], limits.tokens - total)
                # What a question puts before a text takes tokens from it.
                prefix = self.model.prefix(name, "" if field == first else field, **options)
                whole = reader.encode_flat([prefix + text for text in texts]).lengths if prefix and not reader.units else lengths
            except InputError as error:
                raise invalid(error, field) from None
            total += int(lengths.sum())
            if total > limits.tokens:
                message = f"{field} has {total:,} {reader.nouns.token}s, more than the {limits.tokens:,} of a request"
                raise Failure(413, f"{message}: send several requests.", field)
            longest = int(whole.reshape(-1, len(texts)).sum(0).max())
            most = self.model.max_tokens(name) - (3 if pairs else 2)
            if not truncate and not self.questions[name].windowed and longest > most:
                what = "pair" if pairs else reader.nouns.input
                tokens = f"{longest:,} {reader.nouns.token}s{', with its prompt' if whole is not lengths else ''}"
                message = f"{field} has a {what} of {tokens}, more than the {most:,} that the model reads"
                raise Failure(413, f"{message}: shorten it, or set truncate to true.", field)
            predictions = min(self.questions[name].predictions(masks, **options), masks * reader.vocab_size)
            if predictions > _MOST_PREDICTIONS:
                message = f"{field} has {masks:,} masked {reader.nouns.token}s, for which the answer would have {predictions:,} predictions"
                raise Failure(413, f"{message}, more than {_MOST_PREDICTIONS:,}: lower top_k, or send several requests.", field)
        return total

    def _sizes(self, inputs: Sequence[Any], most: int) -> tuple[NDArray[np.int64], int]:
        """Return the number of tokens of each input, int64 [n], and that of the masked tokens of all.

        Of images and recordings, none of which is masked, no more are counted than it takes to exceed `most` units. A small file may hold
        hours of sound, so one file is decoded at a time, whatever the number of requests.

        Raises:
            InputError: an input cannot be read.
        """
        reader = self.model.tokenizer
        if not reader.units:
            flat = reader.encode_flat(inputs)
            return flat.lengths, int((flat.ids == reader.mask_id).sum())
        lengths: list[int] = []
        for index, one in enumerate(inputs):
            try:
                with self._decoding:
                    lengths.append(int(reader.encode_flat([one]).lengths[0]))
            except TextError as error:
                raise error.moved(lambda _, index=index: index) from None  # type: ignore[misc]
            if sum(lengths) > most:
                break
        return np.array(lengths, np.int64), 0

    def _decoded(self, texts: Sequence[str]) -> list[bytes]:
        """Return the files of images or recordings; a path would be a file of this machine, so it is never one."""
        try:
            return [base64.b64decode(text, validate=True) for text in texts]
        except (binascii.Error, ValueError):
            noun = self.model.tokenizer.nouns.input
            raise Failure(422, f"This model reads {noun}s: send the bytes of each file in base64.", "texts") from None


def _busy() -> Failure:
    return Failure(429, "Too many requests are waiting for this model: try again later.", headers=RETRY_SOON)


class Models:
    """All models of a server.

    Args:
        served: the models; the first that can answer a question does so if a request names none.
    """

    def __init__(self, served: Sequence[Served]) -> None:
        self.by_name = {one.name: one for one in served}

    def find(self, name: str | None, question: str) -> Served:
        """Return the model of this name, or the first one that answers the question.

        Raises:
            Failure: there is no such model, or it does not answer the question, or there are none yet.
        """
        if name is not None and name not in self.by_name:
            raise Failure(404, f"There is no model {name!r}: choose one of {', '.join(self.by_name)}.", "model")
        among = [*self.by_name.values()] if name is None else [self.by_name[name]]
        if not among:
            raise Failure(503, "No model has been saved yet: try again later.", headers=RETRY_SOON)
        for one in among:
            if question in one.questions:
                return one
        try:
            among[0].model.question(question)
        except InputError as error:
            raise Failure(424, str(error), "model" if name else "") from None
        raise AssertionError

    def close(self) -> None:
        """Answer what is in the queues, and end their threads."""
        for one in self.by_name.values():
            one.queue.close()
