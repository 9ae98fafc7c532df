"""The libraries that the inference benchmark compares with: torch and ONNX Runtime, each at its best settings for a CPU."""

import importlib.util
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from machine import CORES

from bert_jax.config import EncoderConfig
from bert_jax.convert.huggingface import config_values
from bert_jax.modalities.text.tokenizer import Tokenizer

PACKAGES = {"torch": ("torch", "transformers"), "onnxruntime": ("torch", "transformers", "onnx", "onnxruntime")}
"""The packages that each peer needs: ONNX Runtime runs graphs exported by torch."""
BATCH_SIZES = (8, 16, 32)

Tensors = dict[str, np.ndarray]
Embed = Callable[[Sequence[str]], np.ndarray]
"""Maps texts to vectors float32 [texts, D], in the same order."""
Run = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Maps token ids and attention mask, both int64 [B, L], to vectors float32 [B, D]."""


def installed() -> list[str]:
    """The peers that can be measured; prints what is missing for the others."""
    found = []
    for peer, packages in PACKAGES.items():
        missing = [package for package in packages if importlib.util.find_spec(package) is None]
        if missing:
            print(f"{peer} is skipped because {', '.join(missing)} is missing: pip install -r benchmarks/requirements.txt")
        else:
            found.append(peer)
    return found


def prepare(
    peers: Sequence[str], directory: Path, encoder: EncoderConfig, tensors: Tensors, tokenizer: Tokenizer, texts: Sequence[str]
) -> dict[str, tuple[Embed, str]]:
    """The embedding function of each peer at its fastest settings, and these settings.

    Args:
        peers: names of installed peers.
        directory: contains the tokenizer's files; graphs are written there.
        encoder, tensors, tokenizer: the model, as a `BertForPreTraining` state dict.
        texts: on which the settings are tried.
    """
    if not peers:
        return {}
    import torch

    torch.set_num_threads(CORES)
    model = _torch_model(encoder, tensors, tokenizer)

    def torch_run(tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(tokens), torch.from_numpy(mask)).numpy()

    runs = {"torch": {"sdpa": torch_run}}
    if "onnxruntime" in peers:
        runs["onnxruntime"] = {path.stem: _onnx_run(path) for path in _graphs(model, directory, encoder)}
    return {peer: _fastest(runs[peer], directory, encoder, texts) for peer in peers}


def _fastest(runs: dict[str, Run], directory: Path, encoder: EncoderConfig, texts: Sequence[str]) -> tuple[Embed, str]:
    sample = _evenly_sized(texts)

    def best_of_two(embed: Embed) -> float:
        return min(seconds(embed, sample), seconds(embed, sample))

    tried = {
        f"{name}, batches of {batch_size}": _padded_batches(directory, run, encoder, batch_size)
        for name, run in runs.items()
        for batch_size in BATCH_SIZES
    }
    times = {settings: best_of_two(embed) for settings, embed in tried.items()}
    settings = min(times, key=times.__getitem__)
    return tried[settings], settings


def seconds(embed: Embed, texts: Sequence[str]) -> float:
    """Wall-clock seconds to embed the texts once."""
    begun = time.perf_counter()
    embed(texts)
    return time.perf_counter() - begun


def _evenly_sized(texts: Sequence[str]) -> list[str]:
    """A sample made of groups of texts of similar length, so that its batches need as little padding as those of all texts."""
    ordered, run = sorted(texts, key=len), max(BATCH_SIZES)
    starts = range(0, len(ordered), run)
    step = max(1, len(starts) // 3)
    return [text for start in starts[step // 2 :: step] for text in ordered[start : start + run]]


def _padded_batches(directory: Path, run: Run, encoder: EncoderConfig, batch_size: int) -> Embed:
    """Embed texts sorted by length, each batch padded to its longest text."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    encode = partial(tokenizer, truncation=True, max_length=encoder.max_positions, return_attention_mask=False, return_token_type_ids=False)

    def embed(texts: Sequence[str]) -> np.ndarray:
        encoded = encode(list(texts))["input_ids"]
        lengths = np.array([len(ids) for ids in encoded])
        order = np.argsort(lengths, kind="stable")
        vectors = np.empty((len(texts), encoder.width), np.float32)
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            mask = np.arange(lengths[chosen].max()) < lengths[chosen, None]
            tokens = np.full(mask.shape, tokenizer.pad_token_id, np.int64)
            tokens[mask] = np.concatenate([encoded[index] for index in chosen])
            vectors[chosen] = run(tokens, mask.astype(np.int64))
        return vectors

    return embed


def _torch_model(encoder: EncoderConfig, tensors: Tensors, tokenizer: Tokenizer) -> Any:
    """A torch module from token ids and mask to [CLS] vectors: transformers' `BertModel` with fused attention."""
    import torch
    from transformers import BertConfig, BertModel

    config = BertConfig(**config_values(encoder, tokenizer.vocab_size, tokenizer.pad_id), attn_implementation="sdpa")

    class ClsVectors(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = BertModel(config, add_pooling_layer=False)

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state[:, 0]

    model = ClsVectors().eval()
    model.load_state_dict(
        {name: torch.from_numpy(tensor) for name, tensor in tensors.items() if name.startswith("bert.") and "pooler" not in name}
    )
    return model


def _graphs(model: Any, directory: Path, encoder: EncoderConfig) -> list[Path]:
    """ONNX graphs of the torch model, for any number of rows of any length.

    One is as exported; in the other, ONNX Runtime's optimizer has fused complete attention layers, which it recognizes only if
    attention is written out. Which one is faster depends on the size of the model.
    """
    from onnxruntime.transformers import optimizer

    exported, written_out, fused = (directory / f"{name}.onnx" for name in ("exported", "written_out", "fused"))
    _export(model, exported)
    model.bert.set_attn_implementation("eager")
    _export(model, written_out)
    model.bert.set_attn_implementation("sdpa")
    graph = optimizer.optimize_model(str(written_out), model_type="bert", num_heads=encoder.heads, hidden_size=encoder.width, opt_level=0)
    graph.save_model_to_file(str(fused))
    return [exported, fused]


def _export(model: Any, path: Path) -> None:
    import torch

    example = torch.ones((2, 16), dtype=torch.int64)
    names = ["input_ids", "attention_mask"]
    axes = {name: {0: "batch", 1: "length"} for name in names}
    with warnings.catch_warnings():
        # The older exporter is deprecated, but ONNX Runtime fuses less in the newer one's graphs.
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (example, example), path, input_names=names, output_names=["vectors"], dynamic_axes=axes, dynamo=False)


def _onnx_run(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = CORES
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda tokens, mask: session.run(None, {"input_ids": tokens, "attention_mask": mask})[0]
