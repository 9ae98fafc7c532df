"""Launch plans: what a compiled program takes, and the true step compiled for TPUs that are not here."""

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from command_line import failure, ok
from jax.sharding import NamedSharding

from bert_jax.config import ComputeConfig, EncoderConfig, MaskingConfig, MeshConfig, PretrainConfig, RowsConfig, RunConfig
from bert_jax.modalities.image.modality import ImagesConfig
from bert_jax.modalities.media.options import CodebookConfig
from bert_jax.model.flops import forward_flops, training_flops
from bert_jax.model.fused_attention import splash_attention
from bert_jax.model.per_device import ROWS, ROWS_AND_HEADS
from bert_jax.stages import plan
from bert_jax.training.compiled import collectives
from bert_jax.training.masking import masked_slots
from bert_jax.training.sharding import make_mesh

ROOT = Path(__file__).resolve().parents[1]
needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
SMALL = ["--config.encoder.layers=2", "--config.encoder.width=256", "--config.encoder.heads=2", "--config.encoder.feed_forward=512"]
DENSE = "--config.compute.attention=dense"
CONFIG = f"--config={ROOT / 'configs/pretrain_base_en.py'}"

# A loop of twelve layers, each of which sums 1,000 floats over four devices; a gather to 64 halves over eight, begun and ended; a
# sum of eleven floats over one axis of a mesh; a gather over an axis of devices in another order; a sum of which each of two keeps half.
PROGRAM = """HloModule jit_step, is_scheduled=true

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add = f32[] add(f32[] %a, f32[] %b)
}

%body (arg: (s32[], f32[1000])) -> (s32[], f32[1000]) {
  %arg = (s32[], f32[1000]) parameter(0)
  %x = f32[1000]{0} get-tuple-element((s32[], f32[1000]) %arg), index=1
  %all-reduce.1 = f32[1000]{0} all-reduce(f32[1000]{0} %x), channel_id=1, replica_groups={{0,1,2,3}}, to_apply=%sum
  ROOT %out = (s32[], f32[1000]) tuple(s32[] %i, f32[1000]{0} %all-reduce.1)
}

%cond (arg: (s32[], f32[1000])) -> pred[] {
  %arg.1 = (s32[], f32[1000]) parameter(0)
  %limit = s32[]{:T(128)} constant(12)
  ROOT %less = pred[] compare(s32[] %i, s32[] %limit), direction=LT
}

%all-reduce-scatter.1 (input: bf16[64]) -> bf16[32] {
  %all-reduce.2 = bf16[64]{0} all-reduce(bf16[64]{0} %input), channel_id=3, replica_groups={{0,1},{2,3}}, to_apply=%sum
  ROOT %half = bf16[32]{0} dynamic-slice(bf16[64]{0} %all-reduce.2, %i), dynamic_slice_sizes={32}
}

ENTRY %main (p0: f32[1000]) -> f32[1000] {
  %p0 = f32[1000]{0} parameter(0)
  %loop = (s32[], f32[1000]) while((s32[], f32[1000]) %t), condition=%cond, body=%body
  %ag = (bf16[8]{0}, bf16[64]{0}) all-gather-start(bf16[8]{0} %h), channel_id=2, replica_groups=[2,8]<=[16], dimensions={0}
  %ar = (f32[]{:T(128)}, f32[10]{0}) all-reduce(%a, %b), replica_groups=mesh['data'=4,'fsdp'=2] {'data'}, to_apply=%sum
  %ordered = bf16[16]{0} all-gather(%h), replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}, dimensions={0}
  %part = bf16[32]{0} fusion(bf16[64]{0} %h), kind=kCustom, calls=%all-reduce-scatter.1
  %agd = bf16[64]{0} all-gather-done((bf16[8]{0}, bf16[64]{0}) %ag)
  ROOT %r = f32[1000]{0} get-tuple-element((s32[], f32[1000]) %loop), index=1
}
"""


def test_collectives_are_counted_as_often_as_they_run() -> None:
    gather, reduce, scatter = collectives(PROGRAM)
    assert (gather.kind, gather.count, gather.sent_bytes) == ("all-gather", 2, 64 * 2 * 7 / 8 + 16 * 2 * 3 / 4)
    assert (scatter.kind, scatter.count, scatter.sent_bytes) == ("reduce-scatter", 1, 64 * 2 / 2)
    assert (reduce.kind, reduce.count, reduce.sent_bytes) == ("all-reduce", 13, pytest.approx((12 * 4000 + 44) * 2 * 3 / 4))


def test_flops_are_those_of_the_compiler_for_the_same_products() -> None:
    encoder = EncoderConfig(layers=3, width=32, heads=2, feed_forward=64, max_positions=16)
    # Different matrices, as the compiler computes the same product once.
    x, w, a, b, c, v = (jnp.full(shape, i) for i, shape in enumerate([(16, 32), *[(32, 32)] * 4, (32, 100)]))
    up, down = jnp.zeros((32, 64)), jnp.zeros((64, 32))

    def forward(x: jax.Array, w: jax.Array, a: jax.Array, b: jax.Array, c: jax.Array) -> jax.Array:
        for _ in range(3):
            query, key, value = x @ a, x @ b, x @ c
            for head in (slice(0, 16), slice(16, 32)):
                x = x.at[:, head].set((query[:, head] @ key[:, head].T) @ value[:, head])
            x = (x @ w) @ up @ down
        return ((x[:5] @ w) @ v).sum() + ((x[:2] @ a) @ w[:, :2]).sum()

    # With little else in the program than the products, the compiler counts a few percent more.
    counted = jax.jit(forward).lower(x, w, a, b, c).compile().cost_analysis()["flops"]
    forward_count = forward_flops(encoder, 100, 5, 2).upper_bound(1, 16)
    assert forward_count == pytest.approx(counted, rel=0.05)
    assert training_flops(encoder, 100, 8 * 5, 8 * 2).upper_bound(8, 16) == 24 * forward_count


@needs_libtpu
def test_the_step_is_compiled_for_a_slice_that_is_not_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ok("compile", CONFIG, "--topology=v5e:4x4", f"--json={tmp_path / 'plan.json'}", "--quick", *SMALL, "--config.mesh.fsdp=4")
    shown = capsys.readouterr().out
    assert "16 (v5e:4x4), data 4 x fsdp 4 x tensor 1" in shown and "MFU" in shown
    found = json.loads((tmp_path / "plan.json").read_text())
    assert found["fits"] and found["chips"] == 16
    # Two moments for each parameter, and the step.
    assert found["optimizer"] == pytest.approx(2 * found["parameters"], rel=0.01)
    # The gradients are summed over all chips, whatever the compiler makes of it: at least 2 (n - 1) / n bytes a parameter's byte.
    assert sum(c["sent_bytes"] for c in found["collectives"]) > found["parameters"]
    ok("compile", CONFIG, "--topology=v5e:4x4", f"--json={tmp_path / 'rounds.json'}", "--quick", *SMALL,
       "--config.pretrain.gradient_accumulation_steps=4")  # fmt: skip
    rounds = json.loads((tmp_path / "rounds.json").read_text())
    assert rounds["fits"] and sum(c["sent_bytes"] for c in rounds["collectives"]) < 2 * rounds["parameters"], "summed once"
    assert 0 < found["utilization"] <= 1 and found["step_seconds"] >= found["compute_seconds"] > 0


@needs_libtpu
def test_what_does_not_fit_is_said_before_it_is_paid_for(capsys: pytest.CaptureFixture[str]) -> None:
    # Two layers whose scores of 32 rows a chip take 12 GiB each.
    ok("compile", CONFIG, "--topology=v5e:2x2", "--quick", *SMALL, "--config.pretrain.batch_size=8192", DENSE)
    assert "NO: " in capsys.readouterr().out


@needs_libtpu
def test_bad_topologies_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "v5e" in failure(capsys, "compile", CONFIG, "--topology=v9:2x2")
    assert "v5e:3x7" in failure(capsys, "compile", CONFIG, "--topology=v5e:3x7")
    assert "a multiple of" in failure(capsys, "compile", CONFIG, "--topology=v5e:4x4", "--config.pretrain.batch_size=250")


@needs_libtpu
def test_splash_attention_is_compiled_by_the_tpu_s_compiler_and_holds_no_weights() -> None:
    devices = plan.topology_devices("v5e:2x2")
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=2), 4, devices)
    rows, heads = NamedSharding(mesh, ROWS), NamedSharding(mesh, ROWS_AND_HEADS)
    made = [jax.ShapeDtypeStruct((4, 512, 4, 64), jnp.bfloat16, sharding=heads)] * 3
    ids = jax.ShapeDtypeStruct((4, 512), jnp.int32, sharding=rows)

    def gradients(example_ids: jax.Array, *made: jax.Array) -> tuple[jax.Array, ...]:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return jax.grad(lambda *made: splash_attention(*made, example_ids).astype(jnp.float32).sum(), (0, 1, 2))(*made)

    text = jax.jit(gradients).lower(ids, *made).compile().as_text()
    assert "tpu_custom_call" in text and "512,512]" not in text


def images(length: int) -> RunConfig:
    """A small model of images of 64 patches, in rows of some length."""
    return RunConfig(
        encoder=EncoderConfig(layers=2, width=128, heads=2, feed_forward=256, attention_dropout=0.0, position_initializer="sinusoidal"),
        compute=ComputeConfig(dtype="bfloat16"),
        corpus=ImagesConfig(),
        vocabulary=CodebookConfig(size=507),
        pretrain=PretrainConfig(batch_size=32, rows=RowsConfig(length=length), masking=MaskingConfig(whole_words=True)),
    )


@needs_libtpu
def test_a_step_on_images_is_planned_with_its_units() -> None:
    config = images(128)
    found = plan.plan_launch(config, "v5e:2x2", quick=True)
    assert found.fits and found.chips == 4
    # 8 rows a chip: pixels of a patch, four numbers and a word start for each position; three numbers for each example.
    assert found.batch == 8 * (128 * (48 + 4 * 4 + 1) + 8 * 3 * 4)
    masked, examples = masked_slots(128, config.pretrain.masking), config.pretrain.rows.examples_per_row  # type: ignore[union-attr]
    assert found.flops == training_flops(config.encoder, 512, 32 * masked, 32 * examples, units=48).upper_bound(32, 128) / 4
    embeddings = (512 + 512 + 2 + 2 + 48 + 1) * 128  # tokens, positions, segments, norm, and the projection with its bias
    heads = 512 + 3 * 128 + 128 * 128 + 128 * 128 + 128 + 2 * 128 + 2
    layer = 4 * (128 * 128 + 128) + 2 * 128 * 256 + 256 + 128 + 4 * 128
    assert found.parameters == 4 * (embeddings + 2 * layer + heads)


@needs_libtpu
@pytest.mark.parametrize(("length", "splash"), [(128, True), (192, False), (256, True)])
def test_images_use_splash_attention_if_their_rows_allow_it(length: int, splash: bool) -> None:
    config = images(length)
    assert config.pretrain is not None
    mesh = make_mesh(MeshConfig(fsdp=2), 32, plan.topology_devices("v5e:2x2"))
    lowered, _, batch = plan.lower_step(config, config.pretrain, mesh)
    assert batch["units"].shape == (32, length, 48) and batch["units"].dtype == jnp.uint8
    assert ("tpu_custom_call" in lowered.as_text()) == splash


@needs_libtpu
def test_images_need_a_codebook(capsys: pytest.CaptureFixture[str]) -> None:
    found = failure(capsys, "compile", CONFIG, "--topology=v5e:2x2", "--config.corpus=image")
    assert "--config.vocabulary=codebook" in found
