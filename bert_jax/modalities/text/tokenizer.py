"""Tokenization with Hugging Face `tokenizers`: load, encode with word starts, and save; see `vocabulary.py` for training.

The tokens are word pieces, characters, words or bytes. Except for bytes, which are those of the text as it is, the normalization is
BERT's (Devlin et al. 2019; `tokenization.py` of google-research/bert): remove control characters, make every Chinese character a
separate word, optionally lowercase and strip accents, then split at whitespace and punctuation. In a vocabulary with Chinese words, a
segmenter finds these instead.
"""

import hashlib
import json
import re
import string
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import chain, repeat
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import models, normalizers, processors

from bert_jax.config import VocabularyConfig
from bert_jax.data.reader import StringQueries
from bert_jax.errors import InputError
from bert_jax.modalities.text.bulk_encoding import BulkEncoder, blocks
from bert_jax.modalities.text.chinese import CHINESE_BLOCKS, Segmenter, installed, requirement, spaced
from bert_jax.modalities.text.pipelines import BYTE_TOKENS, CHARACTERS_OF_BYTES, Kind, kind_of, pipeline
from bert_jax.modalities.text.tokenizer_files import PUBLISHED_WORD_LENGTH, SEGMENTER, SPECIAL_TOKENS, UNUSED, read_tokenizer
from bert_jax.modalities.text.unknown import UnknownWord
from bert_jax.modalities.text.vocabulary import learn
from bert_jax.storage.files import make_directory, resolve_path

MOST_TOKENS = 1 << 24
"""Upper limit on the vocabulary size: larger than any real vocabulary, and small enough for per-token arrays to fit in memory."""

_SURROGATES = re.compile("[\ud800-\udfff]")
# Characters around which the decoder inserts spaces that Chinese typography does not have.
_WIDE = "\u2e80-\u2fdf\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff“”‘’…—·"
_WIDE_GAP = re.compile(f"(?<=[{_WIDE}]) | (?=[{_WIDE}])")

Ids = NDArray[np.int32]
Flags = NDArray[np.bool_]


class Encoding:
    """The tokens of one text, without added special tokens.

    Attributes:
        ids: int32 [n].
        word_starts: bool [n], true where a token starts a word (a Chinese character is a word); false for the other pieces of a word.
    """

    __slots__ = ("_origins", "_raw", "ids", "word_starts")

    def __init__(self, ids: Ids, word_starts: Flags, raw: tokenizers.Encoding, origins: NDArray[np.int64] | None) -> None:
        """Keep the tokens; `origins` is where each character that was encoded is in the text, or None if they are the same."""
        self.ids, self.word_starts, self._raw, self._origins = ids, word_starts, raw, origins

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def units(self) -> None:
        """None: token ids carry all of the input."""

    @property
    def offsets(self) -> Ids:
        """int32 [n, 2]: start and end (exclusive) of each token, in characters of the text; bytes have those of their character."""
        offsets = np.asarray(self._raw.offsets, np.int32).reshape(-1, 2)
        if self._origins is None or not len(offsets):
            return offsets
        return (self._origins[offsets - (0, 1)] + (0, 1)).astype(np.int32)


class FlatEncodings(NamedTuple):
    """The concatenated tokens of several texts.

    Attributes:
        ids: int32 [n].
        word_starts: bool [n].
        lengths: number of tokens in each text, int64 [texts].
        unknown: int64 [texts, 2], the number of characters of each text that became [UNK]: in overlong words, and in others.
    """

    ids: Ids
    word_starts: Flags
    lengths: NDArray[np.int64]
    unknown: NDArray[np.int64]

    @property
    def units(self) -> None:
        """None: token ids carry all of the input."""


class Tokenizer(StringQueries):
    """Converts text to token ids and back.

    Attributes:
        vocab_size: number of rows that an embedding table needs.
        pad_id, unk_id, cls_id, sep_id, mask_id: ids of the special tokens.
        special_ids: these five ids, in this order.
        kind: what the tokens are.
        segmenter: what finds Chinese words; None if each Chinese character is a word.
        lowercase: whether text is lowercased.
        max_word_length: longer words, in characters, become [UNK]; None except for word pieces.
        fingerprint: SHA-256 of everything that determines the encoding.
    """

    def __init__(self, backend: tokenizers.Tokenizer, source: str, segmenter: Segmenter | None = None) -> None:
        """Wrap a `tokenizers` object from `train` or `load`; `source` identifies it in error messages.

        Raises:
            InputError: special tokens are missing, or an id is too large.
        """
        vocabulary = backend.get_vocab(with_added_tokens=True)
        if (largest := max(vocabulary.values(), default=0)) >= MOST_TOKENS:
            raise InputError(f"The vocabulary {source} has the id {largest:,}; it must be below {MOST_TOKENS:,}. Save it again.")
        missing = [token for token in SPECIAL_TOKENS if token not in vocabulary]
        if missing:
            raise InputError(
                f"The vocabulary {source} is missing the special token{'s' * (len(missing) > 1)} {', '.join(missing)}. "
                f"BERT needs {', '.join(SPECIAL_TOKENS)}: add them, or train a vocabulary with `python -m bert_jax train-vocab`."
            )
        backend.no_truncation()
        backend.no_padding()
        backend.add_special_tokens(list(SPECIAL_TOKENS))
        self._backend = backend
        self.vocab_size = max(vocabulary.values()) + 1
        self.special_ids = tuple(vocabulary[token] for token in SPECIAL_TOKENS)
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = self.special_ids
        backend.post_processor = processors.BertProcessing(("[SEP]", self.sep_id), ("[CLS]", self.cls_id))
        self.lowercase: bool = backend.normalizer.lowercase
        self._vocabulary = vocabulary
        self.kind: Kind = kind_of(backend)
        self.segmenter = segmenter
        # Their tokens are parts of words without a mark of their own.
        self._unmarked = self.kind in ("characters", "bytes")
        self.max_word_length: int | None = backend.model.max_input_chars_per_word if self.kind == "wordpiece" else None
        self._starts = np.ones(self.vocab_size, np.bool_)
        self._starts[[i for token, i in vocabulary.items() if token.startswith("##") and token != "##"]] = False
        self.fingerprint = hashlib.sha256(json.dumps(self._state(), sort_keys=True).encode()).hexdigest()

    @property
    def backend(self) -> tokenizers.Tokenizer:
        """The object of Hugging Face's library that this one wraps."""
        return self._backend

    @cached_property
    def token_characters(self) -> Ids:
        """int32 [V], how many characters other than whitespace each token stands for, as the vocabulary spells them.

        The first byte of a character stands for it, and its other bytes for nothing.
        """
        counts = np.zeros(self.vocab_size, np.int32)
        ordinary = self.ordinary_ids
        counts[ordinary] = [*map(len, self.tokens(ordinary))] - 2 * ~self._starts[ordinary]
        if self.kind == "bytes":
            counts[[self._vocabulary[token] for token in BYTE_TOKENS]] = CHARACTERS_OF_BYTES
        return counts

    @cached_property
    def ordinary_ids(self) -> Ids:
        """int32, all ids that are neither special nor [unusedN] tokens."""
        special = {*self.special_ids, *(i for i, token in self._backend.get_added_tokens_decoder().items() if token.special)}
        return np.array(sorted(i for token, i in self._vocabulary.items() if i not in special and not UNUSED.fullmatch(token)), np.int32)

    @classmethod
    def train(
        cls, texts: Iterable[str], config: VocabularyConfig, show_progress: bool = True, segmenter: Segmenter = "jieba"
    ) -> Self:
        """Learn a vocabulary from texts. The same texts give the same vocabulary. Bytes need no texts.

        Args:
            segmenter: what finds Chinese words, for a vocabulary of words.

        Raises:
            InputError: no characters or words of the texts are frequent enough, or all words are too long.
        """
        learned = learn(texts, config, SPECIAL_TOKENS, show_progress, segmenter)
        vocabulary = {token: i for i, token in enumerate(learned.tokens)}
        backend = pipeline(config.kind, vocabulary, learned.normalizer, config.max_word_length)
        return cls(backend, "just trained", learned.segmenter)

    @classmethod
    def load(
        cls,
        path: str | Path,
        lowercase: bool | None = None,
        strip_accents: bool | None = None,
        max_word_length: int | None = None,
    ) -> Self:
        """Load a `tokenizer.json` or `vocab.txt`, or a directory that contains one (`tokenizer.json` takes precedence).

        A `tokenizer_config.json` in the same directory is used as by AutoTokenizer in `transformers`, and so are the tokens
        declared in `special_tokens_map.json` and `added_tokens.json`. Without it, a `tokenizer.json` defines the normalization,
        and a `vocab.txt` with many uppercase tokens is treated as cased. The arguments override the files.

        Raises:
            InputError: the file is missing, unreadable or not a supported tokenizer, or special tokens are missing.
        """
        found = read_tokenizer(resolve_path(path), lowercase)
        backend = found.backend
        if backend is None:
            assert found.normalizer is not None
            backend = pipeline(found.kind, found.vocabulary, found.normalizer, PUBLISHED_WORD_LENGTH)
        if strip_accents is not None:
            backend.normalizer.strip_accents = strip_accents
        if max_word_length is not None and isinstance(backend.model, models.WordPiece):
            backend.model.max_input_chars_per_word = max_word_length
        backend.add_tokens(found.added)
        # A BERT special token that is declared but not in the vocabulary is missing; do not add it.
        backend.add_tokens([t for t in found.declared if t.content not in SPECIAL_TOKENS or backend.token_to_id(t.content) is not None])
        return cls(backend, str(found.file), installed(found.segmenter, found.file))

    def behind_lower_case(self) -> Self:
        """Return a tokenizer that lowercases text first and otherwise encodes as this one does; the handling of accents is unchanged."""
        backend = tokenizers.Tokenizer.from_str(self._backend.to_str())
        old = backend.normalizer
        if not old.lowercase:
            backend.normalizer = normalizers.BertNormalizer(old.clean_text, old.handle_chinese_chars, old.strip_accents is True, True)
        return type(self)(backend, "in lower case", self.segmenter)

    def save(self, directory: str | Path, longest: int = 0) -> None:
        """Write `tokenizer.json`, `vocab.txt` and `tokenizer_config.json`, in the format of Hugging Face.

        Args:
            directory: created if necessary.
            longest: the length to which Hugging Face tokenizers truncate texts when truncation is on; 0 for no limit.
        """
        directory = resolve_path(directory)
        make_directory(directory)
        (directory / "tokenizer.json").write_text(self._backend.to_str(pretty=True), encoding="utf-8")
        (directory / "vocab.txt").write_bytes(self.token_lines())
        normalizer = self._backend.normalizer
        settings = {
            # A BertTokenizer uses only the vocabulary and the settings below.
            "tokenizer_class": "BertTokenizer" if self._as_bert else "PreTrainedTokenizerFast",
            "do_lower_case": normalizer.lowercase,
            "strip_accents": normalizer.strip_accents,
            "tokenize_chinese_chars": normalizer.handle_chinese_chars,
        }
        segmenter = {SEGMENTER: requirement(self.segmenter)} if self.segmenter else {}
        settings |= ({"model_max_length": longest} if longest else {}) | segmenter
        settings |= {f"{token.strip('[]').lower()}_token": token for token in SPECIAL_TOKENS}
        (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    @property
    def _as_bert(self) -> bool:
        return self.kind == "wordpiece" and self._backend.normalizer.clean_text and self.max_word_length == PUBLISHED_WORD_LENGTH

    def token_lines(self) -> bytes:
        """Return the content of a `vocab.txt`."""
        # An id without a token (from a repeated line in the original vocabulary) still needs a line.
        names = {i: token for token, i in self._vocabulary.items()}
        return "".join(f"{names.get(i, f'[unused-{i}]')}\n" for i in range(self.vocab_size)).encode()

    def encode(self, text: str) -> Encoding:
        """Encode one text; special tokens in the text are recognized, but none are added."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
        """Encode many texts, on all cores."""
        encoded, origins = spaced(texts, self.segmenter) if self.segmenter else (texts, repeat(None, len(texts)))
        raws = self._encode(encoded, offsets=True)
        ids, word_starts, lengths = self._flatten(raws)
        ends = np.cumsum(lengths)[:-1]
        pieces = zip(np.split(ids, ends), np.split(word_starts, ends), raws, origins, strict=True) if raws else ()
        return [Encoding(*piece) for piece in pieces]

    def encode_flat(self, texts: Sequence[str]) -> FlatEncodings:
        """Encode many texts into concatenated arrays without offsets; the fastest way to encode large amounts of text.

        Raises:
            TextError: a text is not a string.
        """
        self.check(texts)
        return self.encode_characters(texts)[0]

    def encode_characters(self, texts: Sequence[str]) -> tuple[FlatEncodings, NDArray[np.int64]]:
        """Encode as `encode_flat` does, and return the position of each single-character token in the concatenated texts.

        The positions, int64 [n], are known for tokens that are one Chinese character or punctuation mark, and for bytes, which are in
        one character; all others are -1. In a vocabulary with Chinese words, they are -1 for all tokens: none needs to be joined.
        """
        if self.kind == "bytes":
            return self._encode_bytes(texts)
        codes, lengths, characters, unknown = self._bulk(spaced(texts, self.segmenter).texts if self.segmenter else texts)
        if self.segmenter:
            characters[:] = -1
        starts = codes >= 0
        return FlatEncodings(np.where(starts, codes, ~codes), starts, lengths, unknown), characters

    def _encode_bytes(self, texts: Sequence[str]) -> tuple[FlatEncodings, NDArray[np.int64]]:
        parts, before = [], 0
        for block in blocks(texts):
            raws = self._encode(block, offsets=True)
            ids, starts, lengths = self._flatten(raws)
            first = before + np.cumsum([0, *map(len, block)])
            inside = np.fromiter((start for raw in raws for start, _ in raw.offsets), np.int64, len(ids))
            parts.append((ids, starts, lengths, inside + np.repeat(first[:-1], lengths)))
            before = first[-1]
        ids, starts, lengths, characters = map(np.concatenate, zip(*parts, strict=True))
        return FlatEncodings(ids, starts, lengths, np.zeros((len(texts), 2), np.int64)), characters

    @cached_property
    def _bulk(self) -> BulkEncoder:
        marks = {c for c in map(chr, range(0xFFFF)) if unicodedata.category(c).startswith("P")} | set(string.punctuation)
        # Python may know newer punctuation than the tokenizer, which treats it as part of words.
        apart = marks.intersection(piece for piece, _ in self._backend.pre_tokenizer.pre_tokenize_str("a".join(marks)))
        if self._backend.normalizer.handle_chinese_chars:
            apart.update(chr(c) for first, last in CHINESE_BLOCKS for c in range(first, min(last + 1, 0xFFFF)))
        # Tokens such as [MASK] are matched before the text is split, and single-word tokens only if no letter or digit is adjacent.
        added = self._backend.get_added_tokens_decoder().values()
        if any(token.single_word for token in added):
            apart.clear()
        inside = "".join(token.content for token in added)
        return BulkEncoder(self._codes, apart - {*inside}, {*" \t\n\r\u3000"} - {*inside}, self.unk_id, self._count_unknown)

    def _codes(self, texts: list[str]) -> list[Ids]:
        ids, word_starts, lengths = self._flatten(self._encode(texts, offsets=self._unmarked))
        return np.split(np.where(word_starts, ids, ~ids), np.cumsum(lengths)[:-1]) if texts else []

    def _count_unknown(self, texts: list[str]) -> list[tuple[int, int]]:
        counts = []
        # These are words already: a segmenter could find others in them.
        for words in map(self._unknown, texts, self._encode(texts, offsets=True)):
            long = sum(len(word.text) for word in words if word.too_long)
            counts.append((long, sum(len(word.text) for word in words) - long))
        return counts

    def unknown_words(self, texts: Sequence[str]) -> list[list[UnknownWord]]:
        """Return the words of each text that become [UNK], or the characters if the vocabulary consists of characters."""
        encoded = spaced(texts, self.segmenter).texts if self.segmenter else texts
        return [self._unknown(text, raw) for text, raw in zip(encoded, self._encode(encoded, offsets=True), strict=True)]

    def _unknown(self, text: str, raw: tokenizers.Encoding) -> list[UnknownWord]:
        words = [text[first:last] for i, (first, last) in zip(raw.ids, raw.offsets, strict=True) if i == self.unk_id]
        return [UnknownWord(word, self._is_too_long(word)) for word in words]

    def _is_too_long(self, word: str) -> bool:
        # Normalization may shorten a word (stripped accents) or lengthen it (Korean syllables).
        limit = self.max_word_length
        return limit is not None and len(self._backend.normalizer.normalize_str(_SURROGATES.sub("\ufffd", word))) > limit

    def decode(self, ids: Iterable[int]) -> str:
        """Decode token ids to text, including special tokens; words are joined by spaces, except in Chinese. Bytes have their own."""
        text = self._backend.decode([int(i) for i in ids], skip_special_tokens=False)
        return text if self.kind == "bytes" else _WIDE_GAP.sub("", text)

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Return the token of each id as a string."""
        return [self._backend.id_to_token(int(i)) or f"[unused-{i}]" for i in ids]

    def id(self, token: str) -> int:
        """Return the id of a token.

        Raises:
            KeyError: the token is not in the vocabulary.
        """
        return self._vocabulary[token]

    def _encode(self, texts: Sequence[str], offsets: bool) -> list[tokenizers.Encoding]:
        encode = self._backend.encode_batch if offsets else self._backend.encode_batch_fast
        try:
            return encode(list(texts), add_special_tokens=False)
        except TypeError:  # a lone surrogate, which is invalid in UTF-8; replaced one for one to keep the offsets correct
            return encode([_SURROGATES.sub("\ufffd", text) for text in texts], add_special_tokens=False)

    def _flatten(self, raws: list[tokenizers.Encoding]) -> tuple[Ids, Flags, NDArray[np.int64]]:
        lengths = np.fromiter(map(len, raws), np.int64, len(raws))
        count = int(lengths.sum())
        ids = np.fromiter(chain.from_iterable(raw.ids for raw in raws), np.int32, count)
        if not self._unmarked:
            return ids, self._starts[ids], lengths
        words = np.fromiter(chain.from_iterable(raw.word_ids for raw in raws), np.int32, count)
        starts = np.ones(count, np.bool_)
        starts[1:] = words[1:] != words[:-1]
        starts[(np.cumsum(lengths) - lengths)[lengths > 0]] = True
        return ids, starts, lengths

    def _state(self) -> dict[str, Any]:
        normalizer = self._backend.normalizer
        added = self._backend.get_added_tokens_decoder()
        state = {
            "vocabulary": sorted(self._vocabulary.items(), key=lambda item: item[1]),
            "characters": self.kind == "characters",
            "normalizer": [normalizer.clean_text, normalizer.handle_chinese_chars, normalizer.strip_accents, normalizer.lowercase],
            "added": [[i, t.content, t.single_word, t.lstrip, t.rstrip, t.normalized] for i, t in sorted(added.items())],
        }
        # Included only where they differ from the defaults, so that fingerprints from before these options stay valid.
        options = {
            "max_word_length": None if self.max_word_length == PUBLISHED_WORD_LENGTH else self.max_word_length,
            "kind": self.kind if self.kind in ("words", "bytes") else None,
            "segmenter": self.segmenter and requirement(self.segmenter),
        }
        return state | {name: value for name, value in options.items() if value is not None}
