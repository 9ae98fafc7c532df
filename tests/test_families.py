"""Families: rows that name every parameter once, and a toy family that is written here and read without touching the package."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import foreign
import jax
import numpy as np
import pytest
from conftest import random_parameters, write_model
from safetensors.numpy import load_file, save_file
from test_imports import assert_same

import bert_jax
from bert_jax.config import EncoderConfig
from bert_jax.convert.exports import export_model
from bert_jax.convert.imports import import_model, read_source
from bert_jax.convert.layouts import tensor_shapes, to_parameters, to_tensors
from bert_jax.errors import InputError
from bert_jax.families import FAMILIES, family_of
from bert_jax.families.base import SAME, Entry, Family, Layout, linear, norm
from bert_jax.model.directory import ModelDescription
from bert_jax.tasks import TASKS
from bert_jax.tasks.published import BARE
from bert_jax.tasks.stored import parameter_shapes

PUBLISHED = {task.kind: task.published for task in TASKS if task.published}
DESCRIPTIONS: dict[str, ModelDescription] = {
    "pretraining": ModelDescription("pretraining", foreign.ENCODER, 48, "nsp"),
    "classification": ModelDescription("classification", foreign.ENCODER, 48, labels=foreign.LABELS),
    "multilabel": ModelDescription("multilabel", foreign.ENCODER, 48, labels=foreign.LABELS),
    "regression": ModelDescription("regression", foreign.ENCODER, 48),
    "tagging": ModelDescription("tagging", foreign.ENCODER, 48, labels=foreign.LABELS),
    "answering": ModelDescription("answering", foreign.ENCODER, 48),
    "embedding": ModelDescription("embedding", foreign.ENCODER, 48),
}

# A family of its own: other keys, other names, layers that count from 1, the biases of the classes backwards, no next sentence.
_BACKWARDS = Layout(lambda theirs: theirs[::-1], lambda ours: ours[::-1])


def toy_parts(config: EncoderConfig) -> dict[str, tuple[Entry, ...]]:
    names = {"query": "q", "key": "k", "value": "v", "attention_output": "o", "feed_forward": "up", "feed_forward_output": "down"}
    layers: list[Entry] = []
    for layer in range(config.layers):
        for ours, theirs in names.items():
            layers += linear(f"trunk.block{layer + 1}.{theirs}", "encoder", "layers", ours, layer=layer)
        for ours, theirs in {"attention_norm": "norm1", "feed_forward_norm": "norm2"}.items():
            layers += norm(f"trunk.block{layer + 1}.{theirs}", "encoder", "layers", ours, layer=layer)
    return {
        "embeddings": (
            *(Entry(f"trunk.{name}_table", ("embeddings", name), SAME) for name in ("tokens", "positions", "segments")),
            *norm("trunk.first_norm", "embeddings", "norm"),
        ),
        "encoder": tuple(layers),
        "pooler": tuple(linear("trunk.summary", "pooler", "dense")),
        "masked_token": (
            *linear("blanks.dense", "masked_token", "dense"),
            *norm("blanks.norm", "masked_token", "norm"),
            Entry("blanks.bias", ("masked_token", "bias"), SAME),
        ),
        "classifier": (
            Entry("verdict.matrix", ("classifier", "dense", "kernel"), SAME),
            Entry("verdict.bias", ("classifier", "dense", "bias"), _BACKWARDS),
        ),
    }


TOY = Family(
    name="toy",
    title="Toy",
    prefix="Toy",
    base="trunk.",
    fields={
        "depth": "layers", "breadth": "width", "eyes": "heads", "inner": "feed_forward", "longest": "max_positions",
        "kinds": "segment_types", "drop": "dropout", "drop_eyes": "attention_dropout", "epsilon": "norm_epsilon",
    },
    required=("depth", "breadth"),
    fixed={"curve": ("gelu",)},
    written={"curve": "gelu"},
    parts=toy_parts,
    tied={"masked_token": {"blanks.table": "trunk.tokens_table"}},
    renames=((r"^old_trunk\.", "trunk."), (r"^(tokens_|positions_|segments_|first_|block|summary)", r"trunk.\1")),
)  # fmt: skip

BOTH = pytest.mark.parametrize("family", [*FAMILIES, TOY], ids=lambda family: family.name)


def test_every_module_of_the_folder_is_a_family_in_the_tuple() -> None:
    folder = Path(bert_jax.__file__).parent / "families"
    assert {path.stem for path in folder.glob("*.py")} - {"__init__", "base"} == {family.name for family in FAMILIES}
    assert len({family.prefix for family in FAMILIES}) == len(FAMILIES)


@BOTH
@pytest.mark.parametrize("kind", PUBLISHED)
def test_each_part_goes_there_and_back_bit_for_bit(family: Family, kind: str) -> None:
    params = foreign.to_numpy(random_parameters(DESCRIPTIONS[kind], foreign.tokenizer().vocab_size, 0))
    shapes = parameter_shapes(DESCRIPTIONS[kind], foreign.tokenizer().vocab_size)
    assert params.keys() == shapes.keys()
    for part in params.keys() & family.parts(foreign.ENCODER).keys():
        entries = family.entries(foreign.ENCODER, [part])
        assert len({entry.name for entry in entries}) == len(entries)
        tensors = to_tensors(params, entries)
        assert_same(to_parameters(tensors, entries), {part: params[part]})
        assert tensor_shapes(shapes, entries) == {name: tensor.shape for name, tensor in tensors.items()}


@BOTH
def test_fields_are_those_of_the_configuration(family: Family) -> None:
    assert set(family.fields.values()) <= {field.name for field in dataclasses.fields(EncoderConfig)}
    assert set(family.required) <= family.fields.keys()
    assert all(value in family.fixed.get(name, (value,)) for name, value in family.written.items())


def test_the_message_for_another_model_names_the_families_there_are() -> None:
    assert family_of({"model_type": "toy"}, "config.json", (*FAMILIES, TOY)) is TOY
    assert family_of({}, "config.json", (*FAMILIES, TOY)) is FAMILIES[0], "older files have no model_type"
    for name in ("gpt2", ["bert"]):
        with pytest.raises(InputError, match=r"\(model_type\). Only BERT and Toy are supported: `bert` \(includes .*\); `toy`\."):
            family_of({"model_type": name}, "config.json", (*FAMILIES, TOY))


# The toy, from a model directory to its files and back.


@pytest.mark.parametrize(
    ("kind", "absent", "written"),
    [("pretraining", ("pooler", "next_sentence"), "ToyForMaskedLM"), ("pretraining", ("masked_token", "next_sentence"), "ToyModel"),
     ("classification", (), "ToyForSequenceClassification")],
)  # fmt: skip
def test_a_toy_family_is_written_and_read(tmp_path: Path, kind: str, absent: tuple[str, ...], written: str) -> None:
    description = dataclasses.replace(DESCRIPTIONS[kind], absent=absent, next_sentence="none")
    write_model(tmp_path / "ours", description)
    assert export_model(tmp_path / "ours", tmp_path / "toy", family=TOY) == written
    values = json.loads((tmp_path / "toy" / "config.json").read_text())
    assert values["model_type"] == "toy" and values["architectures"] == [written] and values["curve"] == "gelu"
    assert (values["depth"], values["breadth"], values["longest"]) == (2, 32, 48) and "hidden_size" not in values
    names = load_file(tmp_path / "toy" / "model.safetensors").keys()
    assert ("block1.q.weight" if written == "ToyModel" else "trunk.block1.q.weight") in names
    card = (tmp_path / "toy" / "README.md").read_text()
    assert f"A `{written}`" in card and "- toy\n" in card and "Bert" not in card

    imported = import_model(tmp_path / "toy", tmp_path / "back", families=[TOY])
    params = jax.device_get(bert_jax.load(tmp_path / "ours").params)
    assert_same(imported.params, params)
    assert imported.description.encoder == foreign.ENCODER and imported.description.labels == description.labels
    assert imported.description.absent == absent and imported.unused == ()
    for way in ("ours", "back"):
        export_model(tmp_path / way, tmp_path / f"bert from {way}")
    ways = [(tmp_path / f"bert from {way}" / "model.safetensors").read_bytes() for way in ("ours", "back")]
    assert ways[0] == ways[1], "the way through the toy changes nothing"
    with pytest.raises(InputError, match=r"architecture 'toy'.*Only BERT is supported"):
        read_source(tmp_path / "toy")


def rewrite(directory: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    file = directory / "model.safetensors"
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in change(load_file(file)).items()}, file)


def test_the_toys_rows_are_as_strict(tmp_path: Path) -> None:
    write_model(tmp_path / "ours", dataclasses.replace(DESCRIPTIONS["pretraining"], next_sentence="none"))
    export_model(tmp_path / "ours", tmp_path / "toy", family=TOY)
    whole = read_source(tmp_path / "toy", families=[TOY]).params
    table = load_file(tmp_path / "toy" / "model.safetensors")["trunk.tokens_table"]
    rewrite(tmp_path / "toy", lambda found: {name.replace("trunk.", "old_trunk."): tensor for name, tensor in found.items()})
    rewrite(tmp_path / "toy", lambda found: found | {"blanks.table": table, "more": table})
    imported = read_source(tmp_path / "toy", families=[TOY])
    assert_same(imported.params, whole)
    assert imported.unused == ("more",)
    rewrite(tmp_path / "toy", lambda found: found | {"blanks.table": table + 1})
    with pytest.raises(InputError, match=r"blanks.table .* differs from trunk.tokens_table, to which Toy ties it"):
        read_source(tmp_path / "toy", families=[TOY])
    rewrite(tmp_path / "toy", lambda found: found | {"blanks.table": table, "old_trunk.block2.up.weight": table})
    with pytest.raises(InputError, match=r"trunk.block2.up.weight has the shape .* asks for \(64, 32\)"):
        read_source(tmp_path / "toy", families=[TOY])
    rewrite(tmp_path / "toy", lambda found: {name: tensor for name, tensor in found.items() if name != "old_trunk.block2.up.weight"})
    with pytest.raises(InputError, match=r"lack trunk.block2.up.weight"):
        read_source(tmp_path / "toy", families=[TOY])
    values = json.loads((tmp_path / "toy" / "config.json").read_text())
    for change, message in (({"curve": "relu"}, "curve='relu'"), ({"depth": 0}, "depth=0"), ({"eyes": "2"}, "eyes='2'")):
        (tmp_path / "toy" / "config.json").write_text(json.dumps(values | change))
        with pytest.raises(InputError, match=message):
            read_source(tmp_path / "toy", families=[TOY])
    (tmp_path / "toy" / "config.json").write_text(json.dumps({name: value for name, value in values.items() if name != "depth"}))
    with pytest.raises(InputError, match="no depth: it is not a complete configuration of a Toy model"):
        read_source(tmp_path / "toy", families=[TOY])


def test_a_part_that_the_family_does_not_name_is_not_written(tmp_path: Path) -> None:
    write_model(tmp_path / "ours", DESCRIPTIONS["pretraining"])
    with pytest.raises(InputError, match=r"parts .*next_sentence, and no transformers class has exactly these parts"):
        export_model(tmp_path / "ours", tmp_path / "toy", family=TOY)
    with pytest.raises(InputError, match=r"choose one of ToyForMaskedLM, ToyForSequenceClassification, ToyModel\."):
        export_model(tmp_path / "ours", tmp_path / "toy", architecture="ToyForPreTraining", family=TOY)
    assert export_model(tmp_path / "ours", tmp_path / "toy", architecture="ToyModel", family=TOY) == "ToyModel"


# Which task the source's model is of.

CHOICES: list[tuple[list[str] | None, tuple[str, ...], str]] = [
    (["BertForSequenceClassification"], ("pooler", "classifier"), "classification"),
    # The files of a classifier by another name, or by none.
    (["BertModel"], ("pooler", "classifier"), "classification"),
    (None, ("pooler", "classifier"), "classification"),
    # A class without its own head, or that no task publishes: the head is another, whatever its tensors are called.
    (["BertForQuestionAnswering"], ("classifier",), "pretraining"),
    (["BertForTableQuestionAnswering"], ("classifier",), "pretraining"),
    (["SomethingElse"], ("pooler", "classifier"), "pretraining"),
    (["BertForMaskedLM"], ("masked_token", "classifier"), "pretraining"),
    (["BertForSequenceClassification"], ("pooler",), "pretraining"),
    (["BertLMHeadModel"], ("masked_token",), "pretraining"),
]


@pytest.mark.parametrize(("named", "heads", "kind"), CHOICES)
def test_the_named_class_comes_before_the_tensors(tmp_path: Path, named: list[str] | None, heads: tuple[str, ...], kind: str) -> None:
    foreign.write(tmp_path, architectures=named, heads=[head for head in heads if head != "classifier"])
    if "classifier" in heads:
        extra = {"classifier.weight": np.ones((3, 32), np.float32), "classifier.bias": np.ones(3, np.float32)}
        rewrite(tmp_path, lambda found: found | extra)
    imported = read_source(tmp_path)
    assert imported.description.kind == kind
    read = PUBLISHED[kind][0].parts
    assert set(imported.params) == {"embeddings", "encoder", *heads} & set(read)
    left_over = {"classifier.weight", "classifier.bias"} if "classifier" in heads and kind == "pretraining" else set()
    assert set(imported.unused) == left_over
    assert imported.description.labels == (("LABEL_0", "LABEL_1", "LABEL_2") if kind == "classification" else ())


def test_multiple_choice_is_refused_by_name(tmp_path: Path) -> None:
    foreign.write(tmp_path, architectures=["BertForMultipleChoice"], heads=["pooler"])
    rewrite(tmp_path, lambda found: found | {"classifier.weight": np.ones((1, 32), np.float32), "classifier.bias": np.ones(1, np.float32)})
    with pytest.raises(InputError, match=r"describes a BertForMultipleChoice, which .* no task here does"):
        read_source(tmp_path)


def test_a_classifiers_head_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    foreign.write(tmp_path, "BertForSequenceClassification")
    rewrite(tmp_path, lambda found: {name: tensor for name, tensor in found.items() if name != "classifier.weight"})
    with pytest.raises(InputError, match=r"lack classifier.weight"):
        read_source(tmp_path)
    rewrite(tmp_path, lambda found: found | {"classifier.weight": np.float32(1)})
    with pytest.raises(InputError, match=r"classifier\.weight has the shape"):
        read_source(tmp_path)


def test_the_first_class_of_a_kind_has_all_of_its_parts() -> None:
    for rows in PUBLISHED.values():
        assert all(set(row.parts) <= set(rows[0].parts) for row in rows)
        # A bare encoder may have no pooler.
        assert set(BARE.parts) <= {*rows[0].parts, "pooler"}
