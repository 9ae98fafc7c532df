"""Attention weights beside those of `transformers`, in Python and as a command."""

import json
from pathlib import Path

import numpy as np
import pytest

import bert_jax
from bert_jax.cli import main
from bert_jax.convert.exports import export_model
from bert_jax.errors import InputError
from bert_jax.inference import Bert
from bert_jax.tasks import attention

TEXTS = ["这家酒店的服务很好", "good", "the cat sat on the mat, good"]
PAIRS = ["房间", "the mat", "很"]


@pytest.fixture(scope="module")
def bert(tiny_pretrained: Path) -> Bert:
    return bert_jax.load(tiny_pretrained)


@pytest.mark.parametrize("paired", [False, True])
def test_weights_are_those_of_transformers(tiny_pretrained: Path, tmp_path: Path, bert: Bert, paired: bool) -> None:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    export_model(tiny_pretrained, tmp_path / "exported")
    theirs = transformers.BertModel.from_pretrained(tmp_path / "exported", attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "exported")
    found = bert.attention(TEXTS, PAIRS if paired else None)
    for text, pair, own in zip(TEXTS, PAIRS, found, strict=True):
        inputs = tokenizer(text, pair if paired else None, return_tensors="pt")
        with torch.no_grad():
            wanted = theirs(**inputs, output_attentions=True).attentions
        assert own.tokens == tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
        assert own.weights.dtype == np.float32
        np.testing.assert_allclose(own.weights, np.stack([layer[0] for layer in wanted]), atol=1e-5)


def test_one_layer_is_a_part_of_all(bert: Bert) -> None:
    everything = bert.attention("the cat").weights
    for layer, place in ((1, 0), (2, 1), (-1, 1), (-2, 0)):
        np.testing.assert_array_equal(bert.attention("the cat", layer=layer).weights, everything[[place]])
    for layer in (0, 3, -3):
        with pytest.raises(InputError, match=rf"layer={layer} is invalid: give a number from 1 to 2"):
            bert.attention("the cat", layer=layer)


def test_answers_that_would_be_too_large_are_refused(bert: Bert, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_MOST_WEIGHTS", 2 * 2 * 4**2)
    assert bert.attention("the cat").weights.shape == (2, 2, 4, 4)
    with pytest.raises(InputError, match="more than 64 attention weights: ask about one layer"):
        bert.attention("the cat sat")
    assert bert.attention("the cat sat", layer=-1).weights.shape == (1, 2, 5, 5)
    with pytest.raises(InputError, match="fewer or shorter texts"):
        bert.attention(["the cat"] * 2)


def test_other_engines_compute_the_last_layer_only(tiny_pretrained: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    with pytest.raises(InputError, match='load it with engine="jax"'):
        bert_jax.load(tiny_pretrained, engine="onnxruntime").attention("the cat")


def test_the_command_prints_them(tiny_pretrained: Path, bert: Bert, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attention", str(tiny_pretrained), "the cat", "--layer=-1", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    own = bert.attention("the cat", layer=-1)
    assert json.loads(line)["tokens"] == ["[CLS]", "the", "cat", "[SEP]"]
    np.testing.assert_allclose(json.loads(line)["weights"], own.weights, atol=1e-5)
    assert main(["attention", str(tiny_pretrained), "the cat"]) == 0
    row = own.weights.mean((0, 1)) if own.weights.shape[0] == 2 else bert.attention("the cat").weights.mean((0, 1))
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "the cat" and printed[2].split() == ["the", "→", own.tokens[row[1].argmax()], f"{row[1].max():.0%}"]
