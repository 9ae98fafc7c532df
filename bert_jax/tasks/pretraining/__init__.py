"""Pre-training: masked tokens and the next sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bert_jax.runtime.terminal import count
from bert_jax.tasks import display
from bert_jax.tasks.base import Task
from bert_jax.tasks.display import Curve, Example, Figure, Guess, Json, Panel, shortened
from bert_jax.tasks.pretraining.questions import FillMask, NextSentence, Prediction, Score
from bert_jax.tasks.published import ENCODER, Published

if TYPE_CHECKING:
    from bert_jax.config import ComputeConfig
    from bert_jax.model.bert import PretrainingModel
    from bert_jax.model.directory import ModelDescription

__all__ = ["PRETRAINING", "Prediction", "PretrainingTask"]


class PretrainingTask(Task):
    """Masked language model and next-sentence prediction (Devlin et al. 2019, section 3.1)."""

    kind, noun, stage = "pretraining", "a pre-trained model", "pretrain"
    best = False
    questions = (FillMask(), Score(), NextSentence())
    published = (
        Published("ForPreTraining", (*ENCODER, "pooler", "masked_token", "next_sentence"), "fill-mask"),
        Published("ForMaskedLM", (*ENCODER, "masked_token"), "fill-mask"),
        Published("ForNextSentencePrediction", (*ENCODER, "pooler", "next_sentence")),
    )

    def model(self, description: ModelDescription, vocab_size: int, compute: ComputeConfig, head_dropout: float = 0.0) -> PretrainingModel:
        """An encoder with both heads."""
        from bert_jax.model.bert import PretrainingModel

        return PretrainingModel(vocab_size, description.encoder, compute, embedding=description.input.embedding)

    def figures(self, result: Json) -> list[Figure]:
        """Accuracy of both heads beside what guessing gives, the loss, and how fast it went."""
        floor, loss, tokens = (display.number(result, name) for name in ("mlm_accuracy_floor", "mlm_loss", "real_tokens"))
        speed = display.number(result, "real_tokens_per_second")
        baseline = "" if floor is None else f"{display.percent(floor)} by always guessing the commonest token"
        perplexity = "" if loss is None else f"perplexity {math.exp(min(loss, 700)):.4g}"
        return [
            Figure("Masked tokens found", display.percent(display.number(result, "mlm_accuracy")), baseline),
            Figure("Next sentences recognized", display.percent(display.number(result, "nsp_accuracy")), "50 % by chance"),
            Figure("Masked-token loss", "" if loss is None else f"{loss:.3f}", perplexity),
            Figure("Tokens read", "" if tokens is None else count(tokens), f"in {display.integer(display.number(result, 'steps'))} steps"),
            Figure("Speed", "" if speed is None else count(speed), "real tokens per second"),
        ]

    def curves(self, result: Json) -> list[Curve]:
        """Losses and accuracies of both heads."""
        floor = display.number(result, "mlm_accuracy_floor")
        return [
            Curve("Loss", "loss"),
            Curve("Masked-token loss", "mlm_loss"),
            Curve("Masked tokens found", "mlm_accuracy", True, None if floor is None else ("always the commonest", floor)),
            Curve("Next sentences recognized", "nsp_accuracy", True, ("chance", 0.5)),
        ]

    def panels(self, examples: Mapping[str, Sequence[Json]]) -> list[Panel]:
        """Blanks with the most probable tokens, and pairs with the probability that they follow each other."""

        def filled(values: Json) -> Example:
            masks = values.get("masks") or []
            guesses = [[Guess(str(p.get("token", "")), display.probability(p.get("probability"))) for p in mask] for mask in masks]
            return Example((str(values.get("text", "")),), guesses)

        def paired(values: Json) -> Example:
            probability, expected = display.probability(values.get("probability")), values.get("expected")
            follows = probability >= 0.5
            correct = None if expected is None else bool(expected) == follows
            guess = Guess("follows", probability, correct) if follows else Guess("does not follow", 1 - probability, correct)
            return Example((str(values.get("a", "")), str(values.get("b", ""))), ((guess,),))

        return [
            Panel("Blanks filled in", [filled(values) for values in examples.get("fill_mask") or []]),
            Panel("Does the second sentence follow?", [paired(values) for values in examples.get("next_sentence") or []]),
        ]

    def example_lines(self, examples: Mapping[str, Sequence[Json]]) -> list[str]:
        """Blanks and pairs."""
        lines = []
        for blank in examples.get("fill_mask", ()):
            lines.append(f"  {shortened(blank['text'])}")
            lines += ["      " + "  ".join(f"{p['token']} {p['probability']:.0%}" for p in mask) for mask in blank["masks"]]
        if lines:
            lines.insert(0, "Blanks filled in:")
        if examples.get("next_sentence"):
            lines += ["", "Does B follow A?"]
            for pair in examples["next_sentence"]:
                truth = "true " if pair["expected"] else "false"
                lines.append(f"  {pair['probability']:>4.0%}  {truth}  {shortened(pair['a'], 30)}  |  {shortened(pair['b'], 30)}")
        return lines

    def summary_lines(self, result: Json) -> list[str]:
        """How much was trained, how fast, and the accuracy of both heads."""
        lines = [
            f"Pre-training        {result['steps']:,} steps, {result['real_tokens']:,} real tokens, "
            f"{result['real_tokens_per_second']:,.0f} a second"
            + (f"; {result['skipped_updates']:,} updates skipped" if result.get("skipped_updates") else ""),
            f"Masked tokens       {result['mlm_accuracy']:.1%} right "
            f"(always guessing the commonest token: {result['mlm_accuracy_floor']:.1%})",
        ]
        if result["nsp_accuracy"] is not None:
            lines.append(f"Next sentence       {result['nsp_accuracy']:.1%} right (guessing: 50.0%)")
        return lines


PRETRAINING = PretrainingTask()
