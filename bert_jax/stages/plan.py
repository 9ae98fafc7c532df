"""Launch planning: compiles a training step with the TPU compiler, without a TPU, and estimates its memory use and speed."""

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
from bert_jax.data.reader import Units
from bert_jax.errors import InputError
from bert_jax.modalities import find
from bert_jax.modalities.base import Expected
from bert_jax.model.batch import FIELDS, PREPARED, zero_row
from bert_jax.model.directory import InputDescription, ModelDescription
from bert_jax.model.per_device import ROWS
from bert_jax.model.resolution import resolve_compute
from bert_jax.stages.pretrain import step_flops
from bert_jax.tasks.pretraining import PRETRAINING
from bert_jax.tasks.pretraining.objective import PretrainingObjective
from bert_jax.tasks.stored import build
from bert_jax.training.compiled import Collective, bytes_per_device, collectives
from bert_jax.training.optimizer import make_optimizer
from bert_jax.training.peak import published_flops
from bert_jax.training.sharding import make_mesh, platform
from bert_jax.training.state import planned_state
from bert_jax.training.steps import compile_steps

_GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """Published specifications of a TPU chip's memory and links, from Google Cloud's system architecture pages."""

    memory: float
    """HBM capacity, in bytes."""
    memory_bandwidth: float
    """HBM bandwidth, in bytes/s."""
    link_bandwidth: float
    """Outgoing bandwidth to neighboring chips over all links, in bytes/s."""


CHIPS = {
    "v4": Chip(32 * _GIB, 1228e9, 150e9),
    "v5e": Chip(16 * _GIB, 819e9, 100e9),
    "v5p": Chip(95 * _GIB, 2765e9, 300e9),
    "v6e": Chip(32 * _GIB, 1640e9, 224e9),
}


# Without these variables, libtpu queries the cloud metadata server for its TPU type and takes the lock of an attached TPU. The TPU type
# named here does not affect the compiled program.
_NO_TPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}

# Makes the compiler spend less effort on optimizing the program.
_LOW_EFFORT = {"exec_time_optimization_effort": -1.0}


@dataclass(frozen=True)
class LaunchPlan:
    """The compiler's results for one training step. Sizes are in bytes per chip."""

    topology: str
    chips: int
    mesh: dict[str, int]
    rows: int
    length: int
    compile_seconds: float
    fits: bool
    problem: str
    """The compiler's message if the program does not fit in memory, otherwise empty."""
    parameters: int
    """Size of the model's parameters, and of their moving average if one is kept."""
    optimizer: int
    batch: int
    temporary: int
    memory: int
    """HBM capacity of a chip."""
    flops: float
    """FLOPs of the model's matrix products per step and chip, for rows that one example each fills; packed rows of several shorter
    examples have less work in attention."""
    moved_bytes: float
    """HBM traffic per step and chip, as counted by the compiler for the batch as a single microbatch."""
    collectives: list[Collective]
    compute_seconds: float
    memory_seconds: float
    communication_seconds: float
    step_seconds: float
    """The longest of the three times, assuming full overlap: a lower bound on the step time."""
    tokens_per_second: float
    """Throughput of the entire slice, padding included, at that step time."""
    utilization: float
    """Model FLOPs utilization (MFU) at that step time, for the same rows: a bound from above for others."""

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        # Earlier versions wrote the key "utilisation", so keep that too.
        return dataclasses.asdict(self) | {"utilisation": self.utilization}

    def __str__(self) -> str:
        """Format the plan as a table."""
        axes = " x ".join(f"{name} {size}" for name, size in self.mesh.items())
        lines = [
            ("chips", f"{self.chips} ({self.topology}), {axes}"),
            ("step", f"{self.rows:,} rows of {self.length} tokens; compiled in {self.compile_seconds:.0f} s"),
            ("fits", "yes" if self.fits else f"NO: {self.problem}"),
            ("memory per chip", _size(self.memory)),
            ("  parameters", _size(self.parameters)),
            ("  optimizer state", _size(self.optimizer)),
            ("  batch", _size(self.batch)),
        ]
        if self.fits:
            lines += [
                ("  activations and other", _size(self.temporary)),
                ("compute", f"{self.flops / 1e12:.2f} TFLOPs per chip: at least {1e3 * self.compute_seconds:.1f} ms"),
                ("memory traffic", f"{_size(self.moved_bytes)} per chip: at least {1e3 * self.memory_seconds:.1f} ms"),
                ("communication", f"at least {1e3 * self.communication_seconds:.1f} ms" if self.collectives else "none"),
                *((f"  {c.kind}", f"{c.count}, {_size(c.sent_bytes)} sent per chip") for c in self.collectives),
                ("step time", f"at least {1e3 * self.step_seconds:.1f} ms"),
                ("tokens/s", f"at most {self.tokens_per_second:,.0f}"),
                ("MFU", f"at most {100 * self.utilization:.0f}%"),
            ]
        width = max(len(name) for name, _ in lines)
        return "\n".join(f"{name:{width}}  {value}" for name, value in lines)


def _size(count: float) -> str:
    for unit, size in (("GiB", _GIB), ("MiB", 2**20)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count / 2**10:.1f} KiB"


def plan_launch(config: RunConfig, topology: str, quick: bool = False) -> LaunchPlan:
    """Compile the pre-training step of a configuration for a TPU topology, such as `v5e:16x16`, on any Linux machine.

    The step is compiled by the TPU compiler in the libtpu package, for a vocabulary of the size in the configuration. Nothing is
    executed: times are a roofline estimate from published peak rates.

    Args:
        config: the configuration of the run.
        topology: the TPU type and shape, as KIND:SHAPE.
        quick: compile with little optimization. This takes a quarter of the time, and slightly overestimates the memory and
            communication of the program that would run.

    Raises:
        InputError: there is no pre-training stage, the topology is unknown, the mesh does not fit it, or libtpu is missing.
    """
    stage = config.pretrain
    if stage is None:
        raise InputError("This configuration has no pre-training stage, so there is no step to compile. Name another --config.")
    chip = CHIPS.get(topology.partition(":")[0])
    if chip is None:
        raise InputError(
            f"There is no TPU topology {topology!r}. Name one as KIND:SHAPE, such as v5e:4x4, where KIND is one of {', '.join(CHIPS)}."
        )
    devices = topology_devices(topology)
    peak = published_flops(devices[0].device_kind)
    assert peak, devices[0].device_kind
    mesh = make_mesh(config.mesh, stage.batch_size // stage.gradient_accumulation_steps, devices)
    lowered, state, batch = lower_step(config, stage, mesh)
    start = time.perf_counter()
    problem, temporary, moved, found = "", 0, 0.0, list[Collective]()
    try:
        program = lowered.compile(_LOW_EFFORT if quick else None)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        problem = next((line.strip() for line in str(error).splitlines() if "hbm" in line.lower()), str(error).splitlines()[0])
    else:
        temporary, found = program.memory_analysis().temp_size_in_bytes, collectives(program.as_text())
    seconds = time.perf_counter() - start
    if not problem:
        moved = _moved_bytes(config, stage, mesh)
    rows, length = stage.batch_size, stage.rows.length
    expected = _expected(config)
    units = expected.units.size if expected.units else 0
    flops = step_flops(stage, expected.vocab_size, config.encoder, units).upper_bound(rows, length) / mesh.size
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
    """Return the chips of a TPU topology, as devices that programs can be compiled for.

    Raises:
        InputError: libtpu is missing, or does not know the topology.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise InputError("The TPU compiler is missing. Run pip install libtpu (Linux, x86-64).")
    for name, value in _NO_TPU_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)
    except jax.errors.JaxRuntimeError as error:
        raise InputError(f"The TPU compiler does not know the topology {topology!r}: {str(error).splitlines()[0]}") from None


def lower_step(config: RunConfig, stage: PretrainConfig, mesh: Mesh) -> tuple[Any, Any, Any]:
    """Lower the training step of a configuration for a mesh whose devices need not exist.

    Returns:
        The lowered step, and the shapes of its training state and batch.
    """
    modality, expected = find(config.corpus.modality), _expected(config)
    vocab_size, entering = expected.vocab_size, InputDescription.of(modality, expected)
    description = ModelDescription(PRETRAINING.kind, config.encoder, stage.rows.length, stage.rows.next_sentence, input=entering)
    compute = resolve_compute(config.compute, config.encoder, [stage.rows.length], platform(mesh))
    model = build(description, vocab_size, compute)
    # A vocabulary learned here begins with the five special tokens; [MASK] is the last of them.
    objective = PretrainingObjective(model, stage.masking, tuple(range(5)), 4, tuple(range(5, vocab_size)))
    optimizer = make_optimizer(stage.optimizer, stage.steps)
    batch = _batch(stage, mesh, expected.units)

    def init() -> Any:
        return model.init(jax.random.key(config.seed), zero_row(entering.units))["params"]

    skip_above, ema = stage.optimizer.skip_above, stage.optimizer.ema
    state = planned_state(init, optimizer, mesh, track_loss=skip_above > 0, average=ema > 0)
    train_step, _ = compile_steps(objective, optimizer, state, mesh, config.seed, stage.gradient_accumulation_steps, skip_above, ema)
    return train_step.lower(state, batch), state, batch  # type: ignore[attr-defined]


def _expected(config: RunConfig) -> Expected:
    return find(config.corpus.modality).expected(config.corpus, config.vocabulary)


def _moved_bytes(config: RunConfig, stage: PretrainConfig, mesh: Mesh) -> float:
    """Return the bytes moved between HBM and a chip per step.

    The compiler counts the body of a loop once, so compile encoders of one and two layers without loops: the difference is the
    traffic of one layer. The optimization effort does not change the count.
    """

    def moved(layers: int) -> float:
        encoder = dataclasses.replace(config.encoder, layers=layers)
        plain = dataclasses.replace(config, encoder=encoder, compute=dataclasses.replace(config.compute, scan_layers=False))
        lowered, _, _ = lower_step(plain, dataclasses.replace(stage, gradient_accumulation_steps=1), mesh)
        return float(lowered.compile(_LOW_EFFORT).cost_analysis()["bytes accessed"])

    one, two = moved(1), moved(2)
    return one + (config.encoder.layers - 1) * (two - one)


def _batch(stage: PretrainConfig, mesh: Mesh, units: Units | None) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the shapes and types of a batch (see docs/architecture.md#one-batch-shape)."""
    sizes, sharding = {"L": stage.rows.length, "E": stage.rows.examples_per_row}, NamedSharding(mesh, ROWS)
    fields = {name: FIELDS[name] for name in PREPARED}
    batch = {
        name: jax.ShapeDtypeStruct((stage.batch_size, sizes[axis]), dtype, sharding=sharding) for name, (axis, dtype) in fields.items()
    }
    if units:
        batch["units"] = jax.ShapeDtypeStruct((stage.batch_size, stage.rows.length, units.size), units.dtype, sharding=sharding)
    return batch
