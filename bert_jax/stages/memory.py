"""What to change if a stage does not fit in the memory of the devices."""

from collections.abc import Sequence

from jax.sharding import Mesh

from bert_jax.config import ComputeConfig, FinetuneConfig, PretrainConfig

_REMAT = "set --config.compute.remat=full, which rematerializes activations instead of storing them"
_RESUMES = "Then run the same command again: it resumes in the same workdir."


def pretraining_advice(parts: Sequence[PretrainConfig], compute: ComputeConfig, mesh: Mesh) -> str:
    """Return the advice for pre-training, whose `parts` are the steps on short rows and, if there are any, those on long rows."""
    devices, settings = mesh.shape["data"] * mesh.shape["fsdp"], list[str]()
    name = parts[0].NAME
    for part, prefix, whose in zip(parts, (name, f"{name}.long_rows"), ("", "for the long rows, "), strict=False):
        if steps := _next_steps(part.batch_size, part.gradient_accumulation_steps, devices):
            rows = f"the {part.batch_size:,} rows of a step in microbatches of {part.batch_size // steps:,} rows"
            settings.append(f"{whose}set --config.{prefix}.gradient_accumulation_steps={steps}, which computes {rows} and learns the same")
    if compute.remat != "full":
        settings.append(f"or {_REMAT}" if settings else _REMAT)
    last = f"lower --config.{name}.batch_size or --config.{name}.rows.length in a new workdir"
    if not settings:
        return _sentence(last)
    return f"{' '.join(map(_sentence, settings))} {_RESUMES} If it still does not fit, {last}."


def finetuning_advice(stage: FinetuneConfig, compute: ComputeConfig, own: str) -> str:
    """Return the advice for fine-tuning; `own` is that of the task (`FinetuningTask.memory_advice`)."""
    last = f"{own}lower --config.finetune.batch_size (now {stage.batch_size}) or --config.finetune.length (now {stage.length})"
    if compute.remat == "full":
        return f"In a new workdir, {last}."
    return f"{_sentence(_REMAT)} {_RESUMES} If it still does not fit, in a new workdir, {last}."


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _next_steps(batch_size: int, steps: int, devices: int) -> int:
    """Return the next larger number of microbatches into which the rows of all devices can be divided, or 0 if there is none."""
    return next((more for more in range(steps + 1, batch_size + 1) if batch_size % (more * devices) == 0), 0)
