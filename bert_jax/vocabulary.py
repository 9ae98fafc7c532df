"""Learn a vocabulary from texts, the same one from the same texts.

The merges are Hugging Face's WordPiece trainer (byte-pair merges marked with ##). It alone gives another vocabulary in every
process: it numbers the continuing characters in the order of a hash map with a random seed, and breaks ties between merges by
these numbers. So words are counted here, and the trainer gets the characters in a fixed order.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from bert_jax.progress import WorkProgress

LONGEST_WORD = 100
"""Characters; the encoder makes longer words [UNK], so nothing is learned from them."""

CHINESE_BLOCKS = (
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF), (0x2A700, 0x2B81F), (0x2B920, 0x2CEAF), (0x2F800, 0x2FA1F),
)  # fmt: skip
"""First and last code points of what BERT's normaliser sets apart as Chinese characters."""

CHINESE = "".join(f"{chr(first)}-{chr(last)}" for first, last in CHINESE_BLOCKS)
"""The same as the inside of a regular expression's set."""

_CHINESE_RUN = re.compile(f"[{CHINESE}]+")
_SURROGATE = re.compile("[\ud800-\udfff]")
_LONGEST_CHUNK = 1000
_MOST_CHUNKS = 2_000_000
_BLOCK = 1_000_000


def learn_characters(
    texts: Iterable[str],
    normalizer: normalizers.BertNormalizer,
    special_tokens: Sequence[str],
    size: int,
    min_frequency: int,
    show_progress: bool,
) -> list[str]:
    """The special tokens, then the most frequent normalised characters (ties by code point), `size` in all at most."""
    raw: Counter[str] = Counter()
    for block in _blocks(texts, show_progress):
        raw.update(block)
    counts: Counter[str] = Counter()
    for character, count in raw.items():
        for normalized in _normalize(normalizer, character):
            if not normalized.isspace():
                counts[normalized] += count
    return [*special_tokens, *_most_frequent(counts, size - len(special_tokens), min_frequency)]


def learn_wordpieces(
    texts: Iterable[str],
    normalizer: normalizers.BertNormalizer,
    special_tokens: Sequence[str],
    size: int,
    min_frequency: int,
    show_progress: bool,
) -> list[str]:
    """The special tokens, the frequent characters, then the merges in the order they were made, `size` in all at most."""
    words = _count_words(texts, normalizer, show_progress)
    pieces: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            pieces[character] += count
        for character in word[1:]:
            pieces[f"##{character}"] += count
    # A lone "#" sorts beside its continuing form, which is longer.
    alphabet = sorted(_most_frequent(pieces, size - len(special_tokens), min_frequency), key=lambda piece: (len(piece), piece))
    known = set(alphabet)
    mergeable = {
        word: count
        for word, count in words.items()
        if len(word) > 1 and word[0] in known and all(f"##{character}" in known for character in word[1:])
    }
    learner = tokenizers.Tokenizer(models.WordPiece(unk_token=special_tokens[1]))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, min_frequency=min_frequency, special_tokens=[*special_tokens, *alphabet], show_progress=show_progress
    )
    learner.train_from_iterator(_repeated(mergeable), trainer)
    vocabulary = learner.get_vocab()
    return sorted(vocabulary, key=vocabulary.__getitem__)


def _count_words(texts: Iterable[str], normalizer: normalizers.BertNormalizer, show_progress: bool) -> Counter[str]:
    # Normalising is slow and the same chunk comes again and again, so raw chunks are counted and each is normalised once.
    chunks: Counter[str] = Counter()
    floor = 1
    for block in _blocks(texts, show_progress):
        chunks.update("".join(_CHINESE_RUN.findall(block)))
        chunks.update(chunk for chunk in _CHINESE_RUN.sub(" ", block).split() if len(chunk) <= _LONGEST_CHUNK)
        while len(chunks) > _MOST_CHUNKS:  # keeps memory bounded on any corpus, at the cost of its rarest words
            floor += 1
            chunks = Counter({chunk: count for chunk, count in chunks.items() if count >= floor})
    words: Counter[str] = Counter()
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    for chunk, count in chunks.items():
        for word, _ in split(_normalize(normalizer, chunk)):
            if len(word) <= LONGEST_WORD:
                words[word] += count
    return words


def _normalize(normalizer: normalizers.BertNormalizer, text: str) -> str:
    return normalizer.normalize_str(_SURROGATE.sub("\ufffd", text))


def _most_frequent(counts: Counter[str], most: int, min_frequency: int) -> list[str]:
    frequent = [token for token, count in counts.items() if count >= min_frequency]
    return sorted(frequent, key=lambda token: (-counts[token], token))[:most]


def _blocks(texts: Iterable[str], show_progress: bool) -> Iterator[str]:
    with WorkProgress("vocabulary", "characters", show=show_progress) as progress:
        block: list[str] = []
        size = 0
        for text in texts:
            block.append(text)
            size += len(text)
            if size >= _BLOCK:
                yield "\n".join(block)
                progress.update(size)
                block, size = [], 0
        yield "\n".join(block)
        progress.update(size)


def _repeated(words: dict[str, int], most: int = 10_000) -> Iterator[str]:
    for word, count in words.items():
        for start in range(0, count, most):
            yield f"{word} " * min(most, count - start)
