"""Documents become examples of one or two segments, as ranges of tokens: next sentence, sentence order, or neither.

The tokens of a block of documents stand one after another; an example names what it takes of them by index, so nothing
is copied here. Every document is first cut into chunks that fill a row, each chunk at a random sentence boundary into A
and B. Next sentence (Devlin et al. 2019) then lets half of the chunks exchange their Bs between documents. Unlike a
draw with replacement this uses every token once, and a false B has the length and the place in its document of a true
one, so that neither gives the answer away. Sentence order (Lan et al. 2020) swaps A and B in half of the chunks.
"""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Literal

import numpy as np

NextSentence = Literal["nsp", "sop", "none"]


@dataclass(frozen=True)
class Examples:
    """n examples `[CLS] A [SEP] B [SEP]`, or `[CLS] A [SEP]` where B is empty."""

    a: np.ndarray
    """int64 [n, 2]: where A begins and ends in the tokens at hand."""
    b: np.ndarray
    """int64 [n, 2]: the same for B; both ends are equal where there is no B."""
    labels: np.ndarray
    """int32 [n]: 1 where B follows A in the text; or the targets [n, ...] of labelled examples."""
    weights: np.ndarray
    """float32 [n]: 0 where the example has no label."""

    def __len__(self) -> int:
        return len(self.a)

    @property
    def lengths(self) -> np.ndarray:
        """int64 [n]: tokens in a row, the special ones counted."""
        b_lengths = self.b[:, 1] - self.b[:, 0]
        total: np.ndarray = 2 + self.a[:, 1] - self.a[:, 0] + b_lengths + (b_lengths > 0)
        return total

    def select(self, indices: np.ndarray) -> "Examples":
        """Those examples, in that order."""
        return Examples(self.a[indices], self.b[indices], self.labels[indices], self.weights[indices])


def make_examples(
    sentence_starts: np.ndarray,
    document_ends: np.ndarray,
    length: int,
    next_sentence: NextSentence,
    short_probability: float,
    rng: np.random.Generator,
) -> Examples:
    """Cuts the documents of a block into examples of at most `length` tokens.

    A chunk in which no sentence ends, such as a document of one sentence, is an example of one segment with weight 0.

    Args:
        sentence_starts: [s] the token index at which each sentence starts, the first of each document included.
        document_ends: [d] the token index at which each document ends; the first document starts at 0.
        length: of a row, special tokens included.
        next_sentence: the task; `none` gives examples of one segment only.
        short_probability: share of examples cut to a random shorter length.
        rng: decides everything that is random.
    """
    one, two = length - 2, length - 3  # tokens that one segment, and two, leave room for
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
    """(document, begin, split, end) of consecutive chunks; split equals end where no sentence ends inside."""
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
                # At least two sentences, and whole ones as long as they fit.
                stop = bisect_left(starts, begin + target, following + 1, last)
                end = min(starts[stop] if stop < last else document_end, begin + capacity)
                if end < document_end and end >= starts[last - 1] and last - 2 > following and document_end - starts[last - 2] <= capacity:
                    # The rest of the document would be one sentence, which has no next: leave it two.
                    stop = last - 2
                    end = starts[stop]
                split = starts[following + int(rng.random() * (stop - following))]
            chunks.append((document, begin, split, end))
            begin = end
        following = last
    return chunks


def _swap(examples: Examples, rng: np.random.Generator) -> Examples:
    """Half of the pairs get A and B swapped and the label 0."""
    swapped = (rng.random(len(examples)) < 0.5) & (examples.labels == 1)
    a = np.where(swapped[:, None], examples.b, examples.a)
    b = np.where(swapped[:, None], examples.a, examples.b)
    return Examples(a, b, np.where(swapped, 0, examples.labels).astype(np.int32), examples.weights)


def _exchange(examples: Examples, documents: np.ndarray, capacity: int, rng: np.random.Generator) -> Examples:
    """Half of the pairs get the B of a pair of another document, as near in length as there is, and the label 0."""
    pairs = np.flatnonzero(examples.labels)
    count = (len(pairs) + int(rng.random() < 0.5)) // 2
    drawn = rng.permutation(pairs)[:count]
    drawn = drawn[np.argsort((examples.b[:, 1] - examples.b[:, 0])[drawn], kind="stable")]
    b, labels = examples.b.copy(), examples.labels.copy()
    labels[drawn] = 0
    waiting: list[int] = []  # of one document only, or two of them would have been matched
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
    """Gives each waiting pair, in place, a B that another document uses too; returns the Bs this leaves over, [n, 2]."""
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
    """Cuts pairs to `capacity` tokens, the longer segment first, from its front or its back at random."""
    a_lengths, b_lengths = a[:, 1] - a[:, 0], b[:, 1] - b[:, 0]
    room = np.where(b_lengths > 0, capacity, capacity + 1)
    a_kept = np.minimum(a_lengths, np.maximum(room - b_lengths, capacity // 2))
    b_kept = np.minimum(b_lengths, room - a_kept)
    front = rng.random((2, len(a))) < 0.5
    fitted = []
    for ranges, cut, at_front in ((a, a_lengths - a_kept, front[0]), (b, b_lengths - b_kept, front[1])):
        fitted.append(np.stack([ranges[:, 0] + np.where(at_front, cut, 0), ranges[:, 1] - np.where(at_front, 0, cut)], 1))
    return fitted[0], fitted[1]
