"""Low-rank adaptation: equal to that of torch, saved merged, resumed to the bit, on any mesh."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import children
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from command_line import failure
from small_run import write_files

import bert_jax
from bert_jax.config import ComputeConfig, LoopConfig, OptimizerConfig
from bert_jax.convert.exports import export_model
from bert_jax.convert.imports import import_model
from bert_jax.errors import InputError
from bert_jax.model import directory as model_directory
from bert_jax.stages.run import run as run_all
from bert_jax.tasks import configured
from bert_jax.tasks.regression import REGRESSION
from bert_jax.tasks.stored import build
from bert_jax.training import lora
from bert_jax.training.loop import Job
from bert_jax.training.objective import ExampleObjective
from bert_jax.training.optimizer import make_optimizer
from bert_jax.training.state import TrainState, create_state
from bert_jax.training.steps import compile_steps


def new_state(params: Any, optimizer: Any = None, average: bool = False) -> TrainState:
    optimizer = optimizer or tiny.lenient(make_optimizer(OptimizerConfig(), 10))
    return create_state(lambda: jax.tree.map(jnp.asarray, params), optimizer, tiny.one_device_mesh(), average=average)


# --- The transformation ---
def test_training_starts_from_the_model_itself() -> None:
    params = tiny.initial_parameters()
    state = new_state(lora.add_factors(jax.tree.map(jnp.asarray, params), tiny.LORA, jax.random.key(0)), average=True)
    found, wanted = tiny.flat(state.model), tiny.flat(params)
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[path], wanted[path]) for path in wanted)
    factor = tiny.flat(state.params)["encoder/layers/query/lora_a"]
    assert factor.shape == (2, 32, 3) and 0.9 / np.sqrt(32) < np.abs(factor).max() <= 1 / np.sqrt(32) and len(np.unique(factor)) > 180


def test_kernels_are_those_of_the_formula_and_nothing_else_differs() -> None:
    params = tiny.factored()
    found, before = tiny.flat(new_state(params).model), tiny.flat(tiny.initial_parameters())
    assert found.keys() == before.keys()
    for path, leaf in found.items():
        matrix = path.split("/")[-2]
        if matrix in tiny.LORA.matrices and path.endswith("kernel"):
            own = params["encoder"]["layers"][matrix]
            wanted = np.stack([w + 6 / 3 * a @ b for w, a, b in zip(own["kernel"], own["lora_a"], own["lora_b"], strict=True)])
            np.testing.assert_allclose(leaf, wanted, atol=1e-6)
            assert np.abs(leaf - before[path]).max() > 0.01
        else:
            np.testing.assert_array_equal(leaf, before[path])


def test_only_factors_and_the_head_have_an_optimizer_state() -> None:
    state, whole = new_state(tiny.factored()), new_state(tiny.initial_parameters())
    trained = {path for path in tiny.flat(state.params) if "lora" not in path}
    assert trained and not any(path.startswith(("encoder", "embeddings")) for path in trained)
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(one.optimizer_state)) for one in (state, whole)]
    numbers = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert sizes[0] - 2 * numbers < 8 and sizes[0] < sizes[1] / 3, "two moments of each, and counters"


def test_another_model_gets_the_same_factors() -> None:
    state = new_state(tiny.factored(), average=True)
    other = jax.tree.map(lambda leaf: leaf + 1, state.base)
    started = state.started_from(other)
    np.testing.assert_array_equal(
        *(np.asarray(one["encoder"]["layers"]["query"]["lora_a"]) for one in (started.params, state.params))
    )
    difference = jax.tree.map(lambda new, old: np.asarray(new - old), started.model, state.model)
    assert all(np.allclose(leaf, 1, atol=1e-5) for leaf in jax.tree.leaves(difference))


# --- The step ---
@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small regression model of transformers with random weights."""
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    import torch

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("published")
    config = transformers.BertConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, max_position_embeddings=40,
        num_labels=1, problem_type="regression", initializer_range=0.2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(chr(0x4E00 + i) for i in range(55))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    import_model(folder, folder / "ours")
    return folder


def test_three_steps_are_those_of_torch(published: Path) -> None:
    import torch
    import transformers

    rng, config = np.random.default_rng(2), dataclasses.replace(tiny.LORA, matrices=("query", "value", "feed_forward_output"))
    description, tokenizer = model_directory.read(published / "ours")
    params = lora.add_factors(bert_jax.load(published / "ours").params, config, jax.random.key(1))
    factors = {matrix: params["encoder"]["layers"][matrix] for matrix in config.matrices}
    for one in factors.values():
        one["lora_b"] = jnp.asarray(rng.normal(0, 0.1, one["lora_b"].shape), jnp.float32)
    tokens, targets = rng.integers(5, 60, (4, 12)).astype(np.int32), rng.normal(size=(4, 1)).astype(np.float32)
    tokens[:, 0] = 2
    ones, zeros = np.ones_like(tokens), np.zeros_like(tokens)
    batch = {
        "tokens": tokens, "example_ids": ones, "positions": np.broadcast_to(np.arange(12, dtype=np.int32), (4, 12)), "segments": zeros,
        "word_starts": ones > 0, "cls_positions": zeros[:, :1], "example_weights": np.ones((4, 1), np.float32), "labels": targets,
    }  # fmt: skip
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-2, warmup_fraction=0.0, decay="constant", weight_decay=0.01), 10)
    state = new_state(params, tiny.lenient(optimizer))
    objective = ExampleObjective(build(description, tokenizer.vocab_size, ComputeConfig()), REGRESSION.measure)
    train, _ = compile_steps(objective, tiny.lenient(optimizer), state, tiny.one_device_mesh(), seed=0)

    model = transformers.AutoModelForSequenceClassification.from_pretrained(published).train()
    names = {"query": "attention.self.query", "value": "attention.self.value", "feed_forward_output": "output.dense"}
    theirs: dict[tuple[str, int], Any] = {}

    class Adapted(torch.nn.Module):
        def __init__(self, a: Any, b: Any) -> None:
            super().__init__()
            self.a, self.b = (torch.nn.Parameter(torch.tensor(np.array(factor))) for factor in (a, b))

        def forward(self, weight: Any) -> Any:
            return weight + config.alpha / config.rank * (self.a @ self.b).T

    for parameter in model.bert.parameters():
        parameter.requires_grad_(False)
    for matrix, own in factors.items():
        for layer in range(2):
            linear = model.get_submodule(f"bert.encoder.layer.{layer}.{names[matrix]}")
            theirs[matrix, layer] = Adapted(own["lora_a"][layer], own["lora_b"][layer])
            torch.nn.utils.parametrize.register_parametrization(linear, "weight", theirs[matrix, layer])
    for parameter in model.bert.pooler.parameters():
        parameter.requires_grad_(True)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    groups = [
        {"params": [p for n, p in trained.items() if n.endswith("bias") == biases], "weight_decay": 0.0 if biases else 0.01}
        for biases in (False, True)
    ]
    adam = torch.optim.AdamW(groups, lr=1e-2, eps=1e-6)
    for _ in range(3):
        state, metrics = train(state, tiny.as_jax(batch))
        adam.zero_grad()
        loss = torch.nn.functional.mse_loss(model(torch.tensor(tokens).long()).logits, torch.tensor(targets))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
        adam.step()
        assert float(metrics["loss"].total / metrics["loss"].count) == pytest.approx(loss.item(), rel=1e-4)
    for (matrix, layer), own in theirs.items():
        for name, wanted in (("lora_a", own.a), ("lora_b", own.b)):
            found = np.asarray(state.params["encoder"]["layers"][matrix][name][layer])
            np.testing.assert_allclose(found, wanted.detach().numpy(), atol=2e-5)
            assert np.abs(found - np.asarray(factors[matrix][name][layer])).max() > 5e-3, "it moved"
    head = np.asarray(state.params["classifier"]["dense"]["kernel"])
    np.testing.assert_allclose(head, model.classifier.weight.detach().numpy().T, atol=2e-5)
    merged = np.asarray(state.model["encoder"]["layers"]["query"]["kernel"][1])
    np.testing.assert_allclose(merged, model.bert.encoder.layer[1].attention.self.query.weight.detach().numpy().T, atol=2e-5)
    frozen, before = tiny.flat(state.frozen), tiny.flat(params)
    assert all(np.array_equal(leaf, before[path]) for path, leaf in frozen.items()) and "embeddings/tokens" in frozen


def test_microbatches_change_nothing() -> None:
    found = []
    for microbatches in (1, 4):
        optimizer = tiny.lenient(make_optimizer(OptimizerConfig(learning_rate=1e-2), 10))
        state = new_state(tiny.factored(), optimizer)
        train, _ = compile_steps(tiny.task(), optimizer, state, tiny.one_device_mesh(), 0, microbatches)
        state, metrics = train(state, tiny.as_jax(tiny.batch()))
        found.append((jax.device_get(state.params), float(metrics["gradient_norm"].total)))
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-4)
    tiny.assert_close(found[0][0], found[1][0], 2e-3)


def test_layer_decay_and_frozen_layers_are_for_factors_too() -> None:
    config = OptimizerConfig(learning_rate=0.1, warmup_fraction=0.0, decay="constant", weight_decay=0.0, layer_decay=0.5, frozen_layers=1)
    optimizer, params = tiny.lenient(make_optimizer(config, 10)), new_state(tiny.factored()).params
    change = jax.jit(lambda: optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)[0])()
    query = np.asarray(change["encoder"]["layers"]["query"]["lora_b"])
    assert not query[0].any() and np.allclose(query[1], -0.05, rtol=1e-3)
    np.testing.assert_allclose(np.asarray(change["pooler"]["dense"]["kernel"]), -0.1, rtol=1e-3)


@pytest.mark.slow
def test_on_a_mesh_factors_are_sharded_like_their_matrix_and_learn_the_same() -> None:
    found = json.loads(children.finish([children.start("lora.py", devices=4)])[0])
    wanted = found.pop("one")
    for name, one in found.items():
        np.testing.assert_allclose(one["losses"], wanted["losses"], rtol=2e-5, err_msg=name)
        np.testing.assert_allclose(one["kernel"], wanted["kernel"], atol=1e-4, err_msg=name)
    assert found["1,2,2"]["shards"] == {"lora_a": [2, 16, 3], "lora_b": [2, 3, 16]} and found["1,2,2"]["merged"] == [2, 16, 16]
    assert found["4,1,1 twice"]["shards"] == {"lora_a": [2, 32, 3], "lora_b": [2, 3, 32]} and found["4,1,1 twice"]["merged"] == [2, 32, 32]


# --- Training ---
class Stopped(Exception):
    """What a test stops a run with."""


class StopsAt:
    """Batches of which one raises."""

    def __init__(self, inner: Any, step: int) -> None:
        self._inner, self._step, self._count = inner, step, 0
        self.get_state, self.set_state, self.close = inner.get_state, inner.set_state, inner.close

    def __next__(self) -> Any:
        self._count += 1
        if self._count == self._step:
            raise Stopped
        return next(self._inner)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_interrupted_it_ends_with_the_same_bits(tmp_path: Path, run: Callable[[Job], int], ema: float) -> None:
    def job(directory: Path, stop: int = 0) -> Job:
        loop = LoopConfig(log_every=2, evaluate_every=6, save_every=3, keep=2)
        made = tiny.job(directory, 6, loop=loop, ema=ema, wrap=lambda batches: StopsAt(batches, stop))
        params = tiny.factored(tiny.IN_JOBS)
        return dataclasses.replace(made, init=lambda: jax.tree.map(jnp.asarray, params))

    run(job(tmp_path / "whole"))
    with pytest.raises(Stopped):
        run(job(tmp_path / "cut", stop=5))
    run(job(tmp_path / "cut"))
    whole, cut = (json.loads((tmp_path / name / "checkpoints" / "6" / "manifest.json").read_text())["content"] for name in ("whole", "cut"))
    assert whole["arrays"] == cut["arrays"] and whole["score"] == cut["score"]
    model = [path for path in whole["arrays"] if path.startswith("params/")]
    assert "params/encoder/layers/query/kernel" in model and not any("lora" in path for path in model)
    assert ("optimizer/average/encoder/layers/query/lora_a" in whole["arrays"]) == (ema > 0)
    shapes = tiny.initial_parameters(tiny.IN_JOBS)
    from toy import parameters, same_bits

    first, second = (parameters(tmp_path / name, 6, shapes) for name in ("whole", "cut"))
    assert same_bits(first, second)
    before = tiny.flat(shapes)
    assert not np.array_equal(first["encoder/layers/query/kernel"], before["encoder/layers/query/kernel"])
    assert not np.array_equal(first["masked_token/bias"], before["masked_token/bias"])
    for path in ("embeddings/tokens", "encoder/layers/key/kernel", "encoder/layers/query/bias", "encoder/layers/attention_norm/scale"):
        np.testing.assert_array_equal(first[path], before[path])


@pytest.fixture(scope="module")
def folder(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    loop = "loop=LoopConfig(log_every=5, evaluate_every=4, save_every=4)"
    write_files(folder, 20, 10, "steps=2", f'checkpoint="{published / "ours"}", {loop}')
    rng = np.random.default_rng(0)
    texts = ["".join(chr(0x4E00 + i) for i in rng.integers(0, 55, rng.integers(2, 20))) for _ in range(60)]
    (folder / "lengths.tsv").write_text("text\tscore\n" + "".join(f"{text}\t{len(text) / 10}\n" for text in texts), encoding="utf-8")
    return folder


OPTIONS = ("pretrain=none", "finetune.task=regress", "finetune.epochs=2", "finetune.optimizer.learning_rate=5e-3")


def overrides(folder: Path, *more: str) -> list[str]:
    return [*OPTIONS, f"finetune.data.train={folder / 'lengths.tsv'}", *more]


def test_a_finished_model_is_merged(folder: Path, published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    run_all(configured(str(folder / "config.py"), overrides(folder, "finetune.lora.rank=2")), tmp_path / "run")
    model, before = bert_jax.load(tmp_path / "run" / "finetune"), bert_jax.load(published / "ours")
    whole = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    trained = 2 * 2 * 2 * (32 * 2) + 32 * 32 + 32 + 32 + 1  # two matrices of two layers with two factors, pooler, classifier
    assert f"finetune  trains {trained:,} parameters; the model has {whole:,}" in capsys.readouterr().err.splitlines()[0]
    found, wanted = tiny.flat(model.params), tiny.flat(before.params)
    for path, leaf in found.items():
        if path in ("encoder/layers/query/kernel", "encoder/layers/value/kernel"):
            values = np.linalg.svd(leaf - wanted[path], compute_uv=False)
            assert (values[:, 1] > 1e-4).all() and (values[:, 2:] < 1e-5).all(), "of rank 2"
        elif path.startswith(("embeddings", "encoder")):
            np.testing.assert_array_equal(leaf, wanted[path], err_msg=path)
        else:
            assert not np.array_equal(leaf, wanted[path]), path
    lines = [json.loads(line) for line in (tmp_path / "run" / "finetune" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = [line["text"] for line in lines]
    np.testing.assert_allclose(model.regress(texts), [line["predicted"] for line in lines], atol=1e-5)
    export_model(tmp_path / "run" / "finetune", tmp_path / "out")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")(texts, return_tensors="pt", padding=True)
    with torch.no_grad():
        np.testing.assert_allclose(model.regress(texts), theirs(**tokens).logits[:, 0].numpy(), atol=1e-5)
    assert bert_jax.cli.main(["verify", str(tmp_path / "run")]) == 0


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("matrices=query,pooler", "finetune.lora: The configuration value matrices='pooler' is invalid: name some of query, key, value"),
        ("matrices=query,query", "each once"),
        ("matrices=", "at least one matrix"),
        ("rank=-1", "must not be negative"),
        ("alpha=0", "greater than zero"),
    ],
)
def test_values_that_make_no_sense_are_refused(folder: Path, value: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        configured(str(folder / "config.py"), ["finetune.lora.rank=2", f"finetune.lora.{value}"])


def test_a_random_encoder_and_a_rank_above_that_of_the_matrix_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=r"not a random one; set it to 0, or drop finetune\.compare_from_scratch"):
        configured(str(folder / "config.py"), ["finetune.lora.rank=2", "finetune.compare_from_scratch=true"])
    given = [f"--config.{value}" for value in overrides(folder, "finetune.lora.rank=33", "finetune.lora.matrices=feed_forward")]
    error = failure(capsys, "train", f"--config={folder / 'config.py'}", f"--workdir={tmp_path / 'run'}", *given)
    assert "finetune.lora.rank=33 exceeds the smaller side of a matrix of the encoder, 32" in error
