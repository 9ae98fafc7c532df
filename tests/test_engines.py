"""ONNX Runtime as the inference engine: the answers of JAX in float32, nearly those in int8, and a graph that is converted once."""

import dataclasses
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import _ENCODER, write_model

import bert_jax
from bert_jax.cli import main
from bert_jax.convert import encoder_graph as writer
from bert_jax.errors import InputError
from bert_jax.inference import Bert, TruncationWarning
from bert_jax.inference.engines import ENGINES, onnx_runtime
from bert_jax.model.directory import InputDescription, ModelDescription

TOLERANCE = 1e-5
TEXTS = ["这家酒店的服务很好", "the cat sat on the mat, good", "再也不来了,太差", "好", "good " * 60, "the [MASK] sat [MASK] the mat"] * 4
TAGS = ("DET", "NOUN", "VERB")


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for every test, and the packages."""
    pytest.importorskip("onnx", reason="onnx is not installed (an extra)")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (an extra)")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("BERT_JAX_CACHE", raising=False)
    return tmp_path / "bert_jax" / "compiled"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tiny_pretrained: Path, tiny_classifier: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("engines")
    descriptions = {
        "tagger": ModelDescription("tagging", _ENCODER, 32, labels=TAGS),
        "answerer": ModelDescription("answering", _ENCODER, 32),
    }
    written = {name: write_model(folder / name, description) for name, description in descriptions.items()}
    return written | {"pretrained": tiny_pretrained, "classifier": tiny_classifier}


def tags(bert: Bert) -> list[Any]:
    return [(span.start, span.end, TAGS.index(span.label), span.probability) for spans in bert.tag(TEXTS[:4]) for span in spans]


def answers(bert: Bert) -> list[Any]:
    return [(one.start, one.end, one.probability) for one in bert.answer(["the cat", "谁"] * 2, TEXTS[:4]) if one]


QUESTIONS: dict[str, tuple[str, Callable[[Bert], Any]]] = {
    "classes": ("classifier", lambda bert: [list(one.probabilities.values()) for one in bert.classify(TEXTS)]),
    "classes of pairs": ("classifier", lambda bert: [list(one.probabilities.values()) for one in bert.classify(TEXTS, TEXTS[::-1])]),
    "vectors": ("pretrained", lambda bert: bert.embed(TEXTS)),
    "several poolings": ("pretrained", lambda bert: bert.embed(TEXTS[:6], pooling="cls+max+lasttoken")),
    "neighbors": ("pretrained", lambda bert: [(near.index, near.cosine) for near in bert.similar("the cat", TEXTS[:5])]),
    "masked tokens": ("pretrained", lambda bert: [one.probability for one in bert.fill_mask(TEXTS[5])[1]]),
    "score": ("pretrained", lambda bert: bert.score(TEXTS[:2])),
    "next sentence": ("pretrained", lambda bert: bert.next_sentence(TEXTS, TEXTS[::-1])),
    "tags": ("tagger", tags),
    "answers": ("answerer", answers),
}


@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.filterwarnings("ignore::bert_jax.inference.TruncationWarning")
def test_in_float32_every_question_has_the_answers_of_jax(name: str, models: dict[str, Path]) -> None:
    model, ask = QUESTIONS[name]
    expected, found = (np.array(ask(bert_jax.load(models[model], engine=engine))) for engine in ("jax", "onnxruntime"))
    assert expected.size and np.ptp(expected) > 0.01
    # The pseudo-log-likelihood of a text is a sum of about ten logarithms.
    np.testing.assert_allclose(found, expected, atol=TOLERANCE * (10 if name == "score" else 1))


def test_the_answer_to_a_text_does_not_depend_on_its_position_or_company(tiny_classifier: Path) -> None:
    bert = bert_jax.load(tiny_classifier, engine="onnxruntime", dtype="float32")
    with warnings.catch_warnings(action="ignore", category=TruncationWarning):
        together = bert.embed(TEXTS * 40)  # enough for several groups, which are then computed one per core
        assert bert.truncated == 160
        for index, text in enumerate(TEXTS[:6]):
            np.testing.assert_allclose(together[index::6], np.tile(bert.embed(text), (160, 1)), atol=TOLERANCE)


@pytest.mark.parametrize("products", ["int8", "int7"])
def test_int8_is_about_as_accurate_as_the_dynamic_quantization_of_onnx_runtime(
    products: writer.Products, tiny_pretrained: Path, tmp_path: Path
) -> None:
    import onnx
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    bert = bert_jax.load(tiny_pretrained)
    params = jax.device_get(bert.params)
    (tmp_path / "float.onnx").write_bytes(writer.encoder_graph(_ENCODER, params, "float32"))
    reduced = {"per_channel": True, "reduce_range": products == "int7", "weight_type": QuantType.QInt8}
    reduced["extra_options"] = {"DefaultTensorType": onnx.TensorProto.FLOAT}
    with warnings.catch_warnings(action="ignore"):
        quantize_dynamic(tmp_path / "float.onnx", tmp_path / "theirs.onnx", **reduced)
    (tmp_path / "ours.onnx").write_bytes(writer.encoder_graph(_ENCODER, params, products))
    tokens = np.random.default_rng(0).integers(5, bert.tokenizer.vocab_size, (8, 40)).astype(np.int32)
    feeds = {"tokens": tokens, "segments": np.zeros_like(tokens), "lengths": np.full(8, 40, np.int32)}

    def hidden(name: str) -> np.ndarray:
        session = onnxruntime.InferenceSession(tmp_path / f"{name}.onnx", providers=["CPUExecutionProvider"])
        return session.run(None, feeds)[0]

    exact = hidden("float")
    ours, theirs = (np.sqrt(np.square(hidden(name) - exact).mean()) for name in ("ours", "theirs"))
    assert 0 < ours < 2 * theirs < 0.1 * exact.std()


def test_loaded_with_int8_answers_are_near(tiny_classifier: Path) -> None:
    exact, approximate = (bert_jax.load(tiny_classifier, engine="onnxruntime", dtype=dtype) for dtype in (None, "int8"))
    with warnings.catch_warnings(action="ignore", category=TruncationWarning):
        first, second = (np.array([list(one.probabilities.values()) for one in bert.classify(TEXTS)]) for bert in (exact, approximate))
    assert 0 < np.abs(first - second).max() < 0.1


def test_weights_have_seven_bits_where_products_would_saturate(tiny_classifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    monkeypatch.setattr(writer, "encoder_graph", lambda *args, graph=writer.encoder_graph: (written.append(args[2]), graph(*args))[1])
    for features in ({"avx2"}, {"avx2", "avx512_vnni"}, {"asimddp"}):
        monkeypatch.setattr(onnx_runtime, "cpu_features", lambda features=features: frozenset(features))
        bert_jax.load(tiny_classifier, engine="onnxruntime", dtype="int8").embed("the cat")
    assert written == ["int7", "int8"]  # the third found the second's


def test_a_graph_is_converted_once_and_again_when_it_is_damaged_or_the_model_is_another(
    models: dict[str, Path], installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    monkeypatch.setattr(writer, "encoder_graph", lambda *args, graph=writer.encoder_graph: (written.append(args[2]), graph(*args))[1])

    def vector(name: str = "classifier", dtype: str = "float32") -> np.ndarray:
        return bert_jax.load(models[name], engine="onnxruntime", dtype=dtype).embed("the cat")

    first = vector()
    np.testing.assert_array_equal(vector(), first)
    assert written == ["float32"]
    [path] = installed.glob("*/*.onnx")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    np.testing.assert_array_equal(vector(), first)
    assert written == ["float32"] * 2
    assert vector("tagger").shape == first.shape and vector(dtype="int8").shape == first.shape
    assert written[2:] == ["float32", "int8"] or written[2:] == ["float32", "int7"]
    assert len(list(installed.glob("*/*.onnx"))) == 3


def test_a_command_takes_the_engine(tiny_classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def classify(*flags: str) -> str:
        status = main(["classify", str(tiny_classifier), "the cat", *flags])
        assert status == 0 or capsys.readouterr().err.count("\n") == 1
        return capsys.readouterr().out if status == 0 else ""

    expected = classify("--json")
    assert expected and classify("--json", "--engine", "onnxruntime") == expected
    assert classify("--json", "--engine=onnxruntime", "--dtype=int8")
    assert not classify("--engine=onnxruntime", "--dtype=bfloat16") and not classify("--engine=torch")


def test_what_an_engine_cannot_do_is_refused_with_the_name_of_one_that_can(tiny_classifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**options: Any) -> str:
        with pytest.raises(InputError) as error:
            bert_jax.load(tiny_classifier, **options)
        return str(error.value)

    known = "The engines are jax with float32 or bfloat16; onnxruntime with float32 or int8."
    assert refused(engine="torch") == f"There is no engine 'torch'. {known}"
    assert refused(dtype="int8") == f"There is no engine 'jax' with dtype 'int8'. {known}"
    assert 'engine="jax"' in refused(engine="onnxruntime", compute=bert_jax.config.ComputeConfig())
    bert = bert_jax.load(tiny_classifier, engine="onnxruntime")
    assert bert.embed("the cat", layer=-1).shape == (32,)
    with pytest.raises(InputError, match='load it with engine="jax"'):
        bert.embed("the cat", layer=1)
    with pytest.raises(InputError, match="fill_mask requires a pre-trained model"):
        bert.fill_mask("the [MASK]")
    images = dataclasses.replace(bert._model.description, input=InputDescription("image", "units", 16))
    with pytest.raises(InputError, match=r"reads image units\. Use engine=jax"):
        ENGINES[1].hidden_states(images, bert.params, None)
    monkeypatch.setattr(onnx_runtime, "_LARGEST_GRAPH", 1000)
    assert "Use engine=jax" in refused(engine="onnxruntime")
    for package in ("onnx", "onnxruntime"):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, package, None)
            assert refused(engine="onnxruntime").endswith("pip install onnx onnxruntime.")


def test_jax_computes_in_bfloat16_if_asked(tiny_classifier: Path) -> None:
    exact, rounded = (bert_jax.load(tiny_classifier, dtype=dtype).embed("the cat") for dtype in (None, "bfloat16"))
    assert 0 < np.abs(exact - rounded).max() < 0.2


def test_use_is_not_reported_to_microsoft(tiny_classifier: Path) -> None:
    bert_jax.load(tiny_classifier, engine="onnxruntime")
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
