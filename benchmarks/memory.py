"""Device memory of a training step: parameters, optimizer state and activations, by rematerialization policy.

    python benchmarks/memory.py --size=base --rows=8 --lengths=128,512 --output=benchmarks/results/memory

Reports what the compiler allocates on the first local device; nothing is run. `--size` is a published size.
"""

import argparse
from pathlib import Path
from typing import Any, get_args, get_type_hints

import checkout  # noqa: F401
import jax
from machine import machine, versions

from bert_jax.config import ComputeConfig, EncoderConfig, MeshConfig, PretrainConfig, RowsConfig, RunConfig, VocabularyConfig
from bert_jax.model.directory import write_json
from bert_jax.stages.plan import lower_step
from bert_jax.training.compiled import bytes_per_device
from bert_jax.training.sharding import make_mesh

POLICIES = get_args(get_type_hints(ComputeConfig)["remat"])
MIB = 2**20


def main() -> None:
    """Compile, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="base", help="a published size")
    parser.add_argument("--rows", type=int, default=8, help="rows per step")
    parser.add_argument("--lengths", default="128,512", help="tokens per row")
    parser.add_argument("--output", type=Path, help="output path without the extension")
    flags = parser.parse_args()
    lines = []
    print(f"{'length':>6}  {'remat':<6}{'parameters':>12}{'optimizer':>12}{'activations':>13}  MiB")
    for length in map(int, flags.lengths.split(",")):
        for remat in POLICIES:
            lines.append(measure(flags.size, flags.rows, length, remat))
            own = lines[-1]
            print(f"{length:>6}  {remat:<6}{own['parameters']:>12,}{own['optimizer']:>12,}{own['activations']:>13,}", flush=True)
    if flags.output:
        write_json(flags.output.with_suffix(".json"), {"machine": machine(), "versions": versions([]), "unit": "MiB", "lines": lines})


def measure(size: str, rows: int, length: int, remat: str) -> dict[str, Any]:
    """MiB of one step, by kind."""
    stage = PretrainConfig(batch_size=rows, rows=RowsConfig(length=length))
    compute = ComputeConfig(remat=remat)
    config = RunConfig(encoder=EncoderConfig.preset(size), compute=compute, vocabulary=VocabularyConfig(size=30_522), pretrain=stage)
    lowered, state, _ = lower_step(config, stage, make_mesh(MeshConfig(), rows, jax.devices()[:1]))
    parameters, optimizer = bytes_per_device(state.params), bytes_per_device(state.optimizer_state)
    kept = lowered.compile().memory_analysis().temp_size_in_bytes
    found = {"parameters": parameters, "optimizer": optimizer, "activations": kept}
    return {"size": size, "rows": rows, "length": length, "remat": remat} | {name: round(count / MIB) for name, count in found.items()}


if __name__ == "__main__":
    main()
