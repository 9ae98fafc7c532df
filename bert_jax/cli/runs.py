"""The commands about a run: `compile` before it and `verify` after it."""

import argparse

from bert_jax.cli.arguments import Add, anywhere, disk, say
from bert_jax.errors import InputError


def add_run_commands(add: Add) -> None:
    """Add `compile` and `verify`."""
    plan = add(
        "compile",
        _compile,
        "compile a pre-training step for TPUs that need not be attached, and report whether it fits and what it costs",
        "--config=configs/pretrain_base_en.py --topology=v5e:4x4",
        "--config=configs/pretrain_large_en.py --topology=v5p:4x4x4 --config.mesh.fsdp=8 --json plan.json",
    )
    plan.set_defaults(takes_config=True)
    plan.add_argument("--config", required=True, help="the run's configuration file; override a value with --config.a.b=value")
    plan.add_argument("--topology", required=True, metavar="KIND:SHAPE", help="for example v4:4x4x4, v5e:16x16, v5p:4x4x4 or v6e:16x16")
    plan.add_argument("--quick", action="store_true", help="take a quarter of the time, and overestimate sizes and times by a few percent")
    plan.add_argument("--json", type=disk, metavar="FILE", help="also write the plan to this file")

    command = add(
        "verify",
        _verify,
        "verify that checkpoints, models, vocabularies and records are intact",
        "runs/demo",
        "runs/demo/pretrain",
    )
    command.add_argument("workdir", metavar="WORKDIR", type=anywhere, help="a run's workdir, or the directory of a model")


def _compile(flags: argparse.Namespace) -> None:
    from bert_jax.model.directory import write_json
    from bert_jax.stages.plan import plan_launch
    from bert_jax.tasks import configured

    if flags.json and not flags.json.parent.is_dir():
        raise InputError(f"--json {flags.json} cannot be written: the directory {flags.json.parent} does not exist.")
    plan = plan_launch(configured(flags.config, flags.overrides), flags.topology, flags.quick)
    if flags.json:
        write_json(flags.json, plan.to_dict())
    print(plan)


def _verify(flags: argparse.Namespace) -> None:
    from bert_jax.stages.verify import verify

    found, files = verify(flags.workdir)
    for fault in found:
        say(fault)
    if found:
        raise InputError(f"{flags.workdir} is damaged: {len(found):,} fault{'s' * (len(found) > 1)}; {files:,} files are intact.")
    say(f"{flags.workdir} is intact: {files:,} files match what was written.")
