"""Learn a vocabulary from texts, deterministically.

Merges are learned with Hugging Face's WordPiece trainer (byte-pair merges marked with ##). On its own, the trainer gives a
different vocabulary in every process: it numbers continuation characters in the order of a randomly seeded hash map, and
breaks ties between merges by these numbers. So words are counted here, and the trainer gets the characters in a fixed order.
"""

import heapq
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from bert_jax.config import VocabularyConfig
from bert_jax.errors import InputError
from bert_jax.modalities.text.accents import words_in_two_forms, words_that_need_accents
from bert_jax.modalities.text.chinese import CHINESE, Segmenter, spaced
from bert_jax.modalities.text.pipelines import BYTE_TOKENS
from bert_jax.modalities.text.unknown import UnknownCharacters, UnknownWord, shortened
from bert_jax.runtime.progress import WorkProgress

_CHINESE_RUN = re.compile(f"[{CHINESE}]+")
_CHINESE_WORD = re.compile(f"[{CHINESE}]{{2,}}")
_SURROGATE = re.compile("[\ud800-\udfff]")
# A letter and the combining marks that follow it in decomposed (NFD) text.
_DECOMPOSED = re.compile(r"\w[\u0300-\u036f\u3099\u309a]+")
_LONGEST_CHUNK = 1000
_MOST_CHUNKS = 2_000_000
_MOST_CHARACTERS = 40_000_000
"""Total length of distinct chunks; the trainer needs about 100 bytes per character."""
_BLOCK = 1_000_000
_EXAMPLES = 100


@dataclass(frozen=True)
class Learned:
    """A vocabulary learned from texts.

    Attributes:
        tokens: the tokens, in the order of their ids.
        normalizer: the normalizer that was applied to the texts.
        need_accents: example words because of which accents are kept, each with its stripped form.
        two_forms: example words that occur both composed and decomposed, which this normalizer does not unify.
        unknown: how many characters of the texts become [UNK] with this vocabulary.
        unknown_words: examples of words that become [UNK].
        segmenter: what finds the Chinese words among the tokens; None if each Chinese character is a word.
    """

    tokens: list[str]
    normalizer: normalizers.BertNormalizer
    need_accents: list[tuple[str, str]]
    two_forms: list[str]
    unknown: UnknownCharacters
    unknown_words: list[UnknownWord]
    segmenter: Segmenter | None = None


def learn(
    texts: Iterable[str], config: VocabularyConfig, special_tokens: Sequence[str], show_progress: bool, segmenter: Segmenter
) -> Learned:
    """Learn a vocabulary according to the configuration; warnings about the texts are printed if `show_progress` is set.

    Args:
        segmenter: what finds the words of Chinese text, for a vocabulary of words.

    Raises:
        InputError: no characters or words of the texts are frequent enough, or all words are too long.
    """
    if config.kind == "bytes":
        return byte_vocabulary(config, special_tokens)
    if config.kind == "words":
        learned = learn_words(texts, config, special_tokens, show_progress, segmenter)
    else:
        learn_kind = learn_characters if config.kind == "characters" else learn_wordpieces
        learned = learn_kind(texts, config, special_tokens, show_progress)
    if len(learned.tokens) == len(special_tokens):
        raise InputError(f"No vocabulary can be learned: the corpus has {_nothing_to_learn_from(learned, config)}")
    if show_progress:
        for note in _notes(learned, config):
            print(note, file=sys.stderr, flush=True)
    return learned


def byte_vocabulary(config: VocabularyConfig, special_tokens: Sequence[str]) -> Learned:
    """Return the special tokens and the 256 bytes, with a normalizer that changes only what the configuration explicitly says."""
    normalizer = normalizers.BertNormalizer(
        clean_text=False, handle_chinese_chars=False, strip_accents=config.strips_accents is True, lowercase=config.lowercase is True
    )
    return Learned([*special_tokens, *BYTE_TOKENS], normalizer, [], [], UnknownCharacters(0, 0, 0), [])


def learn_words(
    texts: Iterable[str], config: VocabularyConfig, special_tokens: Sequence[str], show_progress: bool, segmenter: Segmenter
) -> Learned:
    """Learn at most `config.size` tokens: the special ones, then the most frequent words (ties by code point).

    If no Chinese word of several characters is frequent enough, as in English text, each Chinese character is a word: such a
    vocabulary needs no segmenter.
    """
    chunks = _count_chunks(texts, config.max_word_length, show_progress, segmenter)
    normalizer, need_accents, two_forms = _normalizer(config, chunks, chunks)
    normalizer.handle_chinese_chars = False
    words, _ = _count_words(chunks, normalizer, sys.maxsize)
    most = config.size - len(special_tokens)
    tokens = _most_frequent(words, most, config.min_frequency)
    segmented = any(map(_CHINESE_WORD.search, tokens))
    if not segmented:
        normalizer.handle_chinese_chars = True
        words, _ = _count_words(chunks, normalizer, sys.maxsize)
        tokens = _most_frequent(words, most, config.min_frequency)
    known = set(tokens)
    unknown_counts = {word: len(word) * count for word, count in words.items() if word not in known}
    unknown = UnknownCharacters(_characters(words), 0, sum(unknown_counts.values()))
    frequent = heapq.nlargest(_EXAMPLES, unknown_counts, unknown_counts.__getitem__)
    examples = [UnknownWord(word, too_long=False) for word in frequent]
    return Learned([*special_tokens, *tokens], normalizer, need_accents, two_forms, unknown, examples, segmenter if segmented else None)


def learn_characters(texts: Iterable[str], config: VocabularyConfig, special_tokens: Sequence[str], show_progress: bool) -> Learned:
    """Learn at most `config.size` tokens: the special ones, then the most frequent normalized characters (ties by code point)."""
    raw: Counter[str] = Counter()
    decomposed: Counter[str] = Counter()
    words: Counter[str] = Counter()
    for block in _blocks(texts, show_progress):
        raw.update(block)
        decomposed.update(_DECOMPOSED.findall(block))
        words = words or Counter(block.split())
    # Whether an accent matters depends on its base letter.
    pieces = Counter({character: count for character, count in raw.items() if not character.isspace()})
    for piece, count in decomposed.items():
        pieces.subtract(dict.fromkeys(piece, count))
        pieces[piece] += count
    normalizer, need_accents, two_forms = _normalizer(config, pieces, words)
    counts: Counter[str] = Counter()
    for character, count in raw.items():
        for normalized in _normalize(normalizer, character):
            if not normalized.isspace():
                counts[normalized] += count
    tokens = _most_frequent(counts, config.size - len(special_tokens), config.min_frequency)
    known = set(tokens)
    unknown_counts = {character: count for character, count in counts.items() if character not in known}
    unknown = UnknownCharacters(counts.total(), 0, sum(unknown_counts.values()))
    frequent = heapq.nlargest(_EXAMPLES, unknown_counts, unknown_counts.__getitem__)
    examples = [UnknownWord(character, too_long=False) for character in frequent]
    return Learned([*special_tokens, *tokens], normalizer, need_accents, two_forms, unknown, examples)


def learn_wordpieces(texts: Iterable[str], config: VocabularyConfig, special_tokens: Sequence[str], show_progress: bool) -> Learned:
    """Learn at most `config.size` tokens: the special ones, the frequent characters, then the merges in the order they were learned."""
    size, min_frequency = config.size, config.min_frequency
    chunks = _count_chunks(texts, config.max_word_length, show_progress)
    normalizer, need_accents, two_forms = _normalizer(config, chunks, chunks)
    words, too_long = _count_words(chunks, normalizer, config.max_word_length)
    pieces: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            pieces[character] += count
        for character in word[1:]:
            pieces[f"##{character}"] += count
    # Plain characters, "#" included, come before continuation forms, which are longer.
    alphabet = sorted(_most_frequent(pieces, size - len(special_tokens), min_frequency), key=lambda piece: (len(piece), piece))
    known = set(alphabet)
    spelled = {
        word: count for word, count in words.items() if word[0] in known and all(f"##{character}" in known for character in word[1:])
    }
    mergeable = {word: count for word, count in spelled.items() if len(word) > 1}
    learner = tokenizers.Tokenizer(models.WordPiece(unk_token=special_tokens[1]))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, min_frequency=min_frequency, special_tokens=[*special_tokens, *alphabet], show_progress=show_progress
    )
    learner.train_from_iterator(_repeated(mergeable), trainer)
    vocabulary = learner.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    unknown_counts = {word: len(word) * count for word, count in words.items() if word not in spelled}
    unknown = UnknownCharacters(_characters(words) + _characters(too_long), _characters(too_long), sum(unknown_counts.values()))
    examples = [
        UnknownWord(word, found is too_long)
        for found in (too_long, unknown_counts)
        for word in heapq.nlargest(_EXAMPLES, found, found.__getitem__)
    ]
    return Learned(tokens, normalizer, need_accents, two_forms, unknown, examples)


def _normalizer(
    config: VocabularyConfig, chunks: Counter[str], words: Counter[str]
) -> tuple[normalizers.BertNormalizer, list[tuple[str, str]], list[str]]:
    """Return the normalizer for the configuration, examples of words that need their accents, and of words that have two forms."""
    lowercase, strip = config.lowercase is not False, config.strips_accents
    need_accents = words_that_need_accents(chunks, words) if lowercase and strip is None else []
    strip = False if need_accents else strip
    strips = lowercase if strip is None else strip
    normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=strip)
    return normalizer, need_accents, [] if strips else words_in_two_forms(chunks)


def _count_chunks(texts: Iterable[str], max_word_length: int, show_progress: bool, segmenter: Segmenter = "characters") -> Counter[str]:
    """Count raw chunks: Chinese characters, or the words of a segmenter, and runs of text between whitespace and Chinese.

    Normalization is slow and chunks repeat often, so raw chunks are counted first and each distinct one is normalized once.
    """
    longest = max(_LONGEST_CHUNK, 2 * max_word_length)
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    chunks: Counter[str] = Counter()
    floor = thinned = 1
    size = 0
    for block in _blocks(texts, show_progress):
        if segmenter == "characters":
            chunks.update("".join(_CHINESE_RUN.findall(block)))
            found = _CHINESE_RUN.sub(" ", block).split()
        else:
            found = " ".join(spaced(block.split("\n"), segmenter).texts).split()
        chunks.update(chunk for chunk in found if len(chunk) <= longest)
        for chunk in found:
            if len(chunk) > longest:  # even text without spaces has words between punctuation
                chunks.update(word for word, _ in split(_SURROGATE.sub("\ufffd", chunk)))
        while len(chunks) > _MOST_CHUNKS:  # bounds memory on any corpus, at the cost of its rarest words
            floor += 1
            chunks = Counter({chunk: count for chunk, count in chunks.items() if count >= floor})
        # In scripts without spaces, chunks are long and rarely repeat; half of the rare ones are as informative as all.
        size += len(block)
        while size > _MOST_CHARACTERS and (size := sum(map(len, chunks))) > _MOST_CHARACTERS:
            for chunk in [chunk for chunk, count in chunks.items() if count <= thinned][::2]:
                del chunks[chunk]
            thinned += 1
    return chunks


def _count_words(chunks: Counter[str], normalizer: normalizers.BertNormalizer, max_word_length: int) -> tuple[Counter[str], Counter[str]]:
    """Count the words in the chunks, and separately those longer than `max_word_length`, from which nothing can be learned."""
    words: Counter[str] = Counter()
    too_long: Counter[str] = Counter()
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    for chunk, count in chunks.items():
        for word, _ in split(_normalize(normalizer, chunk)):
            (words if len(word) <= max_word_length else too_long)[word] += count
    return words, too_long


def _nothing_to_learn_from(learned: Learned, config: VocabularyConfig) -> str:
    rare = f"no {'word' if config.kind == 'words' else 'character'} that occurs {config.min_frequency} times or more"
    if not learned.unknown.in_long_words:
        return f"{rare}. Give a larger corpus or lower vocabulary.min_frequency."
    longest = next(word.text for word in learned.unknown_words if word.too_long)
    others = f", and in the others {rare}" if learned.unknown.in_other_words else " and no others"
    return (
        f"words longer than vocabulary.max_word_length={config.max_word_length} characters, such as {shortened(longest)}{others}. Raise "
        "vocabulary.max_word_length (or --max-word-length of train-vocab), as scripts without spaces require, or set "
        "vocabulary.kind=characters."
    )


def _notes(learned: Learned, config: VocabularyConfig) -> Iterator[str]:
    if learned.need_accents:
        examples = ", ".join(f"{word} into {stripped}" for word, stripped in learned.need_accents)
        yield (
            f"Kept accents: stripping would turn {examples}. Set vocabulary.strip_accents=true (or --strip-accents true of train-vocab) "
            "to strip them anyway."
        )
    if learned.two_forms:
        yield (
            f"Warning: {', '.join(learned.two_forms)} and other words occur both composed and decomposed (Unicode NFC and NFD), and with "
            "accents kept these are different words. Convert the corpus to NFC, for example with `uconv -x nfc`."
        )
    if learned.unknown.too_many:
        yield learned.unknown.warning(learned.unknown_words, config.max_word_length, config.kind)


def _characters(words: Counter[str]) -> int:
    return sum(len(word) * count for word, count in words.items())


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
