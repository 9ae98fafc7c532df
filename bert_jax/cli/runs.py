"""The commands about a run: compile before it, verify after it."""

import argparse

from bert_jax.cli.arguments import Add, anywhere, disk, say
from bert_jax.errors import InputError


def add_run_commands(add: Add) -> None:
    """Adds compile and verify."""
    plan = add(
        "compile",
        _compile,
        "compile a pre-training step for TPUs that need not be here: whether it fits, and what it costs",
        "--config=configs/pretrain_base_en.py --topology=v5e:4x4",
        "--config=configs/pretrain_large_en.py --topology=v5p:4x4x4 --config.mesh.fsdp=8 --json plan.json",
    )
    plan.set_defaults(takes_config=True)
    plan.add_argument("--config", required=True, help="the configuration of the run; --config.a.b=value changes a value")
    plan.add_argument("--topology", required=True, metavar="KIND:SHAPE", help="v4:4x4x4, v5e:16x16, v5p:4x4x4 or v6e:16x16, say")
    plan.add_argument("--quick", action="store_true", help="in a quarter of the time: sizes and times come out a few percent too high")
    plan.add_argument("--json", type=disk, metavar="FILE", help="write the plan to this file too")

    command = add(
        "verify",
        _verify,
        "tell whether checkpoints, models, vocabularies and records are what was written",
        "runs/demo",
        "runs/demo/pretrain",
    )
    command.add_argument("workdir", metavar="WORKDIR", type=anywhere, help="that of a run, or the directory of a model")


def _compile(flags: argparse.Namespace) -> None:
    from bert_jax.model.directory import write_json
    from bert_jax.stages.plan import plan_launch
    from bert_jax.tasks import configured

    if flags.json and not flags.json.parent.is_dir():
        raise InputError(f"--json {flags.json} cannot be written: there is no directory {flags.json.parent}.")
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
        raise InputError(f"{flags.workdir} is damaged: {len(found):,} fault{'s' * (len(found) > 1)}, {files:,} files are whole.")
    say(f"{flags.workdir} is whole: {files:,} files are what was written.")
