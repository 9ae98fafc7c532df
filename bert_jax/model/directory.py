"""The directory of a trained model: `model.json`, the vocabulary files and `checkpoints/`."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from bert_jax.config import EncoderConfig, to_dict
from bert_jax.config.overrides import differences, from_dict
from bert_jax.data.reader import Grid, Reader
from bert_jax.errors import InputError
from bert_jax.modalities import find
from bert_jax.modalities.base import Expected, Modality
from bert_jax.model.pooling import pooling_modes
from bert_jax.storage import small_files
from bert_jax.storage.files import SEAL, check_seal, committed, make_directory, seal, write_whole

FILE, RESULT = "model.json", "result.json"

_MOST_COLUMNS = 1 << 10
MOST_SPARE_ROWS = 1023
"""Limit on padding rows in a token table: published tables are padded to a multiple of 8 on one small GPU, up to 1,024 across many."""


@dataclass(frozen=True)
class EmbeddingConfig:
    """Defaults for computing a text's embedding from the hidden states."""

    pooling: str = "mean"
    """One of `bert_jax.model.pooling.MODES`, or several joined with +."""
    normalize: bool = False
    """Normalize vectors to length 1, as many sentence-embedding models do."""
    max_length: int = 0
    """Truncate each text to this many tokens, including special tokens; 0 uses the limit in the tokenizer files."""
    prompts: dict[str, str] = field(default_factory=dict)
    """Named prompts that a caller can prepend to each text."""
    default_prompt: str = ""
    """Name of the prompt that is prepended by default; empty for none."""
    include_prompt: bool = True
    """Whether pooling includes the tokens of the prompt, with [CLS]."""
    dimensions: int = 0
    """Truncate each vector to this many dimensions after normalization; 0 keeps all."""

    def __post_init__(self) -> None:
        """Validate the values.

        Raises:
            InputError: the pooling mode or the default prompt does not exist, or a number is negative.
        """
        pooling_modes(self.pooling)
        if self.default_prompt and self.default_prompt not in self.prompts:
            names = ", ".join(self.prompts) or "none"
            raise InputError(f"The default prompt {self.default_prompt!r} is not one of the prompts: {names}.")
        if self.max_length < 0 or self.dimensions < 0:
            raise InputError(f"max_length={self.max_length} and dimensions={self.dimensions} must not be negative.")


@dataclass(frozen=True)
class InputDescription:
    """The input of the encoder."""

    modality: str = "text"
    """Name of a modality (`bert_jax.modalities`), which loads the vocabulary stored with the model."""
    embedding: str = "tokens"
    """Module that embeds the input, one of `bert_jax.model.embeddings.EMBEDDINGS`."""
    units: int = 0
    """U, the number of values per position in addition to the id; 0 for none."""
    columns: int = 0
    """Units per row and column of a two-dimensional input; 0 if the input is a sequence."""
    block: int = 0
    """The units of a two-dimensional input are in blocks of `block` x `block` consecutive units."""

    def __post_init__(self) -> None:
        """Validate the values.

        Raises:
            InputError: a number is negative, or the blocks do not divide the grid.
        """
        if min(self.units, self.columns, self.block) < 0:
            raise InputError(f"units={self.units}, columns={self.columns} and block={self.block} must not be negative.")
        if self.columns and (not self.block or self.columns % self.block or self.columns > _MOST_COLUMNS):
            raise InputError(f"block={self.block} must divide columns={self.columns}, which must be at most {_MOST_COLUMNS:,}.")

    @classmethod
    def of(cls, modality: Modality[Any, Any], reader: Reader | Expected) -> Self:
        """Describe the input of a modality with a vocabulary, or one that will be learned."""
        grid = reader.grid or Grid(0, 0)
        return cls(modality.name, modality.embedding, reader.units.size if reader.units else 0, grid.columns, grid.block)

    @property
    def grid(self) -> Grid | None:
        """The two-dimensional arrangement of the units, or None for a sequence."""
        return Grid(self.columns, self.block) if self.columns else None


@dataclass(frozen=True)
class ModelDescription:
    """Everything needed to rebuild a model, except the parameters."""

    kind: str
    """The task that the model was trained on: the `kind` of one of `bert_jax.tasks`."""
    encoder: EncoderConfig
    length: int
    """Row length used in training; texts can be longer, up to the encoder's maximum position."""
    next_sentence: Literal["nsp", "sop", "none"] = "none"
    labels: tuple[str, ...] = ()
    pooling: Literal["cls", "mean"] = "cls"
    embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    absent: tuple[str, ...] = ()
    """Parts of the model (top-level parameter names) missing from its checkpoints: heads that were not imported."""
    spare_rows: int = 0
    """Padding rows at the end of the token table, as in published models. They are never predicted."""
    tokenizer_length: int = 0
    """Truncation length for the tokenizers of other libraries (`model_max_length`); 0 is the encoder's maximum number of positions."""
    input: InputDescription = field(default_factory=InputDescription)
    """Stored only if it differs from the default, text."""

    def __post_init__(self) -> None:
        """Validate the numbers, and that the encoder's initializers suit the input.

        Raises:
            InputError: a number is negative, there are too many spare rows, or an initializer does not suit a two-dimensional input.
        """
        if self.input.columns and self.encoder.attention_initializer == "neighbours":
            raise InputError(
                f"encoder.attention_initializer=neighbours is for sequences, but {self.input.modality}s have two dimensions. Set it to "
                "normal."
            )
        if self.input.columns and self.encoder.position_initializer == "sinusoidal" and self.encoder.width % 4:
            raise InputError(
                f"encoder.width={self.encoder.width} must be a multiple of 4: sinusoidal positions of {self.input.modality}s are pairs of "
                "sine and cosine, for the row and for the column."
            )
        if not 0 <= self.spare_rows <= MOST_SPARE_ROWS or self.tokenizer_length < 0:
            raise InputError(
                f"spare_rows={self.spare_rows} must be between 0 and {MOST_SPARE_ROWS:,}, and "
                f"tokenizer_length={self.tokenizer_length} must not be negative."
            )

    def stored(self) -> dict[str, Any]:
        """Return the description as JSON values. Text models omit `input`, as versions that supported only text did."""
        return {name: value for name, value in to_dict(self).items() if name != "input" or self.input != InputDescription()}


def write(directory: Path, description: ModelDescription, reader: Reader) -> None:
    """Write the description and the vocabulary files, before any checkpoint."""
    make_directory(directory)
    reader.save(directory)
    write_json(directory / FILE, description.stored())


def read(directory: Path, modalities: Sequence[Modality[Any, Any]] = ()) -> tuple[ModelDescription, Any]:
    """Read the description and the vocabulary of a model directory; the modality decides the type of the vocabulary (text: a tokenizer).

    Args:
        directory: the model directory.
        modalities: modalities to recognize in addition to those of this package.

    Raises:
        InputError: there is no model in the directory (the message lists models below it, if any), or its files are damaged or are
            not regular files.
    """
    if not (directory / FILE).is_file():
        below = sorted(str(path.parent) for path in directory.glob(f"*/{FILE}"))
        remedy = (
            f"Name one of these models: {', '.join(below)}." if below else "Name the directory of a stage, such as runs/demo/pretrain."
        )
        raise InputError(f"There is no model in {directory}: it has no {FILE}. {remedy}")
    small_files.refuse_special_files(directory / "checkpoints")
    values = read_json(directory / FILE)
    try:
        description = from_dict(ModelDescription, values)
    except TypeError as error:  # a required value is missing
        raise InputError(f"{directory / FILE} is incomplete ({error}). It was damaged or edited: restore it.") from error
    except InputError as error:
        raise InputError(f"{directory / FILE}: {error} The file was damaged or edited: restore it.") from error
    return description, find(description.input.modality, modalities).load(directory)


def check_tokens(description: ModelDescription, directory: Path) -> None:
    """Check that a model's input is token ids alone, as other libraries expect.

    Raises:
        InputError: tokens are accompanied by units.
    """
    if description.input.units:
        raise InputError(
            f"The model in {directory} reads {description.input.modality} units, which other libraries have no equivalent for, so it "
            "cannot be exported. Use it with bert_jax.load or the commands."
        )


def check_modality(directory: Path, description: ModelDescription, modality: Modality[Any, Any]) -> None:
    """Raise InputError if the model that training starts from does not read the corpus's modality."""
    if description.input.modality != modality.name:
        raise InputError(
            f"The model in {directory} was trained on the modality {description.input.modality!r}, but the corpus of this configuration "
            f"has the modality {modality.name!r}. Name another checkpoint, or set --config.corpus={description.input.modality}."
        )


def identity(description: ModelDescription, reader: Reader) -> dict[str, Any]:
    """Return what the manifest of a checkpoint records about its model."""
    return {"description": description.stored(), "vocabulary": reader.fingerprint}


def check_identity(saved: Mapping[str, Any], now: Mapping[str, Any], checkpoint: Path) -> None:
    """Check that a checkpoint belongs to this model. A checkpoint that records no identity is accepted.

    Raises:
        InputError: the vocabulary or the description was edited or replaced.
    """
    if not saved or not now:
        return
    directory = checkpoint.parent.parent
    if saved["vocabulary"] != now["vocabulary"]:
        raise InputError(
            f"The vocabulary in {directory} is not the one that the checkpoint {checkpoint} was trained with: its files "
            "(tokenizer.json and tokenizer_config.json, or codebook.safetensors) were edited or replaced. Restore them, for example from "
            "the folder `vocabulary` of the workdir."
        )
    # Compare parsed values, since a later version may add fields to the description of the same model.
    before, after = (from_dict(ModelDescription, model["description"]) for model in (saved, now))
    changed = differences(before, after)
    if changed:
        raise InputError(
            f"{directory / FILE} does not describe the model of the checkpoint {checkpoint} (checkpoint -> file): {'; '.join(changed)}. "
            "It was edited or replaced: restore it."
        )


def finish(directory: Path, result: Mapping[str, Any]) -> None:
    """Write the results of a stage and mark it as finished."""
    write_json(directory / RESULT, result)
    seal(directory)


def finished(directory: Path) -> dict[str, Any] | None:
    """Return the results of a finished stage; None if it is unfinished or was stopped before its checksum file was written.

    Raises:
        InputError: a file of the stage has changed since it was written.
    """
    if not ((directory / RESULT).exists() and (directory / SEAL).exists()):
        return None
    check_seal(directory)
    return read_json(directory / RESULT)


def fingerprint(directory: Path) -> str:
    """Return an identifier of the model's current state, which changes when its description, parameters or imported files change."""
    # Orbax records when each checkpoint was committed.
    saves = sorted(path for path in directory.glob("checkpoints/*/_CHECKPOINT_METADATA") if committed(path.parent))
    own = [path for name in (FILE, "config.json", "tokenizer.json", "vocab.txt") if (path := directory / name).is_file()]
    digest = hashlib.sha256()
    # Weights of a model in another library's format, whose encoder may be in a subdirectory.
    for path in sorted(directory.glob("*.safetensors")) + sorted(directory.glob("*/*.safetensors")):
        digest.update(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}\0".encode())
    for path in own + saves:
        digest.update(f"{path.relative_to(directory)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    try:
        text.encode()
    except UnicodeEncodeError:  # the name of a file that is not UTF-8
        text = json.dumps(value, indent=2)
    write_whole(path, text + "\n")


def read_json(path: Path) -> dict[str, object]:
    """Read a JSON object from a file.

    Raises:
        InputError: the file does not contain a JSON object.
    """
    remedy = "It was damaged or edited: restore it, or start in a new workdir."
    value = small_files.read_json(path, remedy)
    if not isinstance(value, dict):
        raise InputError(f"{path} does not contain a JSON object. {remedy}")
    return value
