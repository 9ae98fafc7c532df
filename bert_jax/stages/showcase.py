"""What a person wants to see at the end of a run: predictions on a few texts, and the figures in words."""

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bert_jax.config import RunConfig
from bert_jax.data.records.held_out import documents
from bert_jax.inference import Bert, load
from bert_jax.modalities.base import Modality
from bert_jax.stages.finetune import PREDICTIONS

_SHOWN = 6


def show_examples(config: RunConfig, workdir: Path, modality: Modality[Any, Any]) -> dict[str, Any]:
    """Predictions of the run's models on a few texts that they were not trained on."""
    examples: dict[str, Any] = {}
    if config.pretrain:
        bert = load(workdir / "pretrain", modalities=[modality])
        held_out = list(itertools.islice(_short_documents(config, bert, modality), _SHOWN))
        blanks = list(config.pretrain.blanks) or [modality.with_mask(bert.tokenizer, sentences[0]) for sentences in held_out]
        examples["fill_mask"] = [
            {"text": text, "masks": [[{"token": p.token, "probability": p.probability} for p in mask] for mask in masks]}
            for text, masks in zip(blanks, bert.fill_mask(blanks, top_k=5), strict=True)
        ]
        if config.pretrain.rows.next_sentence != "none" and len(held_out) > 1:
            pairs = _pairs(held_out)
            probabilities = bert.next_sentence([a for a, _, _ in pairs], [b for _, b, _ in pairs])
            examples["next_sentence"] = [
                {"a": a, "b": b, "expected": expected, "probability": float(probability)}
                for (a, b, expected), probability in zip(pairs, probabilities, strict=True)
            ]
    if config.finetune:
        with (workdir / "finetune" / PREDICTIONS).open(encoding="utf-8") as file:
            lines = [json.loads(line) for line in itertools.islice(file, _SHOWN)]
        examples["classify"] = [
            {
                "text": line["text"] + (f" | {line['text_pair']}" if "text_pair" in line else ""),
                "label": line["predicted"],
                "probability": line["probabilities"][line["predicted"]],
                "expected": line["label"],
            }
            for line in lines
        ]
    return examples


def _short_documents(config: RunConfig, bert: Bert, modality: Modality[Any, Any]) -> Iterator[list[str]]:
    """The sentences of held-out documents that begin with two sentences of half a row at most."""
    longest = bert.config.max_positions // 2 - 3
    for document in documents(modality, config.corpus, "valid"):
        sentences = modality.queries(document, config.corpus)
        if len(sentences) > 1 and all(1 <= length <= longest for length in bert.tokenizer.encode_flat(sentences[:2]).lengths):
            yield sentences


def _pairs(held_out: list[list[str]]) -> list[tuple[str, str, bool]]:
    """A true and a false next sentence for the first of the documents."""
    pairs = []
    for document, other in itertools.pairwise(held_out[: _SHOWN // 2 + 1]):
        pairs += [(document[0], document[1], True), (document[0], other[1], False)]
    return pairs


def summary_text(workdir: Path, summary: Mapping[str, Any], examples: Mapping[str, Any]) -> str:
    """The end of a run in words: examples, figures beside their baselines, and where everything is."""
    lines = [""]
    for blank in examples.get("fill_mask", ()):
        lines.append(f"  {_cut(blank['text'])}")
        lines += ["      " + "  ".join(f"{p['token']} {p['probability']:.0%}" for p in mask) for mask in blank["masks"]]
    if lines[1:]:
        lines.insert(1, "Blanks filled in:")
    if examples.get("next_sentence"):
        lines += ["", "Does B follow A?"]
        for pair in examples["next_sentence"]:
            truth = "true " if pair["expected"] else "false"
            lines.append(f"  {pair['probability']:>4.0%}  {truth}  {_cut(pair['a'], 30)}  |  {_cut(pair['b'], 30)}")
    if examples.get("classify"):
        lines += ["", "Test texts and their predicted class:"]
        for text in examples["classify"]:
            right = "right" if text["label"] == text["expected"] else "wrong"
            lines.append(f"  {text['label']} {text['probability']:.0%} ({right})  {_cut(text['text'])}")
    lines += ["", *_figures(summary), "", f"Report       {workdir / 'report.html'}", f"Figures      {workdir / 'summary.json'}"]
    lines += [f"Checkpoints  {workdir / stage / 'checkpoints'}" for stage in ("pretrain", "finetune") if stage in summary]
    return "\n".join(lines)


def _figures(summary: Mapping[str, Any]) -> list[str]:
    lines = []
    if pretrain := summary.get("pretrain"):
        lines += [
            f"Pre-training        {pretrain['steps']:,} steps, {pretrain['real_tokens']:,} real tokens, "
            f"{pretrain['real_tokens_per_second']:,.0f} a second"
            + (f"; {pretrain['skipped_updates']:,} updates skipped" if pretrain.get("skipped_updates") else ""),
            f"Masked tokens       {pretrain['mlm_accuracy']:.1%} right "
            f"(always guessing the commonest token: {pretrain['mlm_accuracy_floor']:.1%})",
        ]
        if pretrain["nsp_accuracy"] is not None:
            lines.append(f"Next sentence       {pretrain['nsp_accuracy']:.1%} right (guessing: 50.0%)")
    if finetune := summary.get("finetune"):
        scratch = f" (the same from scratch: {finetune['from_scratch_accuracy']:.1%})" if "from_scratch_accuracy" in finetune else ""
        lines.append(
            f"Classification      {finetune['accuracy']:.1%} right on {finetune['test_examples']:,} test texts, "
            f"trained on {finetune['train_examples']:,}{scratch}"
        )
        if finetune["truncated_texts"]:
            lines.append(f"                    {finetune['truncated_texts']:,} training texts were longer than the rows and were cut")
        if untrained := finetune.get("untrained_classes"):
            lines.append(f"                    {len(untrained):,} of {len(finetune['labels']):,} classes had no training example")
    return lines


def _cut(text: str, length: int = 60) -> str:
    text = text.replace("\u200b", "")
    return text if len(text) <= length else text[: length - 1] + "…"
