"""The tokens that a verdict hangs on, beside the gradients of `transformers`."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import _ENCODER, write_model

import bert_jax
from bert_jax.cli import main
from bert_jax.convert.exports import export_model
from bert_jax.errors import InputError
from bert_jax.model.directory import ModelDescription

# Of several lengths, in packed rows with empty slots.
TEXTS = ["这家酒店的服务很好", "👍 good", "The CAT sat on the mat, good", "很"]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    description = ModelDescription("classification", _ENCODER, 32, labels=("negative", "neutral", "positive"))
    return write_model(tmp_path_factory.mktemp("influence") / "finetune", description)


def test_it_is_the_gradient_of_transformers_times_its_input(classifier: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    export_model(classifier, tmp_path / "exported")
    theirs = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "exported").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "exported")
    vectors: list[torch.Tensor] = []

    def keep(module: object, inputs: object, output: torch.Tensor) -> None:
        output.retain_grad()
        vectors.append(output)

    theirs.bert.embeddings.register_forward_hook(keep)
    for text, own in zip(TEXTS, bert_jax.load(classifier).influence(TEXTS), strict=True):
        inputs = tokenizer(text, return_tensors="pt", return_offsets_mapping=True)
        offsets = inputs.pop("offset_mapping")[0].tolist()
        theirs(**inputs).logits.max().backward()
        products = (vectors[-1] * vectors[-1].grad).sum(-1)[0].detach().numpy()
        np.testing.assert_allclose([one.influence for one in own], products[1:-1], atol=1e-5)
        assert [[one.start, one.end] for one in own] == offsets[1:-1]
        assert [one.token for one in own] == tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])[1:-1]


def test_models_of_several_labels_and_of_numbers_have_it_too(classifier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind, labels in (("multilabel", ("a", "b")), ("regression", ())):
        model = write_model(classifier.parent / kind, ModelDescription(kind, _ENCODER, 32, labels=labels))
        found = bert_jax.load(model).influence("the cat")
        assert [one.token for one in found] == ["the", "cat"] and any(one.influence for one in found)
    assert main(["influence", str(classifier), "the cat", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    own = bert_jax.load(classifier).influence("the cat")
    assert [one["influence"] for one in json.loads(line)["tokens"]] == pytest.approx([one.influence for one in own], abs=1e-5)
    assert main(["influence", str(classifier), "the cat"]) == 0
    assert capsys.readouterr().out.splitlines()[2] == f"{own[1].influence:9.3f}  cat"


def test_who_has_no_gradients_says_so(classifier: Path, tiny_pretrained: Path) -> None:
    with pytest.raises(InputError, match="influence requires a classifier"):
        bert_jax.load(tiny_pretrained).influence("the cat")
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    with pytest.raises(InputError, match='load it with engine="jax"'):
        bert_jax.load(classifier, engine="onnxruntime").influence("the cat")
