"""A device that runs out of memory: one paragraph that says what to set, and inference that goes on with smaller batches."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_line import failure
from jax.sharding import AbstractMesh
from small_run import write_files

import bert_jax
import train
from bert_jax.config import ComputeConfig, LongRowsConfig, PretrainConfig
from bert_jax.errors import InputError
from bert_jax.inference import forward
from bert_jax.runtime.device_memory import memory_advice
from bert_jax.stages.memory import pretraining_advice
from bert_jax.stages.pretrain import stage_parts
from bert_jax.training import loop as loop_room

AXES = ("data", "fsdp", "tensor")
ON_A_GPU = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 35433480192 bytes.\nBufferAssignment OOM Debugging.\nmore lines"
ON_A_TPU = "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 20.0G of 15.75G hbm."


def full(message: str = ON_A_GPU) -> Any:
    """A compiled step on a device without room for it."""

    def step(*arguments: Any, **others: Any) -> Any:
        raise jax.errors.JaxRuntimeError(message)

    return step


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    loop = "loop=LoopConfig(log_every=1, evaluate_every=1, save_every=1)"
    path = write_files(tmp_path_factory.mktemp("files"), 60, 80, f"steps=1, evaluation_batches=1, {loop}", f"{loop}")
    return f"--config={path}"


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The paragraph of a training command that fails."""
    assert train.main([*arguments]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: ") and "Traceback" not in message
    return message


def test_pre_training_that_does_not_fit_says_what_to_set_and_resumes_so(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, compile_steps = (config, f"--workdir={tmp_path / 'run'}", "--config.finetune=none"), loop_room.compile_steps
    with monkeypatch.context() as patch:
        patch.setattr(loop_room, "compile_steps", lambda *arguments: (full(ON_A_TPU), full()))
        message = told(capsys, *arguments)
    assert "Used 20.0G of 15.75G hbm" in message and "--config.compute.remat=full" in message
    setting = "--config.pretrain.gradient_accumulation_steps=2"
    assert f"{setting}, which computes the 8 rows of a step in microbatches of 4 rows" in message
    with monkeypatch.context() as patch:
        patch.setattr(loop_room, "compile_steps", lambda *arguments: (compile_steps(*arguments)[0], full()))
        message = told(capsys, *arguments, setting)
    assert "35433480192 bytes.)" in message and "BufferAssignment" not in message, "the first line of XLA's"
    assert "gradient_accumulation_steps=4" in message
    assert train.main([*arguments, setting]) == 0


def test_fine_tuning_that_does_not_fit(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_room, "compile_steps", lambda *arguments: (full(), full()))
    scratch = ("--config.pretrain=none", "--config.finetune.from_scratch=true")
    message = told(capsys, config, f"--workdir={tmp_path / 'run'}", *scratch)
    assert "--config.compute.remat=full" in message and "--config.finetune.batch_size (now 8)" in message
    message = told(capsys, config, f"--workdir={tmp_path / 'pairs'}", *scratch, "--config.finetune.task=embed",
                   "--config.finetune.data.text_pair=label")  # fmt: skip
    assert "--config.finetune.task.microbatches (now 1)" in message


def test_the_error_that_xla_raises() -> None:
    wanted = r"The CPU ran out of memory in counting \(XLA: Out of memory allocating \d+ bytes\.\)\. Count less\."
    with pytest.raises(InputError, match=wanted), memory_advice("counting", "Count less."):
        jax.jit(lambda: jnp.zeros(2**45))()


def test_other_errors_of_xla_are_not_hidden(config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_room, "compile_steps", lambda *arguments: (full("INTERNAL: a bug"),) * 2)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL: a bug"):
        train.main([config, f"--workdir={tmp_path / 'run'}", "--config.finetune=none"])


def test_the_advice_fits_the_devices_and_both_kinds_of_rows() -> None:
    long = LongRowsConfig(share=0.5, batch_size=16, gradient_accumulation_steps=2)
    stage, mesh = PretrainConfig(batch_size=24, gradient_accumulation_steps=3, long_rows=long), AbstractMesh((2, 2, 1), AXES)
    advice = pretraining_advice(stage_parts(stage), ComputeConfig(remat="full"), mesh)
    assert "Set --config.pretrain.gradient_accumulation_steps=6, which computes the 24 rows of a step in microbatches of 4 rows" in advice
    assert "For the long rows, set --config.pretrain.long_rows.gradient_accumulation_steps=4" in advice and "remat" not in advice
    undivided = pretraining_advice([PretrainConfig(batch_size=4)], ComputeConfig(), mesh)
    assert undivided.startswith("Set --config.compute.remat=full") and "gradient_accumulation_steps" not in undivided
    nothing_left = pretraining_advice([PretrainConfig(batch_size=4)], ComputeConfig(remat="full"), mesh)
    assert nothing_left.startswith("Lower --config.pretrain.batch_size")


class Small:
    """A device with room for batches of so many tokens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
        self.tried: list[int] = []
        inner = forward._encode

        def encode(model: Any, params: Any, batch: Any, layer: int | None = None) -> Any:
            self.tried.append(batch["tokens"].size // len(jax.local_devices()))
            if self.tried[-1] > tokens:
                raise jax.errors.JaxRuntimeError(ON_A_GPU)
            return inner(model, params, batch, layer=layer)

        monkeypatch.setattr(forward, "_encode", encode)


def test_inference_goes_on_with_smaller_batches(tiny_pretrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["好" * (5 + i % 9) for i in range(900)]
    wanted = bert_jax.load(tiny_pretrained).embed(texts)
    small, bert = Small(monkeypatch, 512), bert_jax.load(tiny_pretrained)
    with pytest.warns(UserWarning, match=r"continues with batches of (1,024|512) tokens"):
        np.testing.assert_allclose(bert.embed(texts), wanted, atol=1e-5)
    assert max(small.tried) > 1024 and small.tried[-1] <= 512
    small.tried.clear()
    bert.embed(texts)
    assert max(small.tried) <= 512, "it does not try again what did not fit"


@pytest.mark.filterwarnings("ignore:The device ran out of memory")
def test_a_device_without_any_room_is_given_up(
    tiny_pretrained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = Small(monkeypatch, 0)
    message = failure(capsys, "embed", tiny_pretrained, "好")
    assert "ran out of memory in inference" in message and "JAX_PLATFORMS=cpu" in message
    assert 1 < len(small.tried) < 10
    monkeypatch.setattr("bert_jax.inference.bert.load_model", full())
    with pytest.raises(InputError, match="ran out of memory in loading the model"):
        bert_jax.load(tiny_pretrained)
