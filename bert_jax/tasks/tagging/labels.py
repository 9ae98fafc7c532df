"""The tags of words as the targets of training and scoring."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from bert_jax.data.labelled import LabelledExamples, Parsed
from bert_jax.data.labelled_batches import EncodedExamples
from bert_jax.data.windows import Windows
from bert_jax.errors import InputError
from bert_jax.tasks.tagging import schemes
from bert_jax.tasks.tagging.files import Tagged
from bert_jax.tasks.tagging.options import TaggingOptions
from bert_jax.tasks.tagging.words import tokenize_words

_MISSING = -1
"""The label of a token that has none."""


class TagReader:
    """Reads the tags of words and converts them to IOB2; see `bert_jax.data.labelled.LabelReader`."""

    def __init__(self, options: TaggingOptions) -> None:
        self._options = options
        self._repaired = 0

    def columns(self) -> Mapping[str, str]:
        """Return the column of the tags, by the option that names it."""
        return {"finetune.task.target": self._options.target}

    def parse(self, values: Sequence[Any], where: str) -> Tagged:
        """Return the tags of a row.

        Raises:
            InputError: the row has no tagged words, or one of the tags is empty.
        """
        tagged = values[0]
        if not isinstance(tagged, Tagged):
            raise InputError(f"{where} has no tagged words: name a file of them in finetune.data.train, such as train.conll.")
        for index, tag in enumerate(tagged.tags):
            if not tag:
                raise InputError(f"{tagged.place(index)} has no tag: fill it in, or remove the word.")
        return tagged

    def targets(self, parsed: Mapping[str, Parsed]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
        """Return the indices of the tags of each example, an array of tuples, and the names of the tags.

        Raises:
            InputError: a tag does not exist in the scheme, is impossible after the one before it, or occurs only in dev or test; or there
                are fewer than two tags.
        """
        train = parsed["train"]
        scheme = self._options.scheme
        if scheme == "auto":
            scheme = schemes.detect(chain.from_iterable(tagged.tags for tagged in train.values))
        converted = {role: [self._convert(tagged, scheme) for tagged in part.values] for role, part in parsed.items()}
        names = _names(converted["train"], scheme)
        if len(names) < 2:
            raise InputError(
                f"Every word of {train.source} has the tag {names[0]!r}: there is nothing to learn. Check --config.finetune.task.target "
                "and conll_columns."
            )
        index = {name: position for position, name in enumerate(names)}
        targets = {}
        for role, part in parsed.items():
            found = np.empty(len(part.values), object)
            for row, (tags, tagged) in enumerate(zip(converted[role], part.values, strict=True)):
                for word, tag in enumerate(tags):
                    if tag not in index:
                        raise InputError(
                            f"{tagged.place(word)} has the tag {tagged.tags[word]!r}, which {train.source} does not have, so it "
                            "cannot be learned. Correct it, or add examples of it to the training file."
                        )
                found[row] = tuple(index[tag] for tag in tags)
            targets[role] = found
        return targets, names

    def _convert(self, tagged: Tagged, scheme: schemes.Scheme) -> list[str]:
        for index, tag in enumerate(tagged.tags):
            if not schemes.allowed(tag, scheme):
                raise InputError(
                    f"{tagged.place(index)} has the tag {tag!r}, which is not one of the scheme {scheme}. Correct it, or set "
                    "--config.finetune.task.scheme=plain if tags have no prefixes such as B- and I-."
                )
        tags, impossible = schemes.to_bio(tagged.tags, scheme)
        if impossible and self._options.impossible == "refuse":
            word = impossible[0]
            before = repr(tagged.tags[word - 1]) if word else "the beginning of the text"
            raise InputError(
                f"{tagged.place(word)} has the tag {tagged.tags[word]!r} after {before}, which is impossible in the scheme "
                f"{scheme}. Correct it, set --config.finetune.task.impossible=repair to begin an entity where tags continue none, or "
                "--config.finetune.task.scheme=io if I- marks every word of an entity."
            )
        self._repaired += len(impossible)
        return tags

    def keep(self, kept: np.ndarray, rest: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the sample unchanged."""
        return kept, rest

    def notes(self) -> tuple[str, ...]:
        """Report repaired tags."""
        return (f"{self._repaired:,} impossible tags were repaired.",) if self._repaired else ()


def _names(converted: Iterable[Sequence[str]], scheme: schemes.Scheme) -> tuple[str, ...]:
    found = set(chain.from_iterable(converted))
    if scheme != "plain":
        # A type of which all training examples have one word may have longer ones elsewhere.
        found |= {schemes.OUTSIDE, *(f"I-{schemes.parts(tag)[1]}" for tag in found if tag != schemes.OUTSIDE)}
    return schemes.names(found)


def encode_tagged(examples: LabelledExamples, reader: Any, length: int) -> EncodedExamples:
    """Tokenize tagged words as windows of at most `length` tokens. The first token of each word has its tag, in one of the windows."""
    if reader.units:
        raise InputError(f"The task tag needs an encoder of text; this one reads {reader.nouns.input}s: choose another finetune.task.")
    words = tokenize_words(examples.texts, reader)
    windows = Windows.of(words.ids, words.ranges, length)
    shown, own = windows.shown, windows.own
    sizes = shown[:, 1] - shown[:, 0]
    ends = np.cumsum(sizes)
    # Windows overlap, so each gets a copy of its tokens.
    places = np.repeat(shown[:, 0] - ends + sizes, sizes) + np.arange(sizes.sum())
    is_own = (places >= np.repeat(own[:, 0], sizes)) & (places < np.repeat(own[:, 1], sizes))
    items = np.where(is_own, words.items()[places], -1)
    targets = np.array([*chain.from_iterable(examples.targets), _MISSING], np.int32)
    ranges = np.stack([ends - sizes, ends], 1)
    copied = windows.examples
    return EncodedExamples(
        type(copied)(ranges, copied.b, copied.labels, copied.weights), words.ids[places], words.word_starts[places], 0,
        token_labels=targets[items], items=items,
    )  # fmt: skip
