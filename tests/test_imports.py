"""Models from elsewhere: every form that they are found in, and what is refused."""

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import foreign
import jax
import ml_dtypes
import numpy as np
import pytest
import tiny
from safetensors.numpy import load, load_file, save_file

import bert_jax
from bert_jax.cli import main
from bert_jax.convert import google
from bert_jax.convert.imports import import_model, read_source
from bert_jax.convert.layouts import to_parameters, to_tensors
from bert_jax.errors import InputError
from bert_jax.families.bert import BERT
from bert_jax.model.directory import EmbeddingConfig
from bert_jax.tasks.pretraining import PRETRAINING


def assert_same(found: Any, wanted: Any) -> None:
    """Bit by bit."""
    found, wanted = tiny.flat(found), tiny.flat(wanted)
    assert found.keys() == wanted.keys()
    for path, array in wanted.items():
        assert found[path].dtype == np.float32 and found[path].tobytes() == array.tobytes(), path


def test_layouts_are_turned_and_turned_back() -> None:
    params = foreign.parameters(("pooler", "masked_token", "next_sentence"))
    entries = BERT.entries(foreign.ENCODER, params)
    tensors = to_tensors(params, entries)
    assert_same(to_parameters(tensors, entries), params)
    query, follows = params["encoder"]["layers"]["query"]["kernel"], params["next_sentence"]["dense"]
    np.testing.assert_array_equal(tensors["bert.encoder.layer.1.attention.self.query.weight"], query[1].T)
    np.testing.assert_array_equal(tensors["cls.seq_relationship.weight"], follows["kernel"].T[[1, 0]])
    np.testing.assert_array_equal(tensors["cls.seq_relationship.bias"], follows["bias"][[1, 0]])


@pytest.mark.parametrize("architecture", foreign.HEADS)
@pytest.mark.parametrize("prefix", ["bert.", ""])
def test_every_head_is_read_with_and_without_prefix(tmp_path: Path, architecture: str, prefix: str) -> None:
    params = foreign.write(tmp_path, architecture, rename=lambda name: name.replace("bert.", prefix))
    imported = read_source(tmp_path)
    assert_same(imported.params, params)
    assert imported.unused == imported.initialized == ()
    classifier = architecture == "BertForSequenceClassification"
    assert imported.description.kind == ("classification" if classifier else "pretraining")
    assert imported.description.labels == (foreign.LABELS if classifier else ())
    assert imported.description.absent == (() if classifier else tuple(p for p in PRETRAINING.published[0].parts if p not in params))
    assert imported.description.next_sentence == ("nsp" if "next_sentence" in params else "none")
    assert imported.description.encoder == foreign.ENCODER


def test_an_encoder_without_pooler_and_old_names(tmp_path: Path) -> None:
    def old(name: str) -> str:
        return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")

    params = foreign.write(tmp_path, "BertModel", heads=(), rename=old)
    assert any(name.endswith("gamma") for name in load_file(tmp_path / "model.safetensors"))
    imported = read_source(tmp_path)
    assert_same(imported.params, params)
    assert imported.description.absent == ("pooler", "masked_token", "next_sentence")


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_widened_without_a_change(tmp_path: Path, dtype: Any) -> None:
    params = foreign.write(tmp_path, dtype=dtype)
    assert_same(read_source(tmp_path).params, jax.tree.map(lambda leaf: leaf.astype(dtype).astype(np.float32), params))


def test_shards_are_joined_by_their_index(tmp_path: Path) -> None:
    params = foreign.write(tmp_path, shards=3)
    assert_same(read_source(tmp_path).params, params)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(InputError, match=r"names the file model-00002-of-00003.safetensors, which is missing"):
        read_source(tmp_path)
    for name in ("../other.safetensors", "/etc/passwd", "weights.bin"):
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(InputError, match="rejected"):
            read_source(tmp_path)


def test_copies_of_tied_tensors_must_be_copies(tmp_path: Path) -> None:
    params = foreign.write(tmp_path, "BertForMaskedLM")
    tensors = load_file(tmp_path / "model.safetensors")
    table = tensors["bert.embeddings.word_embeddings.weight"]
    tied = {"cls.predictions.decoder.weight": table, "cls.predictions.decoder.bias": tensors["cls.predictions.bias"]}
    ids = {"bert.embeddings.position_ids": np.arange(48)[None], "extra.weight": table}
    save_file(tensors | tied | ids, tmp_path / "model.safetensors")
    imported = read_source(tmp_path)
    assert_same(imported.params, params)
    assert imported.unused == ("extra.weight",)
    save_file(tensors | {"cls.predictions.decoder.weight": table + 1}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"cls.predictions.decoder.weight .* untied vocabulary head"):
        read_source(tmp_path)


def test_missing_heads_start_fresh_only_if_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    params = foreign.write(tmp_path / "hf", "BertForMaskedLM")
    assert main(["import", str(tmp_path / "hf"), str(tmp_path / "plain")]) == 0
    assert "missing: pooler, next sentence" in capsys.readouterr().out
    with pytest.raises(InputError, match="next_sentence"):
        bert_jax.load(tmp_path / "plain").next_sentence("很", "好")
    assert main(["import", str(tmp_path / "hf"), str(tmp_path / "whole"), "--initialize-missing"]) == 0
    assert "initialized randomly: pooler, next sentence" in capsys.readouterr().out
    whole = bert_jax.load(tmp_path / "whole")
    assert 0 < whole.next_sentence("很", "好") < 1
    assert_same({part: whole.params[part] for part in params}, params)
    assert main(["import", str(tmp_path / "hf"), str(tmp_path / "whole")]) == 2
    assert "already exists" in capsys.readouterr().err


def test_an_imported_model_and_its_source_give_the_same_answers(tmp_path: Path) -> None:
    foreign.write(tmp_path / "hf")
    import_model(tmp_path / "hf", tmp_path / "ours")
    source, ours = bert_jax.load(tmp_path / "hf"), bert_jax.load(tmp_path / "ours")
    assert_same(ours.params, jax.device_get(source.params))
    assert source.fill_mask("很[MASK]") == ours.fill_mask("很[MASK]")
    assert source.config == ours.config and source.tokenizer.fingerprint == ours.tokenizer.fingerprint


def test_other_heads_are_named_as_not_used(tmp_path: Path) -> None:
    params = foreign.write(tmp_path, "BertForSequenceClassification", architectures=["BertForTableQuestionAnswering"])
    imported = read_source(tmp_path)
    assert imported.description.kind == "pretraining" and set(imported.unused) == {"classifier.weight", "classifier.bias"}
    del params["classifier"]
    assert_same(imported.params, params)
    with pytest.warns(UserWarning, match=r"classifier.bias, classifier.weight"):
        bert_jax.load(tmp_path)


def test_casing_and_accents_come_from_the_files(tmp_path: Path) -> None:
    foreign.write(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    for lower, strip in ((True, None), (False, None), (True, False)):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | {"do_lower_case": lower, "strip_accents": strip}))
        normalizer = read_source(tmp_path).tokenizer._backend.normalizer
        assert (normalizer.lowercase, normalizer.strip_accents) == (lower, strip)


def write_modules(directory: Path, pooling: dict[str, Any], *more: str, longest: int | None = None) -> None:
    kinds = ["Transformer", "Pooling", *more]
    modules = [{"path": "" if i == 0 else f"{i}_{kind}", "type": f"sentence_transformers.models.{kind}"} for i, kind in enumerate(kinds)]
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / "1_Pooling").mkdir(exist_ok=True)
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    if longest:
        (directory / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": longest, "do_lower_case": False}))


def test_sentence_embedding_models_bring_their_pooling(tmp_path: Path) -> None:
    foreign.write(tmp_path, "BertModel")
    write_modules(tmp_path, {"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": False}, "Normalize", longest=20)
    bert = bert_jax.load(tmp_path)
    assert read_source(tmp_path).description.embedding == EmbeddingConfig("max", True, 20)
    np.testing.assert_allclose(np.linalg.norm(bert.embed(["这家酒店", "cat"]), axis=1), 1, atol=1e-5)
    with pytest.warns(UserWarning, match="truncated"):
        vectors = bert.embed(["很" * 18, "很" * 40])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-5)
    write_modules(tmp_path, {"pooling_mode_mean_tokens": True}, "Dense")
    with pytest.raises(InputError, match="Transformer, Pooling, Dense"):
        read_source(tmp_path)


REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"model_type": "roberta"}, "'roberta'.*Only BERT"),
    ({"hidden_act": "relu"}, "hidden_act='relu'"),
    ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
    ({"is_decoder": True}, "is_decoder"),
    ({"hidden_size": -32}, "hidden_size=-32"),
    ({"hidden_size": 10**12}, "hidden_size=1000000000000: it must be from 1"),
    ({"num_hidden_layers": 10**9}, "num_hidden_layers=1000000000"),
    ({"vocab_size": 10**15}, "vocab_size=1000000000000000"),
    ({"num_hidden_layers": 2.5}, "num_hidden_layers=2.5.*an integer"),
    ({"hidden_size": "32"}, "hidden_size='32'"),
    ({"num_attention_heads": 5}, "heads=5"),
    ({"num_attention_heads": None}, "no num_attention_heads"),
    ({"vocab_size": None}, "no vocab_size"),
    ({"vocab_size": 101}, r"word_embeddings.weight has the shape .* asks for \(101, 32\)"),
    ({"vocab_size": 9999}, "vocabulary .* vocab_size=9,999: they are from different models"),
    ({"intermediate_size": 65}, r"intermediate.dense.weight has the shape \(64, 32\) .* asks for \(65, 32\)"),
    ({"max_position_embeddings": 50}, r"position_embeddings.weight has the shape \(48, 32\)"),
    ({"num_hidden_layers": 3}, "lack bert.encoder.layer.2.attention.self.query.weight"),
]


@pytest.mark.parametrize(("change", "message"), REFUSALS)
def test_a_configuration_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    foreign.write(tmp_path, **change)
    with pytest.raises(InputError, match=message):
        read_source(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"problem_type": "regression"}, "regression"), ({"id2label": {"0": "a", "1": "b"}}, "id2label"),
     ({"id2label": {"0": "a", "1": "b", "2": "a"}}, "same name")],
)  # fmt: skip
def test_a_classifier_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    foreign.write(tmp_path, "BertForSequenceClassification", **change)
    with pytest.raises(InputError, match=message):
        read_source(tmp_path)


def test_files_that_are_missing_are_named_with_those_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("model.safetensors", "config.json"):
        directory = tmp_path / name
        foreign.write(directory)
        (directory / name).unlink()
        with pytest.raises(InputError, match=rf"{name}.*it contains .*vocab.txt"):
            read_source(directory)
    foreign.write(tmp_path / "x")
    for name in ("tokenizer.json", "vocab.txt"):
        (tmp_path / "x" / name).unlink()
    assert main(["import", str(tmp_path / "x"), str(tmp_path / "out")]) == 2
    assert "neither tokenizer.json nor vocab.txt; it contains config.json, model.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_adapter_is_not_left_out_in_silence(tmp_path: Path) -> None:
    foreign.write(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    for read in (read_source, bert_jax.load):
        with pytest.raises(InputError, match=r"PEFT adapter .*merge_and_unload"):
            read(tmp_path)


def test_part_of_a_head_is_refused(tmp_path: Path) -> None:
    foreign.write(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["cls.predictions.transform.LayerNorm.bias"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"lack cls.predictions.transform.LayerNorm.bias"):
        read_source(tmp_path)


def test_pickles_are_refused_and_not_opened(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "sentinel",)

    foreign.write(tmp_path / "hf")
    (tmp_path / "hf" / "model.safetensors").rename(tmp_path / "weights")
    (tmp_path / "hf" / "pytorch_model.bin").write_bytes(pickle.dumps(Payload()))
    for read in (read_source, bert_jax.load):
        with pytest.raises(InputError, match=r"pytorch_model.bin.*convert them"):
            read(tmp_path / "hf")
    (tmp_path / "weights").rename(tmp_path / "hf" / "model.safetensors")
    bert_jax.load(tmp_path / "hf")
    assert not (tmp_path / "sentinel").exists()


def test_damaged_safetensors_are_refused(tmp_path: Path) -> None:
    foreign.write(tmp_path)
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    for damaged in (whole[:-1], whole[: 8 + size // 2], b"", struct.pack("<Q", 2**60) + whole[8:], b"PK" + whole[2:]):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match="not a complete safetensors file"):
            read_source(tmp_path)
    tensors = load(whole)
    tensors["bert.pooler.dense.bias"] = np.zeros(32, np.int32)  # type: ignore[assignment]
    save_file(tensors, file)
    with pytest.raises(InputError, match=r"bert.pooler.dense.bias .* type I32"):
        read_source(tmp_path)


def test_names_that_are_neither_a_directory_nor_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"cannot be downloaded from the Hugging Face Hub.*hf download no-such/model-at-all"):
        bert_jax.load("no-such/model-at-all")
    with pytest.raises(InputError, match="not the name of a model on the Hugging Face Hub"):
        read_source(tmp_path / "nowhere")


def test_names_of_google_checkpoints_become_todays() -> None:
    def today(name: str) -> str | None:
        return google.today(name, BERT)

    assert today("bert/encoder/layer_11/attention/self/query/kernel") == "bert.encoder.layer.11.attention.self.query.weight"
    assert today("bert/encoder/layer_0/attention/output/LayerNorm/gamma") == "bert.encoder.layer.0.attention.output.LayerNorm.weight"
    assert today("bert/embeddings/word_embeddings") == "bert.embeddings.word_embeddings.weight"
    assert today("cls/predictions/transform/dense/kernel") == "cls.predictions.transform.dense.weight"
    assert today("cls/predictions/output_bias") == "cls.predictions.bias"
    assert today("cls/seq_relationship/output_weights") == "cls.seq_relationship.weight"
    assert today("output_weights") == "classifier.weight"
    for name in ("global_step", "bert/pooler/dense/kernel/adam_m", "cls/predictions/output_bias/adam_v"):
        assert today(name) is None
