"""What a directory with a trained model says of itself: `model.json`, the vocabulary's files, `checkpoints/`."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from bert_jax.config import EncoderConfig, to_dict
from bert_jax.config.overrides import differences, from_dict
from bert_jax.data.reader import Reader
from bert_jax.errors import InputError
from bert_jax.modalities import find
from bert_jax.modalities.base import Modality
from bert_jax.model.pooling import pooling_modes
from bert_jax.storage import small_files
from bert_jax.storage.files import SEAL, check_seal, committed, make_directory, seal, write_whole

FILE, RESULT = "model.json", "result.json"

MOST_SPARE_ROWS = 1023
"""That a token table has behind its vocabulary: it is padded to a multiple of 8 on a small GPU, of 1,024 across many."""


@dataclass(frozen=True)
class EmbeddingConfig:
    """How a text's vector is read off the hidden states, where the caller does not say."""

    pooling: str = "mean"
    """One of `bert_jax.model.pooling.MODES`, or several joined by +."""
    normalize: bool = False
    """Scale vectors to length 1, as many sentence-embedding models do."""
    max_length: int = 0
    """Tokens, the special ones counted, to which a text is cut before it is embedded; 0 is as many as the tokenizer's files say."""
    prompts: dict[str, str] = field(default_factory=dict)
    """Texts by name that a caller may put before each text."""
    default_prompt: str = ""
    """The name of the one that is put there unless the caller says otherwise; empty for none."""
    include_prompt: bool = True
    """Whether the tokens of a prompt, [CLS] counted, take part in the pooling."""
    dimensions: int = 0
    """How many numbers of a vector are kept, after it was scaled; 0 for all."""

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            InputError: a pooling mode or a default prompt that there is not, or a negative number.
        """
        pooling_modes(self.pooling)
        if self.default_prompt and self.default_prompt not in self.prompts:
            names = ", ".join(self.prompts) or "none"
            raise InputError(f"The default prompt {self.default_prompt!r} is not one of the prompts, which are: {names}.")
        if self.max_length < 0 or self.dimensions < 0:
            raise InputError(f"max_length={self.max_length} and dimensions={self.dimensions} must not be negative.")


@dataclass(frozen=True)
class InputDescription:
    """What enters the encoder."""

    modality: str = "text"
    """The name of a modality (`bert_jax.modalities`), which loads the vocabulary beside the model."""
    embedding: str = "tokens"
    """The module that makes vectors of it, one of `bert_jax.model.encoder.EMBEDDINGS`."""
    units: int = 0
    """U, the numbers that stand beside each id; 0 for none."""

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            InputError: a negative number.
        """
        if self.units < 0:
            raise InputError(f"units={self.units} must not be negative.")

    @classmethod
    def of(cls, modality: Modality[Any, Any], reader: Reader) -> Self:
        """That of a modality with a vocabulary."""
        return cls(modality.name, modality.embedding, reader.units.size if reader.units else 0)


@dataclass(frozen=True)
class ModelDescription:
    """Everything but the numbers that is needed to build a model again."""

    kind: str
    """What was learned: the `kind` of one of `bert_jax.tasks`."""
    encoder: EncoderConfig
    length: int
    """Row length in training; longer texts are possible up to the encoder's positions."""
    next_sentence: Literal["nsp", "sop", "none"] = "none"
    labels: tuple[str, ...] = ()
    pooling: Literal["cls", "mean"] = "cls"
    embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    absent: tuple[str, ...] = ()
    """Parts of the model (top-level names of its parameters) that its checkpoints do not hold: heads that were not imported."""
    spare_rows: int = 0
    """Rows of the token table behind those of the vocabulary: published tables are padded to a multiple. They are never an answer."""
    tokenizer_length: int = 0
    """Tokens to which tokenizers of other libraries cut a text (`model_max_length`); 0 is the encoder's positions."""
    input: InputDescription = field(default_factory=InputDescription)
    """Stored only where it is not text."""

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            InputError: a negative one, or too many spare rows.
        """
        if not 0 <= self.spare_rows <= MOST_SPARE_ROWS or self.tokenizer_length < 0:
            raise InputError(
                f"spare_rows={self.spare_rows} must be from 0 to {MOST_SPARE_ROWS:,}, and tokenizer_length={self.tokenizer_length} not "
                "negative."
            )

    def stored(self) -> dict[str, Any]:
        """As JSON values, the same as before there was more than text where it is text."""
        return {name: value for name, value in to_dict(self).items() if name != "input" or self.input != InputDescription()}


def write(directory: Path, description: ModelDescription, reader: Reader) -> None:
    """Writes the description and the vocabulary's files, before any checkpoint."""
    make_directory(directory)
    reader.save(directory)
    write_json(directory / FILE, description.stored())


def read(directory: Path, modalities: Sequence[Modality[Any, Any]] = ()) -> tuple[ModelDescription, Any]:
    """The description of a model directory, and the vocabulary, of the type that its modality gives: of text the tokenizer.

    Args:
        directory: of the model.
        modalities: others than those of this package that it may be of.

    Raises:
        InputError: there is no model in the directory, naming those below it if there are any; or its files are damaged, or not
            files at all.
    """
    if not (directory / FILE).is_file():
        below = sorted(str(path.parent) for path in directory.glob(f"*/{FILE}"))
        remedy = (
            f"Name one of the models in it: {', '.join(below)}." if below else "Name the directory of a stage, such as runs/demo/pretrain."
        )
        raise InputError(f"There is no model in {directory}: it has no {FILE}. {remedy}")
    small_files.refuse_special_files(directory / "checkpoints")
    values = read_json(directory / FILE)
    try:
        description = from_dict(ModelDescription, values)
    except TypeError as error:  # a value that has no default
        raise InputError(f"{directory / FILE} is not whole ({error}). It was damaged or edited: restore it.") from error
    except InputError as error:
        raise InputError(f"{directory / FILE}: {error} The file was damaged or edited: restore it.") from error
    return description, find(description.input.modality, modalities).load(directory)


def identity(description: ModelDescription, reader: Reader) -> dict[str, Any]:
    """What the manifest of a checkpoint says of the model that it belongs to."""
    return {"description": description.stored(), "vocabulary": reader.fingerprint}


def check_identity(saved: Mapping[str, Any], now: Mapping[str, Any], checkpoint: Path) -> None:
    """That a checkpoint belongs to this model; one that says nothing may belong to any.

    Raises:
        InputError: the vocabulary or the description has been changed or swapped.
    """
    if not saved or not now:
        return
    directory = checkpoint.parent.parent
    if saved["vocabulary"] != now["vocabulary"]:
        raise InputError(
            f"The vocabulary in {directory} is not the one that the checkpoint {checkpoint} was trained with: tokenizer.json or "
            "tokenizer_config.json was edited or swapped. Restore them, for instance from the folder vocabulary of the workdir."
        )
    # Not as texts: a later version may describe the same model with more words.
    before, after = (from_dict(ModelDescription, model["description"]) for model in (saved, now))
    changed = differences(before, after)
    if changed:
        raise InputError(
            f"{directory / FILE} does not describe the model of the checkpoint {checkpoint} (checkpoint -> file): {'; '.join(changed)}. "
            "It was edited or swapped: restore it."
        )


def finish(directory: Path, result: Mapping[str, Any]) -> None:
    """Writes the figures of a stage, with which it is finished."""
    write_json(directory / RESULT, result)
    seal(directory)


def finished(directory: Path) -> dict[str, Any] | None:
    """The figures of a stage that is finished; None of one that is not, or that was stopped before its seal was written.

    Raises:
        InputError: a file of it is no longer what was written.
    """
    if not ((directory / RESULT).exists() and (directory / SEAL).exists()):
        return None
    check_seal(directory)
    return read_json(directory / RESULT)


def fingerprint(directory: Path) -> str:
    """A name for the model as it is now: another one once it is described, trained or imported anew."""
    # Orbax writes down when each checkpoint was committed.
    saves = sorted(path for path in directory.glob("checkpoints/*/_CHECKPOINT_METADATA") if committed(path.parent))
    own = [path for name in (FILE, "config.json", "tokenizer.json", "vocab.txt") if (path := directory / name).is_file()]
    digest = hashlib.sha256()
    # Of a model from elsewhere, which may have its encoder in a folder.
    for path in sorted(directory.glob("*.safetensors")) + sorted(directory.glob("*/*.safetensors")):
        digest.update(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}\0".encode())
    for path in own + saves:
        digest.update(f"{path.relative_to(directory)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def write_json(path: Path, value: object) -> None:
    """Writes JSON so that the file is whole or not there at all."""
    write_whole(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def read_json(path: Path) -> dict[str, object]:
    """A JSON object from a file.

    Raises:
        InputError: the file is not a JSON object.
    """
    remedy = "It was damaged or edited: restore it, or start in a new workdir."
    value = small_files.read_json(path, remedy)
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no JSON object. {remedy}")
    return value
