"""Split documents into examples of one or two segments: next-sentence prediction, sentence-order prediction, or neither.

The tokens of a block of documents are concatenated, and an example refers to its tokens by index range, so nothing is
copied here. Each document is first divided into chunks that fill a row, and each chunk is split at a random sentence
boundary into A and B. For next-sentence prediction (Devlin et al. 2019), half of the chunks then exchange their B
segments across documents. Unlike sampling with replacement, this uses every token once, and negative Bs have the same
lengths and positions within their documents as positive ones, so neither gives the label away. For sentence-order
prediction (Lan et al. 2020), A and B are swapped in half of the chunks.
"""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Literal

import numpy as np

NextSentence = Literal["nsp", "sop", "none"]


@dataclass(frozen=True)
class Examples:
    """n examples of the form `[CLS] A [SEP] B [SEP]`, or `[CLS] A [SEP]` if B is empty."""

    a: np.ndarray
    """int64 [n, 2]: start and end of A in the token array."""
    b: np.ndarray
    """int64 [n, 2]: start and end of B; they are equal if there is no B."""
    labels: np.ndarray
    """int32 [n]: 1 if B follows A in the text; or the targets [n, ...] of labelled examples."""
    weights: np.ndarray
    """float32 [n]: 0 if the example has no label."""

    def __len__(self) -> int:
        return len(self.a)

    @property
    def lengths(self) -> np.ndarray:
        """int64 [n]: number of tokens in each example, including special tokens."""
        b_lengths = self.b[:, 1] - self.b[:, 0]
        total: np.ndarray = 2 + self.a[:, 1] - self.a[:, 0] + b_lengths + (b_lengths > 0)
        return total

    def select(self, indices: np.ndarray) -> "Examples":
        """Return the examples at `indices`, in that order."""
        return Examples(self.a[indices], self.b[indices], self.labels[indices], self.weights[indices])


def make_examples(
    sentence_starts: np.ndarray,
    document_ends: np.ndarray,
    length: int,
    next_sentence: NextSentence,
    short_probability: float,
    rng: np.random.Generator,
) -> Examples:
    """Split the documents of a block into examples of at most `length` tokens.

    A chunk with no internal sentence boundary, such as a one-sentence document, becomes a single-segment example of weight 0.

    Args:
        sentence_starts: [s] index of the first token of each sentence, including the first sentence of each document.
        document_ends: [d] index one past the last token of each document; the first document starts at 0.
        length: maximum number of tokens in an example, including special tokens.
        next_sentence: the sentence task; `none` yields single-segment examples only.
        short_probability: fraction of examples that are limited to a random shorter length.
        rng: source of all randomness.
    """
    one, two = length - 2, length - 3  # tokens that fit next to the special tokens of one segment, and of two
    capacity = one if next_sentence == "none" else two
    chunks = _chunks(sentence_starts.tolist(), document_ends.tolist(), capacity, one, short_probability, rng)
    documents, begin, split, end = np.array(chunks, np.int64).reshape(-1, 4).T
    if next_sentence == "none":
        split = end
    paired = split < end
    examples = Examples(np.stack([begin, split], 1), np.stack([split, end], 1), paired.astype(np.int32), paired.astype(np.float32))
    return _exchange(examples, documents, capacity, rng) if next_sentence == "nsp" else _swap(examples, rng)


def _chunks(
    starts: list[int], document_ends: list[int], capacity: int, single_capacity: int, short_probability: float, rng: np.random.Generator
) -> list[tuple[int, int, int, int]]:
    """Return consecutive chunks as (document, begin, split, end); split equals end if the chunk has no sentence boundary."""
    chunks = []
    begin = following = 0
    for document, document_end in enumerate(document_ends):
        last = bisect_left(starts, document_end, following)
        while begin < document_end:
            short = short_probability > 0 and rng.random() < short_probability
            target = 2 + int(rng.random() * (capacity - 1)) if short else capacity
            following = bisect_right(starts, begin, following, last)
            if following == last or starts[following] >= begin + capacity:
                split = end = min(begin + single_capacity, starts[following] if following < last else document_end)
            else:
                # At least two sentences, and only complete sentences as long as they fit.
                stop = bisect_left(starts, begin + target, following + 1, last)
                end = min(starts[stop] if stop < last else document_end, begin + capacity)
                if end < document_end and end >= starts[last - 1] and last - 2 > following and document_end - starts[last - 2] <= capacity:
                    # Leave two sentences for the last chunk: a single one could not form a pair.
                    stop = last - 2
                    end = starts[stop]
                split = starts[following + int(rng.random() * (stop - following))]
            chunks.append((document, begin, split, end))
            begin = end
        following = last
    return chunks


def _swap(examples: Examples, rng: np.random.Generator) -> Examples:
    """Swap A and B in half of the pairs and label those 0."""
    swapped = (rng.random(len(examples)) < 0.5) & (examples.labels == 1)
    a = np.where(swapped[:, None], examples.b, examples.a)
    b = np.where(swapped[:, None], examples.a, examples.b)
    return Examples(a, b, np.where(swapped, 0, examples.labels).astype(np.int32), examples.weights)


def _exchange(examples: Examples, documents: np.ndarray, capacity: int, rng: np.random.Generator) -> Examples:
    """Give half of the pairs the B of a pair from another document, as close in length as possible, and label those 0."""
    pairs = np.flatnonzero(examples.labels)
    count = (len(pairs) + int(rng.random() < 0.5)) // 2
    drawn = rng.permutation(pairs)[:count]
    drawn = drawn[np.argsort((examples.b[:, 1] - examples.b[:, 0])[drawn], kind="stable")]
    b, labels = examples.b.copy(), examples.labels.copy()
    labels[drawn] = 0
    waiting: list[int] = []  # all from the same document, since pairs from different documents are matched
    for example in drawn.tolist():
        if waiting and documents[waiting[-1]] != documents[example]:
            other = waiting.pop()
            b[[example, other]] = b[[other, example]]
        else:
            waiting.append(example)
    kept = _borrow(examples, documents, waiting, b, labels, rng)
    a, b = _fit(examples.a, b, capacity, rng)
    empty = np.repeat(kept[:, 1:], 2, axis=1)
    return Examples(
        np.concatenate([a, kept]),
        np.concatenate([b, empty]),
        np.concatenate([labels, np.zeros(len(kept), np.int32)]),
        np.concatenate([examples.weights, np.zeros(len(kept), np.float32)]),
    )


def _borrow(
    examples: Examples, documents: np.ndarray, waiting: list[int], b: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Give each waiting pair, in place, a B that another document also uses; return the Bs that are left over, [n, 2]."""
    segments = np.where((examples.b[:, 1] > examples.b[:, 0])[:, None], examples.b, examples.a)
    kept = []
    for example in waiting:
        others = np.flatnonzero(documents != documents[example])
        if not len(others):
            labels[example] = 1
            continue
        begin, end = segments[others[int(rng.random() * len(others))]]
        own_begin, own_end = b[example]
        kept.append((own_begin, own_end))
        b[example] = begin, min(end, begin + own_end - own_begin)
    return np.array(kept, np.int64).reshape(-1, 2)


def _fit(a: np.ndarray, b: np.ndarray, capacity: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Truncate pairs to `capacity` tokens, the longer segment first, at its start or its end at random."""
    a_lengths, b_lengths = a[:, 1] - a[:, 0], b[:, 1] - b[:, 0]
    available = np.where(b_lengths > 0, capacity, capacity + 1)
    a_kept = np.minimum(a_lengths, np.maximum(available - b_lengths, capacity // 2))
    b_kept = np.minimum(b_lengths, available - a_kept)
    front = rng.random((2, len(a))) < 0.5
    fitted = []
    for ranges, cut, at_front in ((a, a_lengths - a_kept, front[0]), (b, b_lengths - b_kept, front[1])):
        fitted.append(np.stack([ranges[:, 0] + np.where(at_front, cut, 0), ranges[:, 1] - np.where(at_front, 0, cut)], 1))
    return fitted[0], fitted[1]
