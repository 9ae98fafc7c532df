"""The tokens of texts with word starts that count a Chinese word, rather than each of its characters, as one word."""

from collections.abc import Sequence

import numpy as np

from bert_jax.modalities.text.chinese import Flags, Segmenter, has_words, word_continues
from bert_jax.modalities.text.sentences import WORD_MARK
from bert_jax.modalities.text.tokenizer import Encoding, FlatEncodings, Tokenizer


def encode_words(tokenizer: Tokenizer, texts: Sequence[str], segmenter: Segmenter) -> FlatEncodings:
    """Encode texts as `Tokenizer.encode_flat` does, but with the word starts of the segmenter and without word marks (U+200B).

    Raises:
        InputError: the segmenter is not installed.
    """
    encodings, characters = tokenizer.encode_characters(texts)
    if segmenter != "characters" and any(map(has_words, texts)):
        known = characters >= 0
        starts = encodings.word_starts.copy()
        starts[known] &= ~word_continues(texts, segmenter)[characters[known]]
        encodings = encodings._replace(word_starts=starts)
    marked = tokenizer.kind == "bytes" and any(WORD_MARK in text for text in texts)
    return _without_marks(encodings, characters, texts) if marked else encodings


def correct_word_starts(text: str, encoding: Encoding, segmenter: Segmenter) -> Flags:
    """Return the segmenter's word starts for the tokens of one text, bool [n]. For many texts, `encode_words` is faster.

    Raises:
        InputError: the segmenter is not installed.
    """
    if segmenter == "characters" or not has_words(text):
        return encoding.word_starts
    return encoding.word_starts & ~word_continues([text], segmenter)[encoding.offsets[:, 0]]


def _without_marks(encodings: FlatEncodings, characters: np.ndarray, texts: Sequence[str]) -> FlatEncodings:
    """Remove the bytes of word marks. In other vocabularies, word marks are not tokens."""
    marks = np.array([character == WORD_MARK for text in texts for character in text], np.bool_)
    kept = ~marks[characters]
    text_of = np.repeat(np.arange(len(texts)), encodings.lengths)
    return encodings._replace(
        ids=encodings.ids[kept],
        word_starts=encodings.word_starts[kept],
        lengths=np.bincount(text_of[kept], minlength=len(texts)).astype(np.int64),
    )
