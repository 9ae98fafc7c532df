"""Names and layouts of Hugging Face's BERT models <-> ours: tensors and configuration, both ways.

Linear weights are [out, in] there and [in, out] here; layers are separate there and stacked here. The next-sentence
classes are swapped: Hugging Face's class 0 is "B follows A", here class 1 is.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from bert_jax.config import EncoderConfig
from bert_jax.errors import InputError

Layout = tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]
"""What turns their array into ours, and ours into theirs."""

_SAME: Layout = (lambda theirs: theirs, lambda ours: ours)
_TRANSPOSED: Layout = (lambda theirs: theirs.T, lambda ours: ours.T)
_CLASSES_SWAPPED: Layout = (lambda theirs: theirs[::-1], lambda ours: ours[::-1])
_TRANSPOSED_AND_SWAPPED: Layout = (lambda theirs: theirs[::-1].T, lambda ours: ours.T[::-1])


class Entry(NamedTuple):
    """One tensor of theirs and where it is in our tree; of a stacked array it is the slice `layer`."""

    name: str
    path: tuple[str, ...]
    layout: Layout
    layer: int | None = None


def _linear(name: str, *path: str, layer: int | None = None) -> Iterator[Entry]:
    yield Entry(f"{name}.weight", (*path, "kernel"), _TRANSPOSED, layer)
    yield Entry(f"{name}.bias", (*path, "bias"), _SAME, layer)


def _norm(name: str, *path: str, layer: int | None = None) -> Iterator[Entry]:
    yield Entry(f"{name}.weight", (*path, "scale"), _SAME, layer)
    yield Entry(f"{name}.bias", (*path, "bias"), _SAME, layer)


_LAYER = {
    "query": ("attention.self.query", _linear),
    "key": ("attention.self.key", _linear),
    "value": ("attention.self.value", _linear),
    "attention_output": ("attention.output.dense", _linear),
    "attention_norm": ("attention.output.LayerNorm", _norm),
    "feed_forward": ("intermediate.dense", _linear),
    "feed_forward_output": ("output.dense", _linear),
    "feed_forward_norm": ("output.LayerNorm", _norm),
}

PARTS: dict[str, tuple[Entry, ...]] = {
    "embeddings": (
        Entry("bert.embeddings.word_embeddings.weight", ("embeddings", "tokens"), _SAME),
        Entry("bert.embeddings.position_embeddings.weight", ("embeddings", "positions"), _SAME),
        Entry("bert.embeddings.token_type_embeddings.weight", ("embeddings", "segments"), _SAME),
        *_norm("bert.embeddings.LayerNorm", "embeddings", "norm"),
    ),
    "pooler": tuple(_linear("bert.pooler.dense", "pooler", "dense")),
    "masked_token": (
        *_linear("cls.predictions.transform.dense", "masked_token", "dense"),
        *_norm("cls.predictions.transform.LayerNorm", "masked_token", "norm"),
        Entry("cls.predictions.bias", ("masked_token", "bias"), _SAME),
    ),
    "next_sentence": (
        Entry("cls.seq_relationship.weight", ("next_sentence", "dense", "kernel"), _TRANSPOSED_AND_SWAPPED),
        Entry("cls.seq_relationship.bias", ("next_sentence", "dense", "bias"), _CLASSES_SWAPPED),
    ),
    "classifier": tuple(_linear("classifier", "classifier", "dense")),
}
"""The tensors of each top-level part of our tree; those of `encoder` depend on the number of layers."""

PRETRAINING_PARTS = ("embeddings", "encoder", "pooler", "masked_token", "next_sentence")
CLASSIFICATION_PARTS = ("embeddings", "encoder", "pooler", "classifier")


def entries(parts: Iterable[str], layers: int) -> Iterator[Entry]:
    """Every tensor of some parts."""
    for part in parts:
        if part == "encoder":
            for layer in range(layers):
                for ours, (theirs, kind) in _LAYER.items():
                    yield from kind(f"bert.encoder.layer.{layer}.{theirs}", "encoder", "layers", ours, layer=layer)
        else:
            yield from PARTS[part]


def to_parameters(tensors: Mapping[str, np.ndarray], layers: int, parts: Iterable[str] = PRETRAINING_PARTS) -> dict[str, Any]:
    """The parameter tree of some parts from the tensors of a state dict.

    Raises:
        KeyError: a tensor is missing; the key is its name.
    """
    arrays: dict[tuple[str, ...], Any] = {}
    for entry in entries(parts, layers):
        array = entry.layout[0](tensors[entry.name])
        if entry.layer is None:
            arrays[entry.path] = array
        else:
            arrays.setdefault(entry.path, []).append(array)
    tree: dict[str, Any] = {}
    for path, value in arrays.items():
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = np.stack(value) if isinstance(value, list) else np.ascontiguousarray(value)
    return tree


def to_tensors(params: Mapping[str, Any], layers: int, parts: Iterable[str] = PRETRAINING_PARTS) -> dict[str, np.ndarray]:
    """The inverse of `to_parameters`."""
    tensors = {}
    for entry in entries(parts, layers):
        node: Any = params
        for key in entry.path:
            node = node[key]
        array = np.asarray(node if entry.layer is None else node[entry.layer])
        tensors[entry.name] = np.ascontiguousarray(entry.layout[1](array))
    return tensors


def shapes(parts: Iterable[str], config: EncoderConfig, vocab_size: int, classes: int = 2) -> dict[str, tuple[int, ...]]:
    """The shape that each tensor of some parts has in a model of this configuration, by its name."""
    width, inner = config.width, config.feed_forward
    ends = {
        "word_embeddings.weight": (vocab_size, width),
        "position_embeddings.weight": (config.max_positions, width),
        "token_type_embeddings.weight": (config.segment_types, width),
        "intermediate.dense.weight": (inner, width),
        "intermediate.dense.bias": (inner,),
        "attention.output.dense.weight": (width, width),
        "output.dense.weight": (width, inner),
        "cls.predictions.bias": (vocab_size,),
        "seq_relationship.weight": (2, width),
        "seq_relationship.bias": (2,),
        "classifier.weight": (classes, width),
        "classifier.bias": (classes,),
    }

    def shape(name: str) -> tuple[int, ...]:
        found = next((value for end, value in ends.items() if name.endswith(end)), None)
        return found or ((width,) if name.endswith("bias") or "LayerNorm" in name else (width, width))

    return {entry.name: shape(entry.name) for entry in entries(parts, config.layers)}


# Their names of what the configuration holds, and ours.
_FIELDS = {
    "num_hidden_layers": "layers",
    "hidden_size": "width",
    "num_attention_heads": "heads",
    "intermediate_size": "feed_forward",
    "max_position_embeddings": "max_positions",
    "type_vocab_size": "segment_types",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
    "layer_norm_eps": "norm_epsilon",
    "initializer_range": "initializer_range",
}
_REQUIRED = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
# Larger than any BERT, and small enough that nothing made from them can fill a memory.
_LARGEST = {"num_hidden_layers": 1 << 10, "max_position_embeddings": 1 << 20, "vocab_size": 1 << 24}
_LARGEST_SIZE = 1 << 17
# What this encoder computes; another value is another architecture.
_FIXED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("gelu",),
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
    "pruned_heads": ({},),
}


def encoder_config(values: Mapping[str, Any], file: object) -> EncoderConfig:
    """The architecture that a `config.json` describes; values that it leaves out are `transformers`' defaults, which are ours.

    Raises:
        InputError: another architecture, or a size that is missing, not a number, negative or beyond any BERT.
    """
    kind = values.get("model_type", "bert")
    if kind != "bert":
        raise InputError(
            f"{file} describes a model of the architecture {kind!r} (model_type). Only BERT is read: `bert`, which BERT-wwm, "
            "RoBERTa-wwm-ext, MacBERT and the sentence-embedding models built on BERT are too."
        )
    for name, allowed in _FIXED.items():
        if name in values and values[name] not in allowed:
            raise InputError(
                f"{file} has {name}={values[name]!r}, and this encoder computes {name}={allowed[0]!r} alone: its numbers would be wrong."
            )
    arguments: dict[str, Any] = {}
    for name, ours in _FIELDS.items():
        if name in values:
            arguments[ours] = _number(values[name], name, file, whole=isinstance(getattr(EncoderConfig, ours), int))
        elif name in _REQUIRED:
            raise InputError(f"{file} has no {name}: it is not a whole configuration of a BERT model. Fetch it again.")
    try:
        return EncoderConfig(**arguments)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def _number(value: Any, name: str, file: object, whole: bool) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise InputError(f"{file} has {name}={value!r}, which is not a {'whole ' * whole}number. Fetch the file again.")
    if whole and not 0 < value <= _LARGEST.get(name, _LARGEST_SIZE):
        raise InputError(f"{file} has {name}={value}: it must be from 1 to {_LARGEST.get(name, _LARGEST_SIZE):,}. Fetch the file again.")
    return value if whole else float(value)


def vocabulary_size(values: Mapping[str, Any], file: object) -> int:
    """`vocab_size` of a `config.json`, checked."""
    if "vocab_size" not in values:
        raise InputError(f"{file} has no vocab_size: it is not a whole configuration of a BERT model. Fetch it again.")
    return int(_number(values["vocab_size"], "vocab_size", file, whole=True))


def class_names(values: Mapping[str, Any], classes: int, file: object) -> tuple[str, ...]:
    """The names of a classifier's classes, in order; `LABEL_0` and so on where the configuration has none.

    Raises:
        InputError: a regression or multi-label head, or names that do not fit the number of classes.
    """
    problem = values.get("problem_type") or "single_label_classification"
    if problem != "single_label_classification" or classes < 2:
        raise InputError(
            f"{file} describes a {problem} head with {classes} output{'s' * (classes != 1)}. Classifiers of texts into one of two or more "
            "classes are read; import the encoder alone by removing the tensors `classifier.weight` and `classifier.bias`."
        )
    names = values.get("id2label") or {str(index): f"LABEL_{index}" for index in range(classes)}
    if not isinstance(names, Mapping) or sorted(names) != sorted(map(str, range(classes))):
        raise InputError(f"{file} has an id2label that does not name the classes 0 to {classes - 1} of the classifier. Mend id2label.")
    labels = tuple(str(names[str(index)]) for index in range(classes))
    if len(set(labels)) != classes:
        raise InputError(f"{file} gives two classes the same name in id2label. Mend id2label.")
    return labels


def config_values(config: EncoderConfig, vocab_size: int, pad_id: int) -> dict[str, Any]:
    """The fields of a `config.json` for this architecture."""
    sizes = {theirs: getattr(config, ours) for theirs, ours in _FIELDS.items()}
    return {"model_type": "bert", "vocab_size": vocab_size, **sizes, "hidden_act": "gelu", "pad_token_id": pad_id, "dtype": "float32"}
