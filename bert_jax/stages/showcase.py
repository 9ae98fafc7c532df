"""The output at the end of a run: predictions on a few texts, and a summary of the results."""

import itertools
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bert_jax.config import RunConfig
from bert_jax.data.labelled import Labelled
from bert_jax.data.reader import Reader
from bert_jax.data.records.held_out import documents
from bert_jax.inference import Bert, load
from bert_jax.modalities.base import Modality
from bert_jax.model import directory as model_directory
from bert_jax.stages.finetune import PREDICTIONS
from bert_jax.tasks import finetuning, spread
from bert_jax.tasks.base import Task
from bert_jax.tasks.display import nouns
from bert_jax.tasks.pretraining import ADAPTATION, PRETRAINING

_SHOWN = 6


def show_examples(
    config: RunConfig, workdir: Path, tasks: Sequence[Task], modality: Modality[Any, Any], labelled: Labelled | None
) -> dict[str, Any]:
    """Return predictions of the run's models on a few texts that they were not trained on."""
    examples: dict[str, Any] = {"nouns": modality.nouns._asdict()}
    if config.pretrain:
        bert = load(workdir / "pretrain", modalities=[modality])
        held_out = list(itertools.islice(_short_documents(config, bert, modality), _SHOWN))
        blanks = list(config.pretrain.blanks) or [modality.with_mask(bert.tokenizer, sentences[0]) for sentences in held_out]
        filled = zip(blanks, bert.fill_mask(blanks, top_k=5), strict=True) if blanks else ()
        examples["fill_mask"] = [modality.filled(bert.tokenizer, query, masks) for query, masks in filled]
        if sheet := modality.sheet(bert.tokenizer):
            examples["vocabulary"] = [{"text": "", "pictures": [sheet]}]
        if config.pretrain.rows.next_sentence != "none" and len(held_out) > 1:
            pairs = _pairs(held_out)
            probabilities = bert.next_sentence([a for a, _, _ in pairs], [b for _, b, _ in pairs])
            examples["next_sentence"] = [
                {"a": str(a), "b": str(b), "expected": expected, "probability": float(probability)}
                | _pictures(modality, bert.tokenizer, a, b)
                for (a, b, expected), probability in zip(pairs, probabilities, strict=True)
            ]
    if config.finetune and labelled:
        reader = model_directory.read(workdir / "finetune", [modality])[1]
        with (workdir / "finetune" / PREDICTIONS).open(encoding="utf-8") as file:
            lines = [json.loads(line) for line in itertools.islice(file, _SHOWN)]
        task = finetuning(config.finetune.task, tasks)
        shown = zip(lines, labelled.test.texts, strict=False)
        examples[task.name] = [task.example(line) | _pictures(modality, reader, text) for line, text in shown]
    return examples


def _short_documents(config: RunConfig, bert: Bert, modality: Modality[Any, Any]) -> Iterator[list[Any]]:
    """Yield the sentences of held-out documents whose first two sentences are non-empty and fit into a pair."""
    for document in documents(modality, config.corpus, "valid"):
        sentences = modality.queries(document, config.corpus)
        if len(sentences) > 1:
            lengths = bert.tokenizer.encode_flat(sentences[:2]).lengths
            if lengths.all() and lengths.sum() <= bert.config.max_positions - 3:
                yield sentences


def _pictures(modality: Modality[Any, Any], reader: Reader, *queries: Any) -> dict[str, Any]:
    drawn = [picture for query in queries for picture in modality.pictures(reader, query)]
    return {"pictures": drawn} if drawn else {}


def _pairs(held_out: list[list[Any]]) -> list[tuple[Any, Any, bool]]:
    """Return a true and a false next sentence for each of the first documents."""
    pairs = []
    for document, other in itertools.pairwise(held_out[: _SHOWN // 2 + 1]):
        pairs += [(document[0], document[1], True), (document[0], other[1], False)]
    return pairs


def summary_text(
    config: RunConfig, workdir: Path, summary: Mapping[str, Any], examples: Mapping[str, Any], tasks: Sequence[Task] = ()
) -> str:
    """Return the summary that is printed after a run: examples, results with their baselines, and file locations."""
    stages: list[Task] = [task for task in (PRETRAINING, ADAPTATION) if task.stage in summary]
    stages += [finetuning(config.finetune.task, tasks)] if config.finetune and "finetune" in summary else []
    lines = [""]
    for task in stages:
        lines += task.example_lines(examples)
    lines.append("")
    for task in stages:
        lines += [*task.summary_lines(summary[task.stage]), *spread.lines(summary[task.stage])]
        if summary[task.stage].get("truncated_texts"):
            noun = nouns(examples).input
            lines.append(f"{'':20}{summary[task.stage]['truncated_texts']:,} training {noun}s were longer than a row and were truncated")
    lines += ["", f"Report       {workdir / 'report.html'}", f"Results      {workdir / 'summary.json'}"]
    lines += [f"Checkpoints  {workdir / task.stage / 'checkpoints'}" for task in stages]
    lines.append(f"Explore      python -m bert_jax explore {shlex.quote(str(workdir))}")
    return "\n".join(lines)
