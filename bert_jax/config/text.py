"""Configuration of the text modality: vocabulary and corpus."""

from dataclasses import dataclass
from typing import Literal

from bert_jax.config.checks import at_most, positive, require
from bert_jax.config.corpus import CorpusOptions, VocabularyOptions


@dataclass(frozen=True)
class VocabularyConfig(VocabularyOptions):
    """The vocabulary of text: an existing file, or the settings for training one on the corpus."""

    kind: Literal["wordpiece", "characters", "words", "bytes"] = "wordpiece"
    """The size of a token. `words`: whole words, English ones as BERT divides text and Chinese ones as `corpus.segmenter` finds them; words
    that are not in the vocabulary become [UNK]. `bytes`: the 256 bytes of UTF-8, without [UNK] and without loss."""
    path: str = ""
    """An existing `vocab.txt` or `tokenizer.json`; empty trains a vocabulary from the corpus."""
    size: int = 30_522
    """Number of tokens to learn, special tokens included; a small corpus gives fewer, and bytes are always 261. An existing vocabulary has
    its own size."""
    min_frequency: int = 2
    """How often a character, a word or a pair of pieces must occur in the corpus to get into the vocabulary."""
    casing: Literal["auto", "uncased", "cased"] = "auto"
    """`uncased` lowercases text; `auto` means uncased for a new vocabulary, except for bytes, which keep the text as it is, and the setting
    in the files of an existing one."""
    strip_accents: Literal["auto", "true", "false"] = "auto"
    """Whether é becomes e. `auto` strips accents if text is lowercased, unless stripping would change the meaning of the text: that is,
    if more than 0.1% of the corpus's characters are non-Latin and would change (パ to ハ, or a Thai or Hindi word that loses its vowels).
    Bytes keep accents unless this is `true`.
    For an existing vocabulary, `auto` means the setting in its files."""
    max_word_length: int = 100
    """Characters; longer words become [UNK], as in the published models. Scripts without spaces need more, such as 1000, or
    kind=characters or bytes, which have no limit; nor do words. For an existing vocabulary, 100 means the setting in its files."""

    def __post_init__(self) -> None:
        require(self.size >= 6, "size", self.size, "it must allow for the five special tokens and at least one other.")
        positive(self, "min_frequency", "max_word_length")
        at_most(self, max_word_length=1 << 17)

    @property
    def lowercase(self) -> bool | None:
        """Whether to lowercase text; None to use the setting in the vocabulary's files."""
        return {"auto": None, "uncased": True, "cased": False}[self.casing]

    @property
    def strips_accents(self) -> bool | None:
        """Whether to strip accents; None to decide from the corpus, or to use the setting in the vocabulary's files."""
        return {"auto": None, "true": True, "false": False}[self.strip_accents]

    @property
    def other_max_word_length(self) -> int | None:
        """The maximum word length that overrides the one in the files of an existing vocabulary, or None."""
        return None if self.max_word_length == VocabularyConfig.max_word_length else self.max_word_length


@dataclass(frozen=True)
class CorpusConfig(CorpusOptions):
    """The raw text, and how it is split into documents, sentences and words."""

    modality: Literal["text"] = "text"
    source: str = "demo"
    """`demo`, `demo:reviews`, `demo:newspaper`; a file, folder or glob of .txt, .txt.gz, .txt.xz; or a data set: `tfds:NAME`,
    `hf:OWNER/NAME`, a folder written by `save_to_disk`, or .parquet files."""
    segmenter: Literal["jieba", "characters", "marked"] = "jieba"
    """Chinese word segmentation, for whole-word masking and for `vocabulary.kind=words`: jieba, single characters, or U+200B marks in
    the text."""
    sentence_ends: Literal["sentences", "clauses", "all_scripts"] = "sentences"
    """`sentences` splits at Western and Chinese sentence-final punctuation; `clauses` also at commas and semicolons, for short, informal
    text; `all_scripts` also at the full stops of other scripts, without which every paragraph of Hindi, Urdu, Burmese, Khmer,
    Amharic, Armenian or Tibetan is a single sentence."""
    encoding_errors: Literal["strict", "replace"] = "strict"
    """What to do about bytes that are not UTF-8: raise an error, or replace them with U+FFFD."""
