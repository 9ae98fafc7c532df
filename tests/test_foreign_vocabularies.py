"""Token tables and tokenizers that do not match row by row, and tensors under the other of two names, beside transformers."""

import json
from pathlib import Path
from typing import Any

import foreign
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from small_run import write_files

import bert_jax
import train
from bert_jax.cli import main
from bert_jax.convert.exports import export_model
from bert_jax.convert.imports import import_model, read_source
from bert_jax.errors import InputError

TABLE, BIAS = "bert.embeddings.word_embeddings.weight", "cls.predictions.bias"
DECODER, DECODER_BIAS = "cls.predictions.decoder.weight", "cls.predictions.decoder.bias"
TEXT = "这家酒店的服务很[MASK]"


def change(directory: Path, name: str, **values: Any) -> None:
    file = directory / f"{name}.json"
    file.write_text(json.dumps((json.loads(file.read_text()) if file.exists() else {}) | values))


def with_rows(directory: Path, more: int) -> dict[str, np.ndarray]:
    """Adds rows of large numbers to the token table of a directory, whose tensors it returns; a negative number takes some away."""
    tensors = load_file(directory / "model.safetensors")
    rows = len(tensors[TABLE]) + more
    rng = np.random.default_rng(3)
    for name in (TABLE, BIAS):
        if name in tensors:
            new = rng.normal(0, 1, (max(0, more), *tensors[name].shape[1:])).astype(np.float32)
            tensors[name] = np.ascontiguousarray(np.concatenate([tensors[name], new + (9 if name == BIAS else 0)])[:rows])
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    change(directory, "config", vocab_size=rows)
    return tensors


def their_probabilities(directory: Path, text: str) -> np.ndarray:
    """Of every row of the token table at the one [MASK]."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model, found = transformers.BertForMaskedLM.from_pretrained(directory, output_loading_info=True)
    assert not found["missing_keys"]
    tokens = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        scores = model.eval()(**tokens).logits[tokens.input_ids == tokenizer.mask_token_id]
    return np.asarray(torch.softmax(scores, -1)[0].numpy())


def test_spare_rows_come_back_and_are_no_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign.write(tmp_path / "hf", "BertForMaskedLM")
    tensors = with_rows(tmp_path / "hf", 3)
    assert main(["import", str(tmp_path / "hf"), str(tmp_path / "ours")]) == 0
    assert "tokens and 3 spare rows" in capsys.readouterr().out
    wanted = their_probabilities(tmp_path / "hf", TEXT)
    tokens = len(wanted) - 3
    assert wanted[:tokens].sum() < 0.5  # or nothing would show that the spare rows count
    for path in (tmp_path / "hf", tmp_path / "ours"):
        bert = bert_jax.load(path)
        found = bert.fill_mask(TEXT, top_k=tokens)[0]
        assert sorted(prediction.id for prediction in found) == list(range(tokens))
        np.testing.assert_allclose([p.probability for p in found], wanted[[p.id for p in found]], rtol=1e-4, atol=1e-9)
        with pytest.raises(InputError, match="top_k"):
            bert.fill_mask(TEXT, top_k=tokens + 1)
        assert bert.score("很好") < 0
    assert export_model(tmp_path / "ours", tmp_path / "back") == "BertForMaskedLM"
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert all(back[name].tobytes() == tensor.tobytes() for name, tensor in tensors.items())
    assert json.loads((tmp_path / "back" / "config.json").read_text())["vocab_size"] == tokens + 3


def test_heads_that_are_missing_start_with_spare_rows_too(tmp_path: Path) -> None:
    foreign.write(tmp_path / "hf", "BertModel")
    with_rows(tmp_path / "hf", 2)
    imported = read_source(tmp_path / "hf", initialize_missing=True)
    rows = imported.tokenizer.vocab_size + 2
    assert imported.params["masked_token"]["bias"].shape == (rows,) and imported.params["embeddings"]["tokens"].shape[0] == rows


@pytest.mark.slow
def test_a_classifier_is_trained_from_a_table_with_spare_rows(tmp_path: Path) -> None:
    foreign.write(tmp_path / "hf")
    with_rows(tmp_path / "hf", 5)
    import_model(tmp_path / "hf", tmp_path / "ours")
    config = write_files(tmp_path, documents=30, labelled=24, pretrain="", finetune="")
    arguments = [f"--config={config}", f"--workdir={tmp_path / 'run'}", "--config.pretrain=none"]
    assert train.main([*arguments, f"--config.finetune.checkpoint={tmp_path / 'ours'}"]) == 0
    trained = bert_jax.load(tmp_path / "run" / "finetune")
    assert trained.params["embeddings"]["tokens"].shape[0] == trained.tokenizer.vocab_size + 5
    assert trained.classify("很好").label in ("positive", "negative")


@pytest.mark.parametrize(
    ("files", "where"),
    [
        ({"tokenizer_config": {"additional_special_tokens": ["[E1]"]}}, "tokenizer_config.json"),
        (
            {"tokenizer_config": {"eos_token": "[E1]"}, "special_tokens_map": {"eos_token": "[E1]"}},
            "tokenizer_config.json and special_tokens_map.json",
        ),
        ({"special_tokens_map": {"additional_special_tokens": ["[E1]"]}}, "special_tokens_map.json"),
        ({"added_tokens": {"[E1]": 100}}, "added_tokens.json"),
    ],
)
def test_tokens_without_a_row_are_named_with_their_files(tmp_path: Path, files: dict[str, Any], where: str) -> None:
    foreign.write(tmp_path)
    for name, values in files.items():
        change(tmp_path, name, **values)
    with pytest.raises(InputError, match=rf"no row in the token table: '\[E1\]' in {where}\. Download") as error:
        read_source(tmp_path)
    assert "\n" not in str(error.value)
    with_rows(tmp_path, 1)
    bert = bert_jax.load(tmp_path)
    cat, new = (bert.tokenizer.id(token) for token in ("cat", "[E1]"))
    assert bert.tokenizer.encode("cat[E1]cat").ids.tolist() == [cat, new, cat]
    assert bert._model.description.spare_rows == 0


def test_a_table_that_was_cut_short_names_tokens_of_the_vocabulary(tmp_path: Path) -> None:
    foreign.write(tmp_path)
    with_rows(tmp_path, -5)
    last = foreign.tokenizer().vocab_size - 5
    token = foreign.tokenizer().tokens([last])[0]
    with pytest.raises(InputError, match=rf"'{token}' in tokenizer.json and vocab.txt; .* and 2 more\. Download the weights"):
        read_source(tmp_path)


@pytest.mark.parametrize("kept", [(TABLE, DECODER_BIAS), (DECODER, BIAS), (DECODER, DECODER_BIAS), (TABLE, BIAS, DECODER, DECODER_BIAS)])
def test_tied_tensors_under_either_name(tmp_path: Path, kept: tuple[str, ...]) -> None:
    params = foreign.write(tmp_path / "hf", "BertForMaskedLM")
    tensors = load_file(tmp_path / "hf" / "model.safetensors")
    both = {DECODER: tensors[TABLE], DECODER_BIAS: tensors[BIAS]} | tensors
    save_file({name: both[name] for name in both if name in kept or name not in (TABLE, BIAS, DECODER, DECODER_BIAS)},
              tmp_path / "hf" / "model.safetensors", metadata={"format": "pt"})  # fmt: skip
    imported = read_source(tmp_path / "hf")
    np.testing.assert_array_equal(imported.params["embeddings"]["tokens"], params["embeddings"]["tokens"])
    np.testing.assert_array_equal(imported.params["masked_token"]["bias"], params["masked_token"]["bias"])
    assert imported.unused == () and imported.description.absent == ("pooler", "next_sentence")
    wanted = their_probabilities(tmp_path / "hf", TEXT)
    found = bert_jax.load(tmp_path / "hf").fill_mask(TEXT, top_k=len(wanted))[0]
    np.testing.assert_allclose([p.probability for p in found], wanted[[p.id for p in found]], rtol=1e-4, atol=1e-9)


LIMITS: list[tuple[dict[str, Any], int]] = [
    ({"model_max_length": 20}, 20),
    ({"max_len": 21}, 21),
    ({}, 48),
    ({"model_max_length": 1e30}, 48),
    ({"model_max_length": 512}, 48),
]


@pytest.mark.parametrize(("values", "wanted"), LIMITS)
def test_the_tokenizers_limit_is_kept(tmp_path: Path, values: dict[str, Any], wanted: int) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    foreign.write(tmp_path / "hf")
    change(tmp_path / "hf", "tokenizer_config", **values)
    import_model(tmp_path / "hf", tmp_path / "ours")
    export_model(tmp_path / "ours", tmp_path / "back")
    assert not (tmp_path / "back" / "modules.json").exists()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    assert tokenizer.model_max_length == wanted
    assert len(tokenizer("很" * 99, truncation=True)["input_ids"]) == wanted
    assert bert_jax.load(tmp_path / "ours").embedding_length == bert_jax.load(tmp_path / "back").embedding_length == wanted


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_max_length": "8"}, "model_max_length='8'"),
        ({"model_max_length": 2}, "at least 3"),
        ({"model_max_length": 8, "truncation_side": "left"}, "truncated on the right"),
    ],
)
def test_a_limit_that_is_none_is_refused(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    foreign.write(tmp_path)
    change(tmp_path, "tokenizer_config", **values)
    with pytest.raises(InputError, match=message):
        read_source(tmp_path)


def test_a_vocabulary_that_was_grown_with_transformers(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    foreign.write(tmp_path / "hf", "BertForMaskedLM")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    model = transformers.BertForMaskedLM.from_pretrained(tmp_path / "hf")
    tokenizer.add_tokens(["Hotel", "服务员"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["[E1]", "[E2]"]})
    torch.manual_seed(0)
    model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=64, mean_resizing=False)
    for saved in (model, tokenizer):
        saved.save_pretrained(tmp_path / "grown")
    bert = bert_jax.load(tmp_path / "grown")
    assert bert._model.description.spare_rows == len(model.get_input_embeddings().weight) - len(tokenizer) > 0
    text = "[E1]Hotel[E2]的hotel服务员很[MASK]"
    encoding = bert.tokenizer.encode(text)
    assert encoding.ids.tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert [text[first:last] for first, last in encoding.offsets[:5]] == ["[E1]", "Hotel", "[E2]", "的", "hotel"]
    wanted = their_probabilities(tmp_path / "grown", text)
    found = bert.fill_mask(text, top_k=len(tokenizer))[0]
    np.testing.assert_allclose([p.probability for p in found], wanted[[p.id for p in found]], rtol=1e-4, atol=1e-9)
