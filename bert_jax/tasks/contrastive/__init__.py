"""Embeddings: vectors in which related texts are near, learned from pairs, triples or scored pairs of texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from bert_jax.config import FinetuneConfig, TaskOptions
from bert_jax.config.checks import positive, require
from bert_jax.errors import InputError
from bert_jax.tasks import display
from bert_jax.tasks.base import FinetuningTask
from bert_jax.tasks.display import Curve, Example, Guess, Json, Panel, Scatter, Shown
from bert_jax.tasks.published import BARE

if TYPE_CHECKING:
    from bert_jax.config import ComputeConfig
    from bert_jax.data.labelled import Labelled, LabelledExamples
    from bert_jax.model.bert import EmbeddingModel
    from bert_jax.model.directory import ModelDescription
    from bert_jax.tasks.contrastive.pairs import Pairs, ScoredPairs
    from bert_jax.tasks.contrastive.scores import VectorScorer
    from bert_jax.training.augmentation import Augment
    from bert_jax.training.objective import Objective


@dataclass(frozen=True)
class EmbeddingOptions(TaskOptions):
    """Options of embeddings: `finetune.data.text` and `text_pair` name columns of texts that belong together."""

    SEPARATE_TEXTS: ClassVar[bool] = True
    name: Literal["embedding"] = field(default="embedding", init=False)
    negative: str = ""
    """Name of a column with a hard negative: a text that looks related to the first one, but is not."""
    target: str = ""
    """Name of a column with a number, greater for more similar pairs; only the order of the numbers counts."""
    temperature: float = 0.05
    """The cosines are divided by this; 0.05 as in SimCSE (Gao et al. 2021) and CoSENT."""
    symmetric: bool = False
    """Whether second texts are also matched to first texts."""
    pooling: Literal["mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"] = "mean"
    """How the hidden states of a text become its vector."""
    normalize: bool = True
    """Whether the vectors of the trained model have length 1; training compares cosines in any case."""
    microbatches: int = 1
    """Encode each batch in so many parts, to compare more texts than memory holds the activations of."""
    equal_sides: Literal["refuse", "leave_out"] = "refuse"
    """What to do about pairs of equal texts."""

    def __post_init__(self) -> None:
        positive(self, "temperature", "microbatches")
        both = bool(self.negative and self.target)
        require(not both, "negative", self.negative, "scored pairs (task.target) have no negatives; leave one of the two empty.")

    def columns(self) -> Mapping[str, str]:
        """Return the columns of negatives and scores, if there are any."""
        return {option: column for option, column in (("negative", self.negative), ("target", self.target)) if column}


class EmbeddingTask(FinetuningTask[EmbeddingOptions]):
    """Contrastive training (Reimers and Gurevych 2019; Gao et al. 2021), in which all texts of a batch see each other.

    Pairs and triples are trained with in-batch negatives, scored pairs with CoSENT (Huang et al. 2024): it needs only the order of the
    scores, so their scale is free, and what it optimizes is what Spearman's correlation measures.
    """

    name, kind, noun = "embed", "embedding", "an embedding model"
    options = EmbeddingOptions
    metric, scores = "mrr", ("mrr", "recall_at_1", "recall_at_10", "spearman")
    titles: ClassVar[Mapping[str, str]] = {
        "mrr": "Test mean reciprocal rank",
        "recall_at_1": "Test recall@1",
        "recall_at_10": "Test recall@10",
        "spearman": "Test Spearman correlation",
    }
    published = (BARE,)

    def model(
        self, description: ModelDescription, vocab_size: int, compute: ComputeConfig, head_dropout: float = 0.0
    ) -> EmbeddingModel:
        """Return the Flax module; it has no head, so `head_dropout` has no effect."""
        from bert_jax.model.bert import EmbeddingModel

        embedding = description.embedding
        return EmbeddingModel(
            vocab_size, description.encoder, compute, embedding.pooling, embedding.normalize, input=description.input
        )  # fmt: skip

    def labels(self, options: EmbeddingOptions) -> Pairs | ScoredPairs:
        """Return the reader that extracts negatives or scores, and checks the texts."""
        from bert_jax.tasks.contrastive.pairs import Pairs, ScoredPairs

        return ScoredPairs(options.target, options.equal_sides) if options.target else Pairs(options.negative, options.equal_sides)

    def describe(self, options: EmbeddingOptions, labels: Sequence[str]) -> dict[str, Any]:
        """Return the pooling and the normalization; there is no pooler."""
        from bert_jax.model.directory import EmbeddingConfig

        return {"embedding": EmbeddingConfig(options.pooling, options.normalize), "absent": ("pooler",)}

    def encoder_remarks(self, options: EmbeddingOptions, encoder: ModelDescription) -> tuple[str, ...]:
        """Return what the vectors of an embedding model lose: its pooling and its prompts."""
        from bert_jax.model.directory import EmbeddingConfig

        before = encoder.embedding
        found = []
        if before != EmbeddingConfig() and before.pooling != options.pooling:
            keep = "" if "+" in before.pooling else f" To keep it, set --config.finetune.task.pooling={before.pooling}."
            found.append(f"The pre-trained model pools by {before.pooling}, the fine-tuned one by {options.pooling}.{keep}")
        if before.prompts:
            names = ", ".join(map(repr, before.prompts.values()))
            found.append(f"The pre-trained model has prompts ({names}). Training adds none to your texts.")
        return tuple(found)

    def description(self, stage: FinetuneConfig, encoder: ModelDescription, labels: Sequence[str]) -> ModelDescription:
        """Return the description, with the length to which texts were truncated.

        Raises:
            InputError: a batch cannot be divided into the microbatches.
        """
        assert isinstance(stage.task, EmbeddingOptions)
        parts = stage.task.microbatches
        if stage.batch_size % parts:
            raise InputError(
                f"finetune.batch_size={stage.batch_size} cannot be divided into finetune.task.microbatches={parts}: choose a divisor."
            )
        description = super().description(stage, encoder, labels)
        return dataclasses.replace(description, embedding=dataclasses.replace(description.embedding, max_length=stage.length))

    def memory_advice(self, stage: FinetuneConfig) -> str:
        """Return the advice to encode the batch in more parts, which keeps its loss."""
        assert isinstance(stage.task, EmbeddingOptions)
        return f"raise --config.finetune.task.microbatches (now {stage.task.microbatches}), which keeps the loss of the whole batch, or "

    def inputs(self, examples: LabelledExamples) -> tuple[LabelledExamples, int]:
        """Return every text as an example of its own; the texts of a pair belong together."""
        from bert_jax.tasks.contrastive.pairs import single_texts

        return single_texts(examples)

    def objective(
        self, model: Any, options: EmbeddingOptions, labelled: Labelled, augmentation: Augment | None = None
    ) -> Objective:
        """Return the loss of a whole batch."""
        from bert_jax.tasks.contrastive.objective import ContrastiveObjective

        return ContrastiveObjective(
            model, bool(options.target), options.temperature, options.symmetric, options.microbatches, augmentation=augmentation
        )

    def score(self, held_out: Mapping[str, float]) -> float:
        """Return the mean reciprocal rank or, for scored pairs, Spearman's correlation."""
        return held_out["spearman"] if "spearman" in held_out else held_out[self.metric]

    def scorer(self, labelled: Labelled, options: EmbeddingOptions) -> VectorScorer:
        """Return a scorer for retrieval, or for the ranking of scored pairs."""
        from bert_jax.tasks.contrastive.scores import VectorScorer

        texts, _ = self.inputs(labelled.test)
        return VectorScorer(texts.texts, texts.targets, labelled.test.targets if options.target else None)

    # --- Display ---

    def curves(self, result: Json) -> list[Curve]:
        """Return the score that selects the best checkpoint, and the loss."""
        ranked = display.number(result, "mrr") is None
        return [Curve("Spearman correlation", "spearman") if ranked else Curve("Mean reciprocal rank", "mrr"), Curve("Loss", "loss")]

    def tables(self, result: Json) -> list[Shown]:
        """Return the chart of scores and cosines, if the pairs have scores."""
        points = [(float(score), float(cosine)) for score, cosine in result.get("points") or []]
        return [Scatter("Scores and cosines of test pairs", "score", "cosine", points, diagonal=False)] if points else []

    def example(self, line: Json) -> dict[str, Any]:
        """Return an example with its nearest texts and the one it is paired with, or a scored pair."""
        if "nearest" not in line:
            return super().example(line)
        return {"text": line["text"], "paired_with": line["text_pair"], "rank": line["rank"], "nearest": line["nearest"]}

    def panels(self, examples: Json) -> list[Panel]:
        """Return texts with their nearest neighbors, marked as right or wrong."""

        def example(values: Json) -> Example:
            found = [one for one in values["nearest"] if isinstance(one, Mapping)]
            cosines = [display.number(one, "cosine") for one in found]
            guesses = [
                Guess(str(one.get("text")), display.probability(cosine), bool(one.get("correct")), value=f"{cosine or 0:.3f}")
                for one, cosine in zip(found, cosines, strict=True)
            ]
            missed = () if any(guess.correct for guess in guesses) else (f"→ {values.get('paired_with')} (rank {values.get('rank'):g})",)
            return Example((str(values.get("text", "")), *missed), (guesses,), [*map(str, values.get("pictures") or ())])

        shown = [example(values) for values in examples.get(self.name) or [] if values.get("nearest")]
        return [Panel(f"Nearest {display.nouns(examples).input}s, by cosine", shown)] if shown else []

    def example_lines(self, examples: Json) -> list[str]:
        """Return each text with its nearest neighbor."""
        found = [one for one in examples.get(self.name) or [] if one.get("nearest")]
        if not found:
            return super().example_lines(examples)
        lines = []
        for one in found:
            nearest = one["nearest"][0]
            verdict = "correct" if nearest["correct"] else "wrong"
            texts = display.shortened(one["text"], 40), display.shortened(nearest["text"], 40)
            lines.append(f"  {nearest['cosine']:.3f} ({verdict})  {' → '.join(texts)}")
        return ["", f"Test {display.nouns(examples).input}s and their nearest neighbors:", *lines]


EMBEDDING = EmbeddingTask()
