"""A launch looked at before it is paid for: the training step compiled by the TPU's own compiler for TPUs that are not here."""

import dataclasses
import importlib.util
import os
import time
from dataclasses import dataclass
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding

from bert_jax.config import PretrainConfig, RunConfig
from bert_jax.errors import InputError
from bert_jax.model.attention import resolve_attention
from bert_jax.model.batch import FIELDS, PREPARED, zero_row
from bert_jax.model.directory import ModelDescription
from bert_jax.model.flops import training_flops
from bert_jax.model.per_device import ROWS
from bert_jax.tasks.pretraining import PRETRAINING
from bert_jax.tasks.pretraining.objective import PretrainingObjective
from bert_jax.tasks.stored import build
from bert_jax.training.compiled import Collective, bytes_per_device, collectives
from bert_jax.training.masking import masked_slots
from bert_jax.training.optimizer import make_optimizer
from bert_jax.training.peak import published_flops
from bert_jax.training.sharding import make_mesh, platform
from bert_jax.training.state import planned_state
from bert_jax.training.steps import compile_steps

_GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """Published figures of a TPU chip's memory and links, from Google Cloud's pages on its system architecture."""

    memory: float
    """HBM, bytes."""
    memory_bandwidth: float
    """Bytes a second."""
    link_bandwidth: float
    """Bytes a second that leave the chip to its neighbours, over all links."""


CHIPS = {
    "v4": Chip(32 * _GIB, 1228e9, 150e9),
    "v5e": Chip(16 * _GIB, 819e9, 100e9),
    "v5p": Chip(95 * _GIB, 2765e9, 300e9),
    "v6e": Chip(32 * _GIB, 1640e9, 224e9),
}


# Without these libtpu asks the cloud's metadata server which TPU it is on, and takes a lock as if it were on one. Which TPU is
# named here makes no difference to what is compiled.
_WITHOUT_A_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}

# The compiler does not try as hard to make the program fast.
_LITTLE_EFFORT = {"exec_time_optimization_effort": -1.0}


@dataclass(frozen=True)
class LaunchPlan:
    """What the compiler says of one training step; sizes are bytes on each chip."""

    topology: str
    chips: int
    mesh: dict[str, int]
    rows: int
    length: int
    compile_seconds: float
    fits: bool
    problem: str
    """The compiler's words, if the program does not fit."""
    parameters: int
    """Of the model, and of their moving average if one is kept."""
    optimizer: int
    batch: int
    temporary: int
    memory: int
    """What a chip has."""
    flops: float
    """Operations of the model's matrix products in a step, on each chip."""
    moved_bytes: float
    """Between HBM and the chip, in a step, as the compiler counts them; with microbatches, as if they were one."""
    collectives: list[Collective]
    compute_seconds: float
    memory_seconds: float
    communication_seconds: float
    step_seconds: float
    """The longest of the three, as if the others hid behind it: no step is faster."""
    tokens_per_second: float
    """Of the whole slice, padding counted."""
    utilization: float
    """The model's operations as a share of the chips' peak (MFU), at that step time."""

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        # Also under the key that earlier versions wrote.
        return dataclasses.asdict(self) | {"utilisation": self.utilization}

    def __str__(self) -> str:
        """A table."""
        axes = " x ".join(f"{name} {size}" for name, size in self.mesh.items())
        lines = [
            ("chips", f"{self.chips} ({self.topology}), {axes}"),
            ("step", f"{self.rows:,} rows of {self.length} tokens; compiled in {self.compile_seconds:.0f} s"),
            ("fits", "yes" if self.fits else f"NO: {self.problem}"),
            ("memory of a chip", _size(self.memory)),
            ("  parameters", _size(self.parameters)),
            ("  optimizer state", _size(self.optimizer)),
            ("  batch", _size(self.batch)),
        ]
        if self.fits:
            lines += [
                ("  activations and the rest", _size(self.temporary)),
                ("operations", f"{self.flops / 1e12:.2f} T on each chip: at least {1e3 * self.compute_seconds:.1f} ms"),
                ("memory traffic", f"{_size(self.moved_bytes)}: at least {1e3 * self.memory_seconds:.1f} ms"),
                ("communication", f"at least {1e3 * self.communication_seconds:.1f} ms" if self.collectives else "none"),
                *((f"  {c.kind}", f"{c.count}, {_size(c.sent_bytes)} sent by each chip") for c in self.collectives),
                ("step time", f"at least {1e3 * self.step_seconds:.1f} ms"),
                ("tokens a second", f"at most {self.tokens_per_second:,.0f}"),
                ("MFU", f"at most {100 * self.utilization:.0f} %"),
            ]
        width = max(len(name) for name, _ in lines)
        return "\n".join(f"{name:{width}}  {value}" for name, value in lines)


def _size(count: float) -> str:
    for unit, size in (("GiB", _GIB), ("MiB", 2**20)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count / 2**10:.1f} KiB"


def plan_launch(config: RunConfig, topology: str, quick: bool = False) -> LaunchPlan:
    """Compiles the pre-training step of a configuration for a TPU topology, such as `v5e:16x16`, on any Linux machine.

    The vocabulary has `vocabulary.size` tokens, as if it were trained. The compiler is that of a real TPU, out of the
    package libtpu; nothing is run, and times are a roofline of published peaks.

    Args:
        quick: let the compiler optimize little. It takes a quarter of the time, and finds a little more memory and
            communication than the program that would run.

    Raises:
        InputError: no pre-training stage, an unknown topology, a mesh that does not fit it, or libtpu is missing.
    """
    stage = config.pretrain
    if stage is None:
        raise InputError("This configuration has no pre-training stage, so there is no step to compile: name another --config.")
    chip = CHIPS.get(topology.partition(":")[0])
    if chip is None:
        raise InputError(f"There is no TPU topology {topology!r}: name one as KIND:SHAPE, such as v5e:4x4, of {', '.join(CHIPS)}.")
    devices = topology_devices(topology)
    peak = published_flops(devices[0].device_kind)
    assert peak, devices[0].device_kind
    mesh = make_mesh(config.mesh, stage.batch_size // stage.gradient_accumulation_steps, devices)
    lowered, state, batch = lower_step(config, stage, mesh)
    begun = time.perf_counter()
    problem, temporary, moved, found = "", 0, 0.0, list[Collective]()
    try:
        program = lowered.compile(_LITTLE_EFFORT if quick else None)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        problem = next((line.strip() for line in str(error).splitlines() if "hbm" in line.lower()), str(error).splitlines()[0])
    else:
        temporary, found = program.memory_analysis().temp_size_in_bytes, collectives(program.as_text())
    seconds = time.perf_counter() - begun
    if not problem:
        moved = _moved_bytes(config, stage, mesh)
    rows, length = stage.batch_size, stage.rows.length
    slots = masked_slots(length, stage.masking)
    flops = training_flops(config.encoder, config.vocabulary.size, rows, length, slots, stage.rows.examples_per_row) / mesh.size
    times = (flops / peak, moved / chip.memory_bandwidth, sum(c.sent_bytes for c in found) / chip.link_bandwidth)
    return LaunchPlan(
        topology,
        chips=mesh.size,
        mesh=dict(mesh.shape),
        rows=rows,
        length=length,
        compile_seconds=seconds,
        fits=not problem,
        problem=problem,
        parameters=bytes_per_device((state.params, state.average)),
        optimizer=bytes_per_device(state.optimizer_state),
        batch=bytes_per_device(batch),
        temporary=temporary,
        memory=int(chip.memory),
        flops=flops,
        moved_bytes=moved,
        collectives=found,
        compute_seconds=times[0],
        memory_seconds=times[1],
        communication_seconds=times[2],
        step_seconds=max(times),
        tokens_per_second=rows * length / max(times),
        utilization=flops / max(times) / peak,
    )


def topology_devices(topology: str) -> list[Any]:
    """The chips of a TPU topology, for which programs can be compiled.

    Raises:
        InputError: libtpu is missing, or knows no such topology.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise InputError("The TPU's compiler is missing: pip install libtpu (Linux, x86-64).")
    for name, value in _WITHOUT_A_TPU.items():
        os.environ.setdefault(name, value)
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)
    except jax.errors.JaxRuntimeError as error:
        raise InputError(f"The TPU's compiler knows no topology {topology!r}: {str(error).splitlines()[0]}") from None


def lower_step(config: RunConfig, stage: PretrainConfig, mesh: Mesh) -> tuple[Any, Any, Any]:
    """The training step of a configuration on a mesh whose devices need not exist: lowered, and the shapes of its state and batch."""
    vocab_size = config.vocabulary.size
    description = ModelDescription(PRETRAINING.kind, config.encoder, stage.rows.length, stage.rows.next_sentence)
    compute = resolve_attention(config.compute, config.encoder, [stage.rows.length], platform(mesh))
    model = build(description, vocab_size, compute)
    # A trained vocabulary begins with the five special tokens.
    task = PretrainingObjective(model, stage.masking, tuple(range(5)), 4, tuple(range(5, vocab_size)))
    optimizer = make_optimizer(stage.optimizer, stage.steps)
    batch = _batch(stage, mesh)

    def init() -> Any:
        return model.init(jax.random.key(config.seed), zero_row())["params"]

    skip_above, ema = stage.optimizer.skip_above, stage.optimizer.ema
    state = planned_state(init, optimizer, mesh, track_loss=skip_above > 0, average=ema > 0)
    train_step, _ = compile_steps(task, optimizer, state, mesh, config.seed, stage.gradient_accumulation_steps, skip_above, ema)
    return train_step.lower(state, batch), state, batch  # type: ignore[attr-defined]


def _moved_bytes(config: RunConfig, stage: PretrainConfig, mesh: Mesh) -> float:
    """What moves between HBM and a chip in a step.

    The compiler counts a loop once. So it is asked about encoders of one and of two layers, without loops: the difference is
    what a layer takes. How well it schedules does not change that count.
    """

    def moved(layers: int) -> float:
        encoder = dataclasses.replace(config.encoder, layers=layers)
        plain = dataclasses.replace(config, encoder=encoder, compute=dataclasses.replace(config.compute, scan_layers=False))
        lowered, _, _ = lower_step(plain, dataclasses.replace(stage, gradient_accumulation_steps=1), mesh)
        return float(lowered.compile(_LITTLE_EFFORT).cost_analysis()["bytes accessed"])

    one, two = moved(1), moved(2)
    return one + (config.encoder.layers - 1) * (two - one)


def _batch(stage: PretrainConfig, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of the one batch (docs/architecture.md)."""
    sizes, sharding = {"L": stage.rows.length, "E": stage.rows.examples_per_row}, NamedSharding(mesh, ROWS)
    fields = {name: FIELDS[name] for name in PREPARED}
    return {
        name: jax.ShapeDtypeStruct((stage.batch_size, sizes[axis]), dtype, sharding=sharding) for name, (axis, dtype) in fields.items()
    }
