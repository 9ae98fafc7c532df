"""Read tokenizer files, ours or Hugging Face's: which file determines which setting, and the tokens that they declare.

Token ids match AutoTokenizer of `transformers` 5.24. Its BertTokenizer takes the vocabulary from tokenizer.json (or
vocab.txt) and the normalization from tokenizer_config.json, with defaults for missing settings; its
PreTrainedTokenizerFast uses tokenizer.json unchanged, and so does a tokenizer.json without a tokenizer_config.json.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
from tokenizers import AddedToken, models, normalizers

from bert_jax.errors import InputError
from bert_jax.modalities.text.pipelines import BYTE_TOKENS, Kind, described_kind
from bert_jax.storage.small_files import read_json, read_text

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
UNUSED = re.compile(r"\[unused.*\]")
SETTINGS, CONFIG = "tokenizer_config.json", "config.json"
SEGMENTER = "chinese_word_segmenter"
"""The setting that names what finds Chinese words; `transformers` has none."""
_MAP, _ADDED = "special_tokens_map.json", "added_tokens.json"
_REMEDY = "Save it again or use the vocab.txt."
_SETTINGS_REMEDY = "Correct it or download it again."

# Tokenizer classes that `transformers` 5.24 reads as a BertTokenizer, and those that use tokenizer.json unchanged.
_BERT = (
    "BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer", "LayoutLMTokenizer", "LxmertTokenizer",
    "SqueezeBertTokenizer", "ConvBertTokenizer",
)  # fmt: skip
_AS_SAVED = ("PreTrainedTokenizer", "TokenizersBackend")
PUBLISHED_WORD_LENGTH = 100
"""BertTokenizer turns words of more characters into [UNK], regardless of tokenizer.json."""

_NAMED = {f"{token.strip('[]').lower()}_token": token for token in SPECIAL_TOKENS}
# The order in which tokens that are not yet in the vocabulary are assigned ids.
_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


class TokenizerSource(NamedTuple):
    """The content of a directory's tokenizer files: either a backend (from tokenizer.json), or a vocabulary with its normalizer.

    Attributes:
        file: the tokenizer.json or vocab.txt that was read.
        backend: the tokenizer of a tokenizer.json, or None.
        vocabulary: the ids of the tokens in a vocab.txt; empty with a backend.
        normalizer: the normalizer for a vocab.txt, or None.
        kind: what the tokens of a vocab.txt are.
        segmenter: what finds Chinese words, as `tokenizer_config.json` says; "" if each Chinese character is a word.
        added: tokens declared with an id, in the order of their ids; they are matched before the text is split.
        declared: tokens declared by name only, in the order in which they are assigned ids; also matched before the split.
    """

    file: Path
    backend: tokenizers.Tokenizer | None
    vocabulary: dict[str, int]
    normalizer: normalizers.BertNormalizer | None
    kind: Kind
    segmenter: str
    added: list[AddedToken]
    declared: list[AddedToken]


def read_tokenizer(path: Path, lowercase: bool | None) -> TokenizerSource:
    """Read the tokenizer files at a path.

    Args:
        path: a file or a directory.
        lowercase: overrides the setting in the files if not None.

    Raises:
        InputError: the files are missing, unreadable or not a BERT tokenizer, or have a setting that is not supported.
    """
    file = _vocabulary_file(path)
    settings = read_settings(file.parent)
    bert = _is_bert(file, settings)
    content = _read_object(file, _REMEDY) if file.suffix == ".json" else None
    added, declared = _tokens(file, settings, content)
    segmenter = (settings or {}).get(SEGMENTER, "")
    if content is not None:
        backend = _from_json(file, content, settings if bert else None, lowercase)
        if settings is None and _describes_bert(file.with_name(CONFIG)) and isinstance(backend.model, models.WordPiece):
            backend.model.max_input_chars_per_word = PUBLISHED_WORD_LENGTH
        return TokenizerSource(file, backend, {}, None, "wordpiece", segmenter, added, declared)
    vocabulary, normalizer, kind = _from_vocabulary(file, settings, bert, lowercase)
    return TokenizerSource(file, None, vocabulary, normalizer, kind, segmenter, added, declared)


def read_settings(directory: Path) -> dict[str, Any] | None:
    """Read and validate the tokenizer_config.json of a directory; return None if there is none.

    Raises:
        InputError: a setting has an invalid or unsupported value.
    """
    file = directory / SETTINGS
    if not file.exists():
        return None
    settings = _read_object(file, _REMEDY)
    for name in ("do_lower_case", "strip_accents", "tokenize_chinese_chars"):
        if not isinstance(settings.get(name), bool | None):
            raise InputError(f"{file} has {name}={settings[name]!r}, which is not true, false or null. {_SETTINGS_REMEDY}")
    if settings.get("split_special_tokens"):
        raise InputError(
            f"{file} has split_special_tokens=true, which splits [MASK] and other special tokens in a text. This is not supported: "
            "remove the setting to read them as tokens."
        )
    return settings


def tokenizer_length(directory: Path, positions: int) -> int:
    """Return the length to which a directory's tokenizer truncates texts (`model_max_length`), or 0 if it is at least `positions`.

    Raises:
        InputError: the length is not a number or too small for any token, or texts are truncated on the left.
    """
    settings = read_settings(directory) or {}
    name = "model_max_length" if "model_max_length" in settings else "max_len"
    length = settings.get(name)
    if length is None:
        return 0
    if isinstance(length, bool) or not isinstance(length, int | float) or not length >= 3:
        raise InputError(f"{directory / SETTINGS} has {name}={length!r}: it must be a number of at least 3. {_SETTINGS_REMEDY}")
    if settings.get("truncation_side", "right") != "right":
        raise InputError(
            f"{directory / SETTINGS} has truncation_side={settings['truncation_side']!r}, but texts are always truncated on the right. "
            "Remove the setting to load the model that way."
        )
    return int(length) if length < positions else 0


def declarations(directory: Path, token: str) -> list[str]:
    """Return the names of the tokenizer files in a directory that declare a token."""
    found = []
    for name in ("tokenizer.json", SETTINGS, _MAP, _ADDED):
        if (directory / name).is_file() and _mentions(read_json(directory / name, _SETTINGS_REMEDY), token):
            found.append(name)
    vocabulary = directory / "vocab.txt"
    if vocabulary.is_file() and token in _lines(vocabulary):
        found.append(vocabulary.name)
    return found


def _mentions(value: Any, token: str) -> bool:
    if isinstance(value, Mapping):
        return token in value or any(_mentions(part, token) for part in value.values())
    return any(_mentions(part, token) for part in value) if isinstance(value, list) else value == token


def _vocabulary_file(path: Path) -> Path:
    candidates = [path / "tokenizer.json", path / "vocab.txt"] if path.is_dir() else [path]
    for file in candidates:
        if file.is_file():
            return file
        if file.exists() or file.is_symlink():
            raise InputError(f"The vocabulary {file} is not a regular file. Replace it with one, or use another path.")
    problem = "contains neither tokenizer.json nor vocab.txt" if path.is_dir() else "does not exist"
    raise InputError(f"The vocabulary {path} {problem}. Give a vocab.txt, a tokenizer.json or a directory with one of them.")


def _is_bert(file: Path, settings: Mapping[str, Any] | None) -> bool:
    """Return whether the settings, rather than tokenizer.json, determine the normalization.

    Raises:
        InputError: the files name a tokenizer class that splits text differently.
    """
    origin, name = file.with_name(SETTINGS), (settings or {}).get("tokenizer_class")
    if not name and file.with_name(CONFIG).is_file():
        origin = file.with_name(CONFIG)
        config = read_json(origin, _SETTINGS_REMEDY)
        name = config.get("tokenizer_class") if isinstance(config, dict) else None
    # If no tokenizer class is named, the model type determines it; otherwise tokenizer.json is used unchanged.
    unnamed = "BertTokenizer" if file.suffix != ".json" or _describes_bert(file.with_name(CONFIG)) else "PreTrainedTokenizer"
    kind = str(name or unnamed).removesuffix("Fast")
    if kind not in (*_BERT, *_AS_SAVED):
        raise InputError(
            f"{origin} names the tokenizer {name}, which splits text differently from BertTokenizer: {file.name} alone does not determine "
            "its tokens. BertTokenizer and its equivalents, and PreTrainedTokenizerFast, are supported."
        )
    return kind in _BERT and settings is not None


def _describes_bert(file: Path) -> bool:
    """Return whether AutoTokenizer would use BertTokenizer because of the model type in a config.json that names no tokenizer class."""
    config = read_json(file, _SETTINGS_REMEDY) if file.is_file() else None
    return isinstance(config, dict) and config.get("model_type") == "bert" and not config.get("tokenizer_class")


def _read_object(file: Path, remedy: str) -> dict[str, Any]:
    content = read_json(file, remedy)
    if not isinstance(content, dict):
        raise InputError(f"{file} does not hold a JSON object. {remedy}")
    return content


def _from_json(file: Path, content: dict[str, Any], settings: Mapping[str, Any] | None, lowercase: bool | None) -> tokenizers.Tokenizer:
    """Return the tokenizer of a tokenizer.json, with the normalization of the settings if there are any."""
    model = content.get("model") or {}
    try:
        if settings is not None and model["type"] == "WordPiece":
            # Like BertTokenizer, use only the vocabulary of the file.
            content = content | {"normalizer": _normalizer_values(settings), "pre_tokenizer": {"type": "BertPreTokenizer"}}
            content |= {"added_tokens": [], "model": model | {"max_input_chars_per_word": PUBLISHED_WORD_LENGTH}}
        backend = tokenizers.Tokenizer.from_str(json.dumps(content)) if described_kind(content) else None
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"{file} is not a Hugging Face `tokenizers` file ({error!r}). Save it again or use the vocab.txt.") from None
    if backend is None:
        raise InputError(
            f"{file} is not a BERT tokenizer: it contains a {model['type']} model, and only WordPiece with BERT's normalizer and "
            "pre-tokenizer, and what train-vocab writes, are supported. Give the vocab.txt of a BERT model, or train a vocabulary."
        )
    if lowercase is not None and lowercase != backend.normalizer.lowercase:
        backend.normalizer.lowercase = lowercase
    return backend


def _normalizer_values(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": settings.get("tokenize_chinese_chars") is not False,
        "strip_accents": settings.get("strip_accents"),
        "lowercase": settings.get("do_lower_case") is not False,
    }


def _from_vocabulary(
    file: Path, settings: Mapping[str, Any] | None, bert: bool, lowercase: bool | None
) -> tuple[dict[str, int], normalizers.BertNormalizer, Kind]:
    """Return the token ids of a vocab.txt, its normalizer, and what the tokens are.

    A list of whole words is read as word pieces that nothing continues, which gives the same tokens.
    """
    lines = _lines(file)
    vocabulary = {token: i for i, token in enumerate(lines) if token}
    ordinary = [token for token in vocabulary if not (token in SPECIAL_TOKENS or UNUSED.fullmatch(token))]
    values = _normalizer_values(settings or {})
    if lowercase is None:
        lowercase = (settings or {}).get("do_lower_case")
    if lowercase is None and not bert:
        # Google's checkpoints have no settings, but a cased vocabulary is recognizable by its uppercase tokens.
        lowercase = sum(token != token.lower() for token in ordinary) < 0.01 * len(ordinary)
    kind: Kind = "wordpiece"
    if not bert:
        kind = "bytes" if {*ordinary} == {*BYTE_TOKENS} else "characters" if all(len(token) == 1 for token in ordinary) else kind
    normalizer = normalizers.BertNormalizer(
        clean_text=kind != "bytes",
        lowercase=lowercase is not False,
        strip_accents=values["strip_accents"],
        handle_chinese_chars=values["handle_chinese_chars"] and kind != "bytes",
    )
    return vocabulary, normalizer, kind


def _lines(file: Path) -> list[str]:
    # Not splitlines(): published vocabularies contain U+2028 and U+0085 as tokens.
    lines = [line.removesuffix("\r") for line in read_text(file, "Give a BERT vocab.txt: one token per line, in UTF-8.").split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _tokens(
    file: Path, settings: Mapping[str, Any] | None, content: Mapping[str, Any] | None
) -> tuple[list[AddedToken], list[AddedToken]]:
    """Return the tokens that the files declare, as `transformers` adds them: those with an id, and those with only a name.

    An `added_tokens_decoder` in tokenizer_config.json overrides all other files.
    """
    values = dict(settings or {})
    origin = file.with_name(SETTINGS)
    extra = values.get("extra_special_tokens") or values.get("additional_special_tokens")
    more: Any = None
    by_id: dict[int, AddedToken] = {}
    if "added_tokens_decoder" in values:
        decoder = _object(values["added_tokens_decoder"], origin, "added_tokens_decoder")
        by_id = {_id(index, origin): _token(token, origin) for index, token in decoder.items()}
    else:
        special = file.with_name(_MAP)
        if special.is_file():
            mapped = _read_object(special, _SETTINGS_REMEDY)
            values |= {name: value for name, value in mapped.items() if name.endswith("_token")}
            mapped_extra = mapped.get("extra_special_tokens")
            extra = [*extra, *mapped_extra] if isinstance(extra, list) and isinstance(mapped_extra, list) else extra or mapped_extra
            # These have the lowest precedence, after added_tokens.json.
            more = None if extra else mapped.get("additional_special_tokens")
    named = {name: _token(value, origin) for name, value in values.items() if name.endswith("_token") and isinstance(value, str | dict)}
    if isinstance(extra, dict):
        named |= {name: _token(token, origin) for name, token in extra.items()}
        extra = None
    extras = [_token(token, origin) for token in _list(extra, origin)]
    if "added_tokens_decoder" not in values:
        by_id = _legacy_tokens(file, content, {token.content for token in (*named.values(), *extras)})
    extras += [_token(token, origin) for token in _list(more, origin)]
    _check_names(named, origin)
    added = [token for _, token in sorted(by_id.items())]
    known = {token.content for token in added}
    first = [named[name] for name in _NAMES if name in named]
    declared = [token for token in (*first, *named.values(), *extras) if token.content not in known]
    special_names = {token.content for token in (*named.values(), *extras)}
    for token in (*added, *declared):
        token.special = token.special or token.content in special_names
    return added, declared


def _legacy_tokens(file: Path, content: Mapping[str, Any] | None, special: set[str]) -> dict[int, AddedToken]:
    """Return the tokens by id from added_tokens.json and tokenizer.json; the latter takes precedence."""
    found = {}
    added = file.with_name(_ADDED)
    if added.is_file():
        for token, index in _read_object(added, _SETTINGS_REMEDY).items():
            found[_id(index, added)] = AddedToken(token, normalized=token not in special, special=token in special)
    for entry in _list((content or {}).get("added_tokens"), file):
        values = _object(entry, file, "token in added_tokens")
        found[_id(values.get("id"), file)] = _token(values, file)
    return found


def _token(value: Any, file: Path) -> AddedToken:
    """Parse a token from its JSON form: a string, or an object with its content and matching flags."""
    if isinstance(value, str):
        return AddedToken(value, special=True)
    flags = {name: value[name] for name in _FLAGS if name in value} if isinstance(value, dict) else {}
    content = value.get("content") if isinstance(value, dict) else None
    if not isinstance(content, str) or not all(isinstance(flag, bool) for flag in flags.values()):
        problem = "which is neither a string nor an object with a string"
        raise InputError(f"{file} declares the token {str(value)[:80]!r}, {problem}. {_SETTINGS_REMEDY}")
    return AddedToken(content, **flags)


def _check_names(named: Mapping[str, AddedToken], file: Path) -> None:
    """Check that the five special tokens are BERT's."""
    for name, token in _NAMED.items():
        if name in named and named[name].content != token:
            raise InputError(
                f"{file} (or the {_MAP} next to it) sets {name} to {named[name].content!r}, but only {token} is supported. Rename the "
                "token in the tokenizer's files."
            )


def _id(value: Any, file: Path) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        problem = f"the id {str(value)[:80]!r}, which is not an integer"
        raise InputError(f"{file} declares a token with {problem}. {_SETTINGS_REMEDY}") from None


def _object(value: Any, file: Path, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{file} has a {name} that is not a JSON object. {_SETTINGS_REMEDY}")
    return value


def _list(value: Any, file: Path) -> list[Any]:
    if not isinstance(value, list | None):
        raise InputError(f"{file} has a list of tokens that is not a JSON list ({str(value)[:80]!r}). {_SETTINGS_REMEDY}")
    return value or []
