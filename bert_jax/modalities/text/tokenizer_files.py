"""The files of a tokenizer, ours or Hugging Face's: which of them decides what, and the tokens that they declare.

Ids are those of AutoTokenizer of `transformers` 5.24. Its BertTokenizer takes the vocabulary from tokenizer.json (or
vocab.txt) and how text is normalized from tokenizer_config.json, each setting that this does not name by its default; its
PreTrainedTokenizerFast takes tokenizer.json as it is. A tokenizer.json without a tokenizer_config.json speaks for itself.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
from tokenizers import AddedToken, models, normalizers

from bert_jax.errors import InputError
from bert_jax.storage.small_files import read_json, read_text

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
UNUSED = re.compile(r"\[unused.*\]")
SETTINGS, CONFIG = "tokenizer_config.json", "config.json"
_MAP, _ADDED = "special_tokens_map.json", "added_tokens.json"
_REMEDY = "Save it again or use the vocab.txt."
_SETTINGS_REMEDY = "Correct or fetch it again."

# What `transformers` 5.24 reads as a BertTokenizer, and as what tokenizer.json says.
_BERT = (
    "BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer", "LayoutLMTokenizer", "LxmertTokenizer",
    "SqueezeBertTokenizer", "ConvBertTokenizer",
)  # fmt: skip
_AS_SAVED = ("PreTrainedTokenizer", "TokenizersBackend")
PUBLISHED_WORD_LENGTH = 100
"""Characters of a word beyond which a BertTokenizer makes it [UNK], whatever tokenizer.json says."""

_NAMED = {f"{token.strip('[]').lower()}_token": token for token in SPECIAL_TOKENS}
# The order in which tokens that are new to the vocabulary get their ids.
_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


class TokenizerSource(NamedTuple):
    """What the files of a directory say: either a tokenizer (of a tokenizer.json), or a vocabulary with its normalizer.

    Attributes:
        file: the tokenizer.json or vocab.txt that was read.
        added, declared: tokens that are found in a text before it is split, in the order in which they get their ids: those
            that come with one, then those that only have a name.
    """

    file: Path
    backend: tokenizers.Tokenizer | None
    vocabulary: dict[str, int]
    normalizer: normalizers.BertNormalizer | None
    characters: bool
    added: list[AddedToken]
    declared: list[AddedToken]


def read_tokenizer(path: Path, lowercase: bool | None) -> TokenizerSource:
    """What the tokenizer files at `path`, a file or a directory, say together.

    Args:
        lowercase: overrides what the files say.

    Raises:
        InputError: nothing there, not readable, not a BERT tokenizer, or a setting that only another class can follow.
    """
    file = _vocabulary_file(path)
    settings = read_settings(file.parent)
    bert = _is_bert(file, settings)
    content = _read_object(file, _REMEDY) if file.suffix == ".json" else None
    added, declared = _tokens(file, settings, content)
    if content is not None:
        backend = _from_json(file, content, settings if bert else None, lowercase)
        if settings is None and _describes_bert(file.with_name(CONFIG)) and isinstance(backend.model, models.WordPiece):
            backend.model.max_input_chars_per_word = PUBLISHED_WORD_LENGTH
        return TokenizerSource(file, backend, {}, None, False, added, declared)
    vocabulary, normalizer, characters = _from_vocabulary(file, settings, bert, lowercase)
    return TokenizerSource(file, None, vocabulary, normalizer, characters, added, declared)


def read_settings(directory: Path) -> dict[str, Any] | None:
    """The checked content of a directory's tokenizer_config.json; None where there is none.

    Raises:
        InputError: a setting has a value that is not possible, or one that is not supported.
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
            f"{file} has split_special_tokens=true, which takes [MASK] and other special tokens in a text apart. That is not supported: "
            "remove the setting to read them as tokens."
        )
    return settings


def tokenizer_length(directory: Path, positions: int) -> int:
    """Tokens to which the tokenizer in a directory cuts a text (`model_max_length`); 0 where that is no less than `positions`.

    Raises:
        InputError: it is not a number, leaves no room for a token, or counts from the end of a text.
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
            f"{directory / SETTINGS} has truncation_side={settings['truncation_side']!r}, and texts are cut at their right end alone. "
            "Remove the setting to read the model so."
        )
    return int(length) if length < positions else 0


def declarations(directory: Path, token: str) -> list[str]:
    """The names of the tokenizer files in a directory that declare a token."""
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
            raise InputError(f"The vocabulary {file} is no regular file. Put the file itself there, or name another.")
    what = "holds neither tokenizer.json nor vocab.txt" if path.is_dir() else "does not exist"
    raise InputError(f"The vocabulary {path} {what}. Name a vocab.txt, a tokenizer.json or a directory with one of them.")


def _is_bert(file: Path, settings: Mapping[str, Any] | None) -> bool:
    """Whether the settings decide how text is normalized, rather than tokenizer.json.

    Raises:
        InputError: the files name a tokenizer that splits text in another way.
    """
    place, name = file.with_name(SETTINGS), (settings or {}).get("tokenizer_class")
    if not name and file.with_name(CONFIG).is_file():
        place = file.with_name(CONFIG)
        config = read_json(place, _SETTINGS_REMEDY)
        name = config.get("tokenizer_class") if isinstance(config, dict) else None
    # Where nothing names a class, the model does; a tokenizer.json without one is taken as it is.
    unnamed = "BertTokenizer" if file.suffix != ".json" or _describes_bert(file.with_name(CONFIG)) else "PreTrainedTokenizer"
    kind = str(name or unnamed).removesuffix("Fast")
    if kind not in (*_BERT, *_AS_SAVED):
        raise InputError(
            f"{place} names the tokenizer {name}, which splits text in another way than BertTokenizer does: its tokens cannot be told from "
            f"{file.name} alone. Supported are BertTokenizer and its relatives, and PreTrainedTokenizerFast."
        )
    return kind in _BERT and settings is not None


def _describes_bert(file: Path) -> bool:
    """Whether a config.json makes AutoTokenizer take a BertTokenizer where nothing names a class."""
    config = read_json(file, _SETTINGS_REMEDY) if file.is_file() else None
    return isinstance(config, dict) and config.get("model_type") == "bert" and not config.get("tokenizer_class")


def _read_object(file: Path, remedy: str) -> dict[str, Any]:
    content = read_json(file, remedy)
    if not isinstance(content, dict):
        raise InputError(f"{file} does not hold a JSON object. {remedy}")
    return content


def _from_json(file: Path, content: dict[str, Any], settings: Mapping[str, Any] | None, lowercase: bool | None) -> tokenizers.Tokenizer:
    """The tokenizer of a tokenizer.json, its text normalized as the settings say, where there are any."""
    model, *steps = (content.get(part) or {} for part in ("model", "normalizer", "pre_tokenizer"))
    try:
        wordpiece = model["type"] == "WordPiece" and model["continuing_subword_prefix"] == "##"
        characters = model["type"] == "BPE" and not model["merges"]
        if settings is not None and wordpiece:
            # As BertTokenizer does, which takes no more from the file than the vocabulary.
            content = content | {"normalizer": _normalizer_values(settings), "pre_tokenizer": {"type": "BertPreTokenizer"}}
            content |= {"added_tokens": [], "model": model | {"max_input_chars_per_word": PUBLISHED_WORD_LENGTH}}
            steps = [content["normalizer"], content["pre_tokenizer"]]
        readable = (wordpiece or characters) and [step.get("type") for step in steps] == ["BertNormalizer", "BertPreTokenizer"]
        backend = tokenizers.Tokenizer.from_str(json.dumps(content)) if readable else None
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"{file} is no tokenizer of Hugging Face `tokenizers` ({error!r}). Save it again or use the vocab.txt.") from None
    if backend is None:
        raise InputError(
            f"{file} is not a BERT tokenizer: it holds a {model['type']} model, and only WordPiece with BERT's normalizer and "
            "pre-tokenizer is read. Give the vocab.txt of a BERT model, or train a vocabulary."
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
) -> tuple[dict[str, int], normalizers.BertNormalizer, bool]:
    """The tokens of a vocab.txt, how text is normalized, and whether tokens are characters."""
    lines = _lines(file)
    vocabulary = {token: i for i, token in enumerate(lines) if token}
    ordinary = [token for token in vocabulary if not (token in SPECIAL_TOKENS or UNUSED.fullmatch(token))]
    values = _normalizer_values(settings or {})
    if lowercase is None:
        lowercase = (settings or {}).get("do_lower_case")
    if lowercase is None and not bert:
        # Google's checkpoints come without settings, and a cased vocabulary shows what it is.
        lowercase = sum(token != token.lower() for token in ordinary) < 0.01 * len(ordinary)
    normalizer = normalizers.BertNormalizer(
        lowercase=lowercase is not False, strip_accents=values["strip_accents"], handle_chinese_chars=values["handle_chinese_chars"]
    )
    return vocabulary, normalizer, not bert and all(len(token) == 1 for token in ordinary)


def _lines(file: Path) -> list[str]:
    # Not splitlines(): published vocabularies hold U+2028 and U+0085 as tokens.
    lines = [line.removesuffix("\r") for line in read_text(file, "Name a vocab.txt of BERT: a token a line, in UTF-8.").split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _tokens(
    file: Path, settings: Mapping[str, Any] | None, content: Mapping[str, Any] | None
) -> tuple[list[AddedToken], list[AddedToken]]:
    """The tokens that any of the files declares, as `transformers` adds them: those with an id, and those with a name alone.

    An `added_tokens_decoder` in tokenizer_config.json speaks for all the other files.
    """
    values = dict(settings or {})
    place = file.with_name(SETTINGS)
    extra = values.get("extra_special_tokens") or values.get("additional_special_tokens")
    more: Any = None
    by_id: dict[int, AddedToken] = {}
    if "added_tokens_decoder" in values:
        decoder = _object(values["added_tokens_decoder"], place, "added_tokens_decoder")
        by_id = {_id(index, place): _token(token, place) for index, token in decoder.items()}
    else:
        special = file.with_name(_MAP)
        if special.is_file():
            mapped = _read_object(special, _SETTINGS_REMEDY)
            values |= {name: value for name, value in mapped.items() if name.endswith("_token")}
            theirs = mapped.get("extra_special_tokens")
            extra = [*extra, *theirs] if isinstance(extra, list) and isinstance(theirs, list) else extra or theirs
            # These count last: what added_tokens.json says of them goes before.
            more = None if extra else mapped.get("additional_special_tokens")
    named = {name: _token(value, place) for name, value in values.items() if name.endswith("_token") and isinstance(value, str | dict)}
    if isinstance(extra, dict):
        named |= {name: _token(token, place) for name, token in extra.items()}
        extra = None
    extras = [_token(token, place) for token in _list(extra, place)]
    if "added_tokens_decoder" not in values:
        by_id = _legacy_tokens(file, content, {token.content for token in (*named.values(), *extras)})
    extras += [_token(token, place) for token in _list(more, place)]
    _check_names(named, place)
    added = [token for _, token in sorted(by_id.items())]
    known = {token.content for token in added}
    first = [named[name] for name in _NAMES if name in named]
    declared = [token for token in (*first, *named.values(), *extras) if token.content not in known]
    special_names = {token.content for token in (*named.values(), *extras)}
    for token in (*added, *declared):
        token.special = token.special or token.content in special_names
    return added, declared


def _legacy_tokens(file: Path, content: Mapping[str, Any] | None, special: set[str]) -> dict[int, AddedToken]:
    """The tokens by their ids of an added_tokens.json, and of the tokenizer.json, which comes last."""
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
    """A token as the files write it: its text, or its text and how it is found."""
    if isinstance(value, str):
        return AddedToken(value, special=True)
    flags = {name: value[name] for name in _FLAGS if name in value} if isinstance(value, dict) else {}
    content = value.get("content") if isinstance(value, dict) else None
    if not isinstance(content, str) or not all(isinstance(flag, bool) for flag in flags.values()):
        what = "which is neither a text nor an object with one"
        raise InputError(f"{file} declares the token {str(value)[:80]!r}, {what}. {_SETTINGS_REMEDY}")
    return AddedToken(content, **flags)


def _check_names(named: Mapping[str, AddedToken], file: Path) -> None:
    """That the five special tokens are BERT's."""
    for name, token in _NAMED.items():
        if name in named and named[name].content != token:
            raise InputError(
                f"{file} (or the {_MAP} beside it) names {named[name].content!r} as the {name}, and only {token} is read as such. Rename "
                "the token in the tokenizer's files."
            )


def _id(value: Any, file: Path) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        what = f"the id {str(value)[:80]!r}, which is not a whole number"
        raise InputError(f"{file} declares a token with {what}. {_SETTINGS_REMEDY}") from None


def _object(value: Any, file: Path, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{file} has a {name} that is not a JSON object. {_SETTINGS_REMEDY}")
    return value


def _list(value: Any, file: Path) -> list[Any]:
    if not isinstance(value, list | None):
        raise InputError(f"{file} has a list of tokens that is not a JSON list ({str(value)[:80]!r}). {_SETTINGS_REMEDY}")
    return value or []
