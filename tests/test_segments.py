"""Encoders with one segment type: single texts work, and pairs, whose second segment they do not have, are refused everywhere."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_model

import bert_jax
from bert_jax.cli import main
from bert_jax.config import EncoderConfig, FinetuneConfig, LabelledConfig, PretrainConfig, RowsConfig, RunConfig
from bert_jax.convert.exports import export_model
from bert_jax.data.labelled import load_labelled
from bert_jax.errors import InputError
from bert_jax.modalities.text.modality import Text
from bert_jax.model import directory as model_directory
from bert_jax.model.directory import ModelDescription
from bert_jax.stages.finetune import finetune
from bert_jax.stages.pretrain import pretrained_description
from bert_jax.tasks import checked
from bert_jax.tasks.classification.labels import ClassLabels

ONE = EncoderConfig(layers=1, width=32, heads=2, feed_forward=64, max_positions=48, segment_types=1)
PRETRAINED = ModelDescription("pretraining", ONE, 48, next_sentence="nsp")
CLASSIFIER = ModelDescription("classification", ONE, 48, labels=("bad", "good"))
NSP = PretrainConfig(steps=1, rows=RowsConfig(length=32))
WITHOUT_NSP = PretrainConfig(steps=1, rows=RowsConfig(length=32, next_sentence="none"))
PAIRS = FinetuneConfig(data=LabelledConfig(text_pair="b"), length=32)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("one") / "pretrain", PRETRAINED)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("one") / "finetune", CLASSIFIER)


def refused(call: Any, *arguments: Any) -> str:
    with pytest.raises(InputError, match="segment_types=1") as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_pairs_are_refused_and_single_texts_answered(pretrained: Path, classifier: Path) -> None:
    bert, labels = bert_jax.load(pretrained), bert_jax.load(classifier)
    assert "embed" in refused(bert.next_sentence, "很", "好")
    refused(labels.classify, "很", "好")
    refused(labels.classify, ["很", "the cat"], ["好", ""])
    assert bert.embed("很好").shape == (32,) and bert.score("很好") < 0 and len(bert.fill_mask("很[MASK]")) == 1
    assert labels.classify("很好").label in labels.labels


def test_the_commands_say_so_in_one_paragraph(pretrained: Path, classifier: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "pairs.tsv").write_text("text\ttext_pair\n很\t好\n")
    for command in (
        ["next-sentence", pretrained, "很", "好"],
        ["classify", classifier, tmp_path / "pairs.tsv", "--text-pair", "text_pair"],
    ):
        assert main([str(argument) for argument in command]) == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")


def test_a_configuration_of_pairs_is_refused_before_anything_runs() -> None:
    for wrong in ({"pretrain": NSP}, {"pretrain": WITHOUT_NSP, "finetune": PAIRS}):
        refused(lambda wrong=wrong: RunConfig(encoder=ONE, **wrong))
    sop = dataclasses.replace(NSP, rows=RowsConfig(length=32, next_sentence="sop"))
    refused(lambda: RunConfig(encoder=ONE, pretrain=sop))
    refused(lambda: RunConfig(encoder=ONE, finetune=dataclasses.replace(PAIRS, from_scratch=True)))
    single = dataclasses.replace(PAIRS, data=LabelledConfig())
    assert RunConfig(encoder=ONE, pretrain=WITHOUT_NSP, finetune=single).encoder == ONE
    # The encoder is that of the checkpoint, whatever this configuration says.
    assert RunConfig(encoder=ONE, finetune=dataclasses.replace(PAIRS, checkpoint="elsewhere")).encoder == ONE


def test_pre_training_goes_on_from_such_a_model_without_pairs_alone(pretrained: Path) -> None:
    assert str(pretrained) in refused(pretrained_description, pretrained, NSP, Text())
    assert pretrained_description(pretrained, WITHOUT_NSP, Text()).encoder == ONE


def test_pairs_are_not_fine_tuned_on(pretrained: Path, tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("text\tb\tlabel\n" + "".join(f"很{i}\t好\t{i % 2}\n" for i in range(20)), encoding="utf-8")
    data = LabelledConfig(train=str(tmp_path / "train.tsv"), text_pair="b")
    config = checked(RunConfig(finetune=FinetuneConfig(data=data, checkpoint=str(pretrained), length=32)))
    description, tokenizer = model_directory.read(pretrained)
    labelled = load_labelled(data, ClassLabels("label", ()), seed=0)
    message = refused(finetune, config, tmp_path / "run", labelled, description, tokenizer, pretrained)
    assert "finetune.data.text_pair" in message and not (tmp_path / "run").exists()


def test_an_exported_model_answers_single_texts_elsewhere(classifier: Path, tmp_path: Path) -> None:
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    export_model(classifier, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["type_vocab_size"] == 1
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")("the cat", return_tensors="pt")
    with torch.no_grad():
        wanted = torch.softmax(theirs(**tokens).logits, -1)[0].tolist()
    found = bert_jax.load(classifier).classify("the cat").probabilities
    np.testing.assert_allclose(list(found.values()), wanted, rtol=1e-4)
