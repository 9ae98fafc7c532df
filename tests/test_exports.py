"""Models taken to Hugging Face: the same tensors bit by bit, loaded by transformers without a complaint, with the same answers."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import foreign
import jax
import numpy as np
import pytest
from conftest import write_model
from safetensors.numpy import load_file, save_file
from test_imports import assert_same

import bert_jax
from bert_jax.cli import main
from bert_jax.convert.exports import export_model
from bert_jax.convert.imports import import_model, read_source
from bert_jax.errors import InputError
from bert_jax.model.directory import EmbeddingConfig, ModelDescription


@pytest.mark.parametrize("architecture", foreign.HEADS)
def test_import_then_export_is_the_identity(tmp_path: Path, architecture: str) -> None:
    foreign.write(tmp_path / "hf", architecture, rename=(lambda name: name.removeprefix("bert.")) if architecture == "BertModel" else str)
    import_model(tmp_path / "hf", tmp_path / "ours")
    assert export_model(tmp_path / "ours", tmp_path / "back") == architecture
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("hf", "back"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert (after[name].dtype, after[name].shape, after[name].tobytes()) == (tensor.dtype, tensor.shape, tensor.tobytes()), name
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("hf", "back")]
    assert {name: configs[1][name] for name in configs[0]} == configs[0]
    for name in ("tokenizer.json", "vocab.txt"):
        assert (tmp_path / "hf" / name).read_bytes() == (tmp_path / "back" / name).read_bytes()
    settings = [json.loads((tmp_path / name / "tokenizer_config.json").read_text()) for name in ("hf", "back")]
    assert settings[1] == settings[0] | {"model_max_length": foreign.ENCODER.max_positions}


def test_a_trained_model_survives_the_way_there_and_back(tiny_pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tiny_pretrained), str(tmp_path / "out"), "--license", "cc-by-sa-4.0"]) == 0
    assert "BertForPreTraining" in capsys.readouterr().out
    assert_same(read_source(tmp_path / "out").params, jax.device_get(bert_jax.load(tiny_pretrained).params))
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\n") and "license: cc-by-sa-4.0" in card and "class 0 means that B follows A" in card
    assert main(["export", str(tiny_pretrained), str(tmp_path / "out")]) == 2
    assert "already exists" in capsys.readouterr().err
    assert main(["export", str(tiny_pretrained), str(tmp_path / "other"), "--architecture", "BertForMasked"]) == 2
    assert "choose one of BertForPreTraining, BertForMaskedLM" in capsys.readouterr().err
    assert main(["export", str(tiny_pretrained.parent), str(tmp_path / "other")]) == 2
    assert str(tiny_pretrained) in capsys.readouterr().err and not (tmp_path / "other").exists()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_of_two_bytes(tiny_pretrained: Path, tmp_path: Path, dtype: str) -> None:
    sizes = {}
    for name in ("float32", dtype):
        assert main(["export", str(tiny_pretrained), str(tmp_path / name), "--dtype", name]) == 0
        assert json.loads((tmp_path / name / "config.json").read_text())["dtype"] == name
        sizes[name] = (tmp_path / name / "model.safetensors").stat().st_size
    assert sizes[dtype] < 0.6 * sizes["float32"]
    given, found = (jax.tree.leaves(read_source(tmp_path / name).params) for name in ("float32", dtype))
    for one, other in zip(given, found, strict=True):
        np.testing.assert_allclose(other, one, rtol=2**-8 if dtype == "bfloat16" else 2**-11, atol=2**-25)
    transformers = pytest.importorskip("transformers")
    assert str(transformers.AutoModelForPreTraining.from_pretrained(tmp_path / dtype).dtype) == f"torch.{dtype}"


@pytest.mark.parametrize(("added", "message"), [(1e5, r"up to 1e\+05, too large for float16"), (np.inf, "that are not finite")])
def test_a_weight_beyond_float16_is_refused(tmp_path: Path, added: float, message: str) -> None:
    foreign.write(tmp_path / "hf", "BertForMaskedLM")
    tensors = load_file(tmp_path / "hf" / "model.safetensors")
    name = "bert.encoder.layer.0.output.dense.weight"
    save_file(tensors | {name: tensors[name] + np.float32(added)}, tmp_path / "hf" / "model.safetensors", {"format": "pt"})
    model = tmp_path / "model"
    import_model(tmp_path / "hf", model)
    with pytest.raises(InputError, match=rf"layer.0.output.dense.weight has values {message}"):
        export_model(model, tmp_path / "out", dtype="float16")
    with pytest.raises(InputError, match=r"no dtype 'int8' of weights: choose one of float32, float16, bfloat16"):
        export_model(model, tmp_path / "out", dtype="int8")
    assert not (tmp_path / "out").exists()


def test_what_was_not_trained_is_not_exported(tmp_path: Path, tiny_classifier: Path) -> None:
    write_model(tmp_path / "model", ModelDescription("pretraining", foreign.ENCODER, 32, "none"))
    assert export_model(tmp_path / "model", tmp_path / "out") == "BertForMaskedLM"
    assert not any("pooler" in name or "seq_relationship" in name for name in load_file(tmp_path / "out" / "model.safetensors"))
    with pytest.raises(InputError, match=r"finetune.task.pooling=mean.*cannot be exported to them. Export it to ONNX"):
        export_model(tiny_classifier, tmp_path / "classifier")
    assert not (tmp_path / "classifier").exists()


def test_a_sentence_embedding_model_keeps_its_modules(tmp_path: Path) -> None:
    embedding = EmbeddingConfig("cls", normalize=True, max_length=30)
    description = ModelDescription("pretraining", foreign.ENCODER, 48, embedding=embedding, absent=("masked_token", "next_sentence"))
    write_model(tmp_path / "model", description)
    assert export_model(tmp_path / "model", tmp_path / "out") == "BertModel"
    assert read_source(tmp_path / "out").description.embedding == embedding


def test_the_card_tells_what_was_trained(tmp_path: Path, tiny_pretrained: Path) -> None:
    from bert_jax.model.directory import write_json

    run = tmp_path / "run"
    (run / "data" / "documents" / "mine-0123456789abcdef" / "1.0.0").mkdir(parents=True)
    (run / "data" / "documents" / "mine-0123456789abcdef" / "1.0.0" / "dataset_info.json").touch()
    (run / "command.txt").write_text("python train.py --config=mine.py\n")
    write_json(run / "config.json", {"seed": 7})
    write_model(run / "pretrain", ModelDescription("pretraining", foreign.ENCODER, 32, "nsp"))
    (run / "pretrain" / "metrics.jsonl").write_text('{"step": 30, "split": "valid", "mlm_loss": 2.125, "mlm_accuracy": 0.5}\n')
    write_json(run / "pretrain" / "result.json", {"real_tokens": 1234567, "mlm_accuracy_floor": 0.0625})
    export_model(run / "pretrain", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    for text in ("python train.py --config=mine.py", "mine-0123456789abcdef", '"seed": 7', "| mlm loss, valid, at step 30 | 2.125 |"):
        assert text in card
    assert "1,234,567" in card and "0.0625" in card and "No license was given" in card
    assert bert_jax.load(run / "pretrain").tokenizer.fingerprint in card


# With transformers.


@pytest.fixture
def transformers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The library, offline; it must be silent."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pytest.importorskip("torch", reason="torch is not installed: transformers cannot load a model")
    return pytest.importorskip("transformers", reason="transformers is not installed")


def loaded(factory: Any, directory: Path, caplog: pytest.LogCaptureFixture) -> Any:
    """A model in evaluation mode; a weight that is missing or left over fails the test."""
    with caplog.at_level(logging.WARNING), warnings.catch_warnings():
        warnings.simplefilter("error")
        model, found = factory.from_pretrained(directory, output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"] and not found["mismatched_keys"]
    assert not [record.message for record in caplog.records if "weights" in record.message]
    return model.eval()


@pytest.mark.parametrize("architecture", foreign.HEADS)
def test_transformers_gives_the_answers_of_the_exported_model(
    tmp_path: Path, architecture: str, transformers: Any, caplog: pytest.LogCaptureFixture
) -> None:
    import torch

    theirs = getattr(transformers, architecture)
    config = transformers.BertConfig(**json.loads(json.dumps(config_of(tmp_path, architecture))))
    torch.manual_seed(0)
    model = theirs(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    source = tmp_path / "hf"
    model.save_pretrained(source)
    foreign.tokenizer().save(source)
    import_model(source, tmp_path / "ours")
    export_model(tmp_path / "ours", tmp_path / "back")
    again = loaded(theirs, tmp_path / "back", caplog)
    for (name, one), (_, other) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert one.numpy().tobytes() == other.numpy().tobytes(), name
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")(TEXTS, return_tensors="pt", padding=True)
    with torch.no_grad():
        hidden = getattr(model, "bert", model)(**tokens).last_hidden_state.numpy()
    np.testing.assert_allclose(bert_jax.load(source).embed(TEXTS, "cls"), hidden[:, 0], atol=2e-5)


TEXTS = ["这家酒店的服务很好", "the cat sat on the mat"]


def config_of(directory: Path, architecture: str) -> dict[str, Any]:
    foreign.write(directory / "config_only", architecture)
    return dict(json.loads((directory / "config_only" / "config.json").read_text()))


def test_auto_classes_and_pipelines_take_the_export(tmp_path: Path, transformers: Any, caplog: pytest.LogCaptureFixture) -> None:
    foreign.write(tmp_path / "hf")
    import_model(tmp_path / "hf", tmp_path / "ours")
    export_model(tmp_path / "ours", tmp_path / "out")
    loaded(transformers.AutoModelForPreTraining, tmp_path / "out", caplog)
    assert export_model(tmp_path / "ours", tmp_path / "masked", architecture="BertForMaskedLM") == "BertForMaskedLM"
    loaded(transformers.AutoModelForMaskedLM, tmp_path / "masked", caplog)
    with caplog.at_level(logging.WARNING):
        fill = transformers.pipeline("fill-mask", model=str(tmp_path / "masked"))
    assert not [record.message for record in caplog.records]
    ours = bert_jax.load(tmp_path / "ours").fill_mask("这家酒店的服务很[MASK]", top_k=5)[0]
    theirs = fill("这家酒店的服务很[MASK]", top_k=5)
    assert [p.id for p in ours] == [p["token"] for p in theirs]
    np.testing.assert_allclose([p.probability for p in ours], [p["score"] for p in theirs], rtol=1e-4)


def test_a_classifier_goes_through_a_pipeline(tmp_path: Path, transformers: Any, caplog: pytest.LogCaptureFixture) -> None:
    foreign.write(tmp_path / "hf", "BertForSequenceClassification")
    import_model(tmp_path / "hf", tmp_path / "ours")
    export_model(tmp_path / "ours", tmp_path / "out")
    loaded(transformers.AutoModelForSequenceClassification, tmp_path / "out", caplog)
    classify = transformers.pipeline("text-classification", model=str(tmp_path / "out"), top_k=None)
    for ours, theirs in zip(bert_jax.load(tmp_path / "ours").classify(TEXTS), classify(TEXTS), strict=True):
        assert ours.probabilities == pytest.approx({found["label"]: found["score"] for found in theirs}, abs=1e-5)


def test_next_sentence_keeps_its_meaning(tmp_path: Path, transformers: Any) -> None:
    import torch

    foreign.write(tmp_path / "hf", "BertForNextSentencePrediction")
    import_model(tmp_path / "hf", tmp_path / "ours")
    export_model(tmp_path / "ours", tmp_path / "out")
    model = transformers.BertForNextSentencePrediction.from_pretrained(tmp_path / "out").eval()
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")("这家酒店", "服务很好", return_tensors="pt")
    with torch.no_grad():
        follows = torch.softmax(model(**tokens).logits, -1)[0, 0].item()
    assert bert_jax.load(tmp_path / "ours").next_sentence("这家酒店", "服务很好") == pytest.approx(follows, abs=1e-5)
