"""Text: its vocabulary, and the corpus."""

from dataclasses import dataclass
from typing import Literal

from bert_jax.config.checks import at_most, positive, require
from bert_jax.config.corpus import CorpusOptions


@dataclass(frozen=True)
class VocabularyConfig:
    """Where the vocabulary comes from: an existing file, or training on the corpus."""

    path: str = ""
    """An existing `vocab.txt` or `tokenizer.json`; empty trains a vocabulary from the corpus."""
    kind: Literal["wordpiece", "characters"] = "wordpiece"
    size: int = 30_522
    min_frequency: int = 2
    casing: Literal["auto", "uncased", "cased"] = "auto"
    """Uncased lowers the case; auto is uncased for a new vocabulary and what its files say for an existing one."""
    strip_accents: Literal["auto", "true", "false"] = "auto"
    """Whether é becomes e. Auto strips accents where the case is lowered, unless that takes the meaning out of the corpus: where more than
    0.1 % of its characters are outside Latin script and would change (パ to ハ, a Thai or Hindi word without its vowels). For an
    existing vocabulary it is what its files say."""
    max_word_length: int = 100
    """Characters; a longer word is [UNK], as in the published models. Scripts without spaces need more, such as 1000, or
    kind=characters, which has no limit. For an existing vocabulary 100 is what its files say."""

    def __post_init__(self) -> None:
        require(self.size >= 6, "size", self.size, "it must hold the five special tokens and at least one other.")
        positive(self, "min_frequency", "max_word_length")
        at_most(self, max_word_length=1 << 17)

    @property
    def lowercase(self) -> bool | None:
        """Whether to lower the case, or None where the vocabulary's own files decide."""
        return {"auto": None, "uncased": True, "cased": False}[self.casing]

    @property
    def strips_accents(self) -> bool | None:
        """Whether to strip accents, or None where the corpus or the vocabulary's own files decide."""
        return {"auto": None, "true": True, "false": False}[self.strip_accents]

    @property
    def other_max_word_length(self) -> int | None:
        """A word length that an existing vocabulary is to have in place of its own, or None."""
        return None if self.max_word_length == VocabularyConfig.max_word_length else self.max_word_length


@dataclass(frozen=True)
class CorpusConfig(CorpusOptions):
    """The raw text and how it becomes documents of sentences of words."""

    modality: Literal["text"] = "text"
    source: str = "demo"
    """`demo`, `demo:reviews`, `demo:newspaper`, `tfds:NAME`, or a file, folder or glob of .txt, .txt.gz, .txt.xz."""
    segmenter: Literal["jieba", "characters", "marked"] = "jieba"
    """What a Chinese word is: jieba's, each character, or what stands between U+200B marks in the text."""
    sentence_ends: Literal["sentences", "clauses", "all_scripts"] = "sentences"
    """Split at Western and Chinese full stops and the like; also at commas and semicolons (short, informal text); or also at those of
    other scripts, without which Hindi, Urdu, Burmese, Khmer, Amharic, Armenian or Tibetan paragraphs are one sentence each."""
    encoding_errors: Literal["strict", "replace"] = "strict"
