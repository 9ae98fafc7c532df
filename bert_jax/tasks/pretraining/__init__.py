"""Pre-training: masked language modeling and next-sentence prediction."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from bert_jax.runtime.terminal import count
from bert_jax.tasks import display
from bert_jax.tasks.base import Task
from bert_jax.tasks.display import Curve, Example, Figure, Guess, Json, Panel, shortened
from bert_jax.tasks.pretraining.questions import FillMask, NextSentence, Prediction, Score, ScoredToken
from bert_jax.tasks.published import ENCODER, Published

if TYPE_CHECKING:
    from bert_jax.config import ComputeConfig
    from bert_jax.model.bert import PretrainingModel
    from bert_jax.model.directory import ModelDescription

__all__ = ["ADAPTATION", "PRETRAINING", "AdaptationTask", "Prediction", "PretrainingTask", "ScoredToken"]


class PretrainingTask(Task):
    """Masked language modeling and next-sentence prediction (Devlin et al. 2019, section 3.1)."""

    kind, noun, stage = "pretraining", "a pre-trained model", "pretrain"
    title = "Pre-training"
    best = False
    questions = (FillMask(), Score(), NextSentence())
    published = (
        Published("ForPreTraining", (*ENCODER, "pooler", "masked_token", "next_sentence"), "fill-mask"),
        Published("ForMaskedLM", (*ENCODER, "masked_token"), "fill-mask"),
        Published("ForNextSentencePrediction", (*ENCODER, "pooler", "next_sentence")),
    )

    def model(self, description: ModelDescription, vocab_size: int, compute: ComputeConfig, head_dropout: float = 0.0) -> PretrainingModel:
        """Return an encoder with both heads."""
        from bert_jax.model.bert import PretrainingModel

        return PretrainingModel(vocab_size, description.encoder, compute, input=description.input)

    def figures(self, result: Json) -> list[Figure]:
        """Return the accuracy of both heads compared with guessing, the loss, and the number of tokens and throughput."""
        nouns = display.nouns(result)
        floor, loss, tokens = (display.number(result, name) for name in ("mlm_accuracy_floor", "mlm_loss", "real_tokens"))
        speed = display.number(result, "real_tokens_per_second")
        baseline = "" if floor is None else f"{display.percent(floor)} by always predicting the most frequent {nouns.answer}"
        perplexity = "" if loss is None else f"perplexity {math.exp(min(loss, 700)):.4g}"
        bits = display.number(result, "mlm_bits_per_character")
        perplexity += "" if bits is None else f", {bits:.3g} bits per character"
        return [
            Figure(f"Masked-{nouns.token} accuracy", display.percent(display.number(result, "mlm_accuracy")), baseline),
            Figure(f"Next-{nouns.sentence} accuracy", display.percent(display.number(result, "nsp_accuracy")), "50% by chance"),
            Figure(f"Masked-{nouns.token} loss", "" if loss is None else f"{loss:.3f}", perplexity),
            Figure(
                f"Training {nouns.token}s",
                "" if tokens is None else count(tokens),
                f"in {display.integer(display.number(result, 'steps'))} steps",
            ),
            Figure("Throughput", "" if speed is None else count(speed), f"{nouns.token}s/s, without padding"),
        ]

    def curves(self, result: Json) -> list[Curve]:
        """Return the losses and accuracies of both heads."""
        floor, nouns = display.number(result, "mlm_accuracy_floor"), display.nouns(result)
        level = None if floor is None else (f"most frequent {nouns.answer}", floor)
        return [
            Curve("Loss", "loss"),
            Curve(f"Masked-{nouns.token} loss", "mlm_loss"),
            Curve(f"Masked-{nouns.token} accuracy", "mlm_accuracy", True, level),
            Curve(f"Next-{nouns.sentence} accuracy", "nsp_accuracy", True, ("chance", 0.5)),
        ]

    def panels(self, examples: Json) -> list[Panel]:
        """Return blanks with the most probable tokens, and sentence pairs with the probability that B follows A."""

        def filled(values: Json) -> Example:
            masks = values.get("masks") or []
            guesses = [[Guess(str(p.get("token", "")), display.probability(p.get("probability"))) for p in mask] for mask in masks]
            texts = [str(values[name]) for name in ("text", "note") if values.get(name)]
            return Example(texts or ("",), guesses, *_pictures(values))

        def paired(values: Json) -> Example:
            probability, expected = display.probability(values.get("probability")), values.get("expected")
            follows = probability >= 0.5
            correct = None if expected is None else bool(expected) == follows
            guess = Guess("follows", probability, correct) if follows else Guess("does not follow", 1 - probability, correct)
            return Example((str(values.get("a", "")), str(values.get("b", ""))), ((guess,),), *_pictures(values))

        sentence = display.nouns(examples).sentence
        codes = [Example((str(values.get("text", "")),), (), *_pictures(values)) for values in examples.get("vocabulary") or []]
        return [
            Panel("Filled-in blanks", [filled(values) for values in examples.get("fill_mask") or []]),
            Panel(f"Does the second {sentence} follow?", [paired(values) for values in examples.get("next_sentence") or []]),
            Panel("The codes: what is predicted where a unit is masked", codes),
        ]

    def example_lines(self, examples: Json) -> list[str]:
        """Return blanks with their predictions, and sentence pairs, as lines for the terminal."""
        lines = []
        for blank in examples.get("fill_mask", ()):
            lines.append(f"  {shortened(blank['text'])}")
            lines += ["      " + "  ".join(f"{p['token']} {p['probability']:.0%}" for p in mask) for mask in blank.get("masks", ())]
            lines += [f"      {blank['note']}"] if "note" in blank else []
        if lines:
            lines.insert(0, "Filled-in blanks:")
        if examples.get("next_sentence"):
            lines += ["", "Does B follow A?"]
            for pair in examples["next_sentence"]:
                truth = "true " if pair["expected"] else "false"
                lines.append(f"  {pair['probability']:>4.0%}  {truth}  {shortened(pair['a'], 30)}  |  {shortened(pair['b'], 30)}")
        return lines

    def summary_lines(self, result: Json) -> list[str]:
        """Return training length, throughput and the accuracy of both heads."""
        nouns = display.nouns(result)
        lines = [
            f"{self.title:20}{result['steps']:,} steps, {result['real_tokens']:,} real {nouns.token}s, "
            f"{result['real_tokens_per_second']:,.0f} {nouns.token}s/s"
            + (f"; {result['skipped_updates']:,} skipped updates" if result.get("skipped_updates") else ""),
            f"{f'Masked {nouns.token}s':20}not measured: there is no {nouns.token} to predict in the held-out {nouns.input}s"
            if result["mlm_accuracy"] is None
            else f"{f'Masked {nouns.token}s':20}{result['mlm_accuracy']:.1%} accuracy "
            f"(always predicting the most frequent {nouns.answer}: {result['mlm_accuracy_floor']:.1%})",
        ]
        if "mlm_bits_per_character" in result:
            lines[-1] += f", {result['mlm_bits_per_character']:.2f} bits per character"
        if result["nsp_accuracy"] is not None:
            lines.append(f"{f'Next {nouns.sentence}':20}{result['nsp_accuracy']:.1%} accuracy (chance: 50.0%)")
        return lines


def _pictures(values: Json) -> tuple[list[str], list[str]]:
    return [*map(str, values.get("pictures") or ())], [*map(str, values.get("captions") or ())]


class AdaptationTask(PretrainingTask):
    """The same on the texts of the training examples (Gururangan et al. 2020, section 4); a run shows the examples of pre-training."""

    stage, title = "adapt", "Adaptation"

    def figures(self, result: Json) -> list[Figure]:
        """Return the figures of pre-training, named after this stage."""
        return [replace(figure, name=f"{figure.name}, {self.title.lower()}") for figure in super().figures(result)]

    def panels(self, examples: Json) -> list[Panel]:
        """Return no panel."""
        del examples
        return []

    def example_lines(self, examples: Json) -> list[str]:
        """Return no line."""
        del examples
        return []


PRETRAINING, ADAPTATION = PretrainingTask(), AdaptationTask()
