"""What "auto" means: unrolled where that is faster, scanned where it is not, and the same in training, plans and inference."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import pytest
import tiny

import bert_jax
from bert_jax.config import ComputeConfig, EncoderConfig, MeshConfig, PretrainConfig, RowsConfig, RunConfig, VocabularyConfig, to_dict
from bert_jax.config.overrides import apply_overrides, from_dict, load_config
from bert_jax.errors import InputError
from bert_jax.model.resolution import resolve_compute
from bert_jax.stages.plan import lower_step
from bert_jax.training.sharding import make_mesh

DEEP = dataclasses.replace(tiny.ENCODER, layers=25)


@pytest.mark.parametrize(
    ("platform", "encoder", "scanned"),
    [
        ("cpu", EncoderConfig.preset("base"), False),
        ("gpu", EncoderConfig.preset("large"), False),
        ("tpu", EncoderConfig.preset("tiny"), True),
        ("gpu", DEEP, True),
        ("cpu", DEEP, True),
    ],
)
def test_layers_are_unrolled_where_that_is_faster(platform: str, encoder: EncoderConfig, scanned: bool) -> None:
    assert resolve_compute(ComputeConfig(), encoder, [128], platform).scan_layers is scanned
    for given in (True, False):
        assert resolve_compute(ComputeConfig(scan_layers=given), encoder, [128], platform).scan_layers is given


def test_attention_is_resolved_for_training_alone() -> None:
    encoder, half = EncoderConfig.preset("base", attention_dropout=0.0), ComputeConfig(dtype="bfloat16")
    assert resolve_compute(half, encoder, [512], "gpu") == dataclasses.replace(half, attention="cudnn", scan_layers=False, fused=())
    assert resolve_compute(half, encoder, (), "gpu").attention == "auto"
    with pytest.raises(InputError, match="needs a GPU"):
        resolve_compute(dataclasses.replace(half, attention="cudnn"), encoder, [512], "cpu")


def lowered(layers: int, **compute: Any) -> str:
    """The training step of a plan on this machine."""
    stage = PretrainConfig(batch_size=2, rows=RowsConfig(length=16))
    encoder = dataclasses.replace(tiny.ENCODER, layers=layers)
    config = RunConfig(encoder=encoder, compute=ComputeConfig(**compute), vocabulary=VocabularyConfig(size=64), pretrain=stage)
    program: str = lower_step(config, stage, make_mesh(MeshConfig(), 2, jax.devices()[:1]))[0].as_text()
    return program


def test_a_planned_step_is_the_one_that_trains() -> None:
    assert lowered(2) == lowered(2, scan_layers=False) != lowered(2, scan_layers=True)


def test_a_loaded_model_has_nothing_left_to_resolve(tiny_pretrained: Path) -> None:
    loaded = bert_jax.load(tiny_pretrained)
    assert loaded._model.forward.model.compute.scan_layers is False
    assert bert_jax.load(tiny_pretrained, ComputeConfig(scan_layers=True))._model.forward.model.compute.scan_layers is True


def test_values_of_earlier_versions_are_read() -> None:
    for stored in (True, False, "auto"):
        values = to_dict(RunConfig()) | {"compute": {"scan_layers": stored}}
        found = from_dict(RunConfig, values).compute.scan_layers
        assert found == stored and type(found) is type(stored)
    assert apply_overrides(RunConfig(), ["compute.scan_layers=FALSE"]).compute.scan_layers is False
    assert apply_overrides(RunConfig(), ["compute.scan_layers=auto"]).compute.scan_layers == "auto"
    assert load_config("pretrain_base_en").compute.scan_layers == "auto"
    with pytest.raises(InputError, match=r"compute\.scan_layers=1 is invalid: it must be one of true, false, auto"):
        from_dict(RunConfig, to_dict(RunConfig()) | {"compute": {"scan_layers": 1}})
