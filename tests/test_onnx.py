"""A model written as ONNX computes in ONNX Runtime what it computes in JAX, for any shape of batch."""

import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import bert_jax
from bert_jax.cli import main
from bert_jax.config import ComputeConfig
from bert_jax.convert.onnx import export_onnx
from bert_jax.errors import InputError
from bert_jax.model.bert import ClassificationModel, PretrainingModel

TOLERANCE = 1e-5
PRETRAINING = PretrainingModel(tiny.VOCABULARY, tiny.WITH_DROPOUT, ComputeConfig(dtype="bfloat16", scan_layers=True))
MODELS = {
    "pre-training": PRETRAINING,
    "encoder without heads": PRETRAINING,
    "classifier of [CLS]": ClassificationModel(tiny.VOCABULARY, tiny.WITH_DROPOUT, ComputeConfig(), 3, "cls", head_dropout=0.1),
    "classifier of means": ClassificationModel(tiny.VOCABULARY, tiny.WITH_DROPOUT, ComputeConfig(), 3, "mean", head_dropout=0.1),
}
SHAPES = [(1, 5, 1, 1), (3, 24, 1, 2), (2, 40, 3, 7)]  # rows, length, examples, masked positions


def make_batch(rows: int, length: int, examples: int, masked: int) -> dict[str, np.ndarray]:
    """Rows of `examples` examples each, with padding at the end of all but the first."""
    rng = np.random.default_rng(length)
    size = length // examples
    columns = np.arange(length)
    real = columns < size * examples - 2 * np.arange(rows)[:, None]
    batch = {
        "tokens": np.where(real, rng.integers(0, tiny.VOCABULARY, (rows, length)), tiny.PAD),
        "example_ids": np.where(real, 1 + columns // size, 0),
        "positions": np.where(real, columns % size, 0),
        "segments": np.where(real, columns % size > size // 2, 0),
        "cls_positions": np.broadcast_to(size * np.arange(examples), (rows, examples)),
        "masked_positions": rng.integers(0, size, (rows, masked)),
    }
    return {name: array.astype(np.int32) for name, array in batch.items()}


def parameters(name: str) -> Any:
    params = jax.tree.map(jnp.asarray, tiny.initial_parameters(tiny.WITH_DROPOUT))
    if name == "pre-training":
        return params
    params, head = {part: params[part] for part in ("embeddings", "encoder", "pooler")}, params["next_sentence"]["dense"]
    if name != "encoder without heads":
        params["classifier"] = {"dense": {leaf: jnp.tile(array, 2)[..., :3] for leaf, array in head.items()}}
    return params


def expected(model: Any, params: Any, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    model = model.clone(compute=ComputeConfig())
    call = jax.jit(lambda batch, method: model.apply({"params": params}, batch, method=method), static_argnames="method")
    if isinstance(model, ClassificationModel):
        return {"scores": call(batch, "__call__")}
    heads = call(batch, "__call__")._asdict() if "next_sentence" in params else {}
    return {"hidden": call(batch, "encode")[0]} | heads


@pytest.mark.parametrize("name", MODELS)
def test_onnx_runtime_computes_what_jax_computes_for_batches_of_any_shape(name: str, tmp_path: Path) -> None:
    pytest.importorskip("jax2onnx", reason="jax2onnx is not installed (an extra)")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (it comes with jax2onnx)")
    model, params = MODELS[name], parameters(name)
    export_onnx(model, params, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for shape in SHAPES:
        batch = make_batch(*shape)
        found = session.run(None, {field.name: batch[field.name] for field in session.get_inputs()})
        found = dict(zip([field.name for field in session.get_outputs()], found, strict=True))
        tiny.assert_close(found, expected(model, params, batch), TOLERANCE)


def test_a_model_directory_from_the_command_line(tiny_classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("jax2onnx", reason="jax2onnx is not installed (an extra)")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (it comes with jax2onnx)")
    arguments = ["export", str(tiny_classifier), str(tmp_path / "model.onnx")]
    assert main(arguments) == 0
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    classifier = bert_jax.load(tiny_classifier)
    ids = [classifier.tokenizer.cls_id, *classifier.tokenizer.encode("这家酒店").ids, classifier.tokenizer.sep_id]
    row = np.array([ids], np.int32)
    batch = {"tokens": row, "example_ids": np.ones_like(row), "positions": np.arange(len(ids), dtype=np.int32)[None]}
    batch |= {"segments": np.zeros_like(row), "cls_positions": np.zeros((1, 1), np.int32)}
    [scores] = session.run(None, {field.name: batch[field.name] for field in session.get_inputs()})
    wanted = list(classifier.classify("这家酒店").probabilities.values())
    np.testing.assert_allclose(np.asarray(jax.nn.softmax(scores[0, 0])), wanted, atol=1e-5)
    capsys.readouterr()
    assert main(arguments) == 2
    assert "already exists" in capsys.readouterr().err


def test_without_the_package_the_error_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(InputError, match="pip install jax2onnx"):
        export_onnx(PRETRAINING, {}, tmp_path / "model.onnx")
