"""Tagging: a tag for each word of a text, such as the entities it is part of or its part of speech."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from bert_jax.tasks import display
from bert_jax.tasks.base import FinetuningTask
from bert_jax.tasks.display import Curve, Example, Json, Mark, Marked, Panel, Shown
from bert_jax.tasks.published import ENCODER, Published
from bert_jax.tasks.tagging import schemes
from bert_jax.tasks.tagging.options import TaggingOptions
from bert_jax.tasks.tagging.questions import COLUMNS, Tag, bracketed, entities

if TYPE_CHECKING:
    from bert_jax.config import ComputeConfig
    from bert_jax.data.labelled import Labelled, LabelledExamples, ReadRows
    from bert_jax.data.labelled_batches import EncodedExamples
    from bert_jax.model.bert import TokenModel
    from bert_jax.model.directory import ModelDescription
    from bert_jax.tasks.tagging.labels import TagReader
    from bert_jax.tasks.tagging.scores import TagScorer
    from bert_jax.training.augmentation import Augment
    from bert_jax.training.objective import Objective

HEAD = "tagger"


class TaggingTask(FinetuningTask[TaggingOptions]):
    """Classification of words by their first tokens (Devlin et al. 2019, section 5.3). Long texts are read in windows."""

    name, kind, noun = "tag", "tagging", "a tagger"
    options = TaggingOptions
    metric, scores = "tag_f1", ("f1", "accuracy")
    titles: ClassVar[Mapping[str, str]] = {"f1": "Test F1 of entities", "accuracy": "Test accuracy of tags"}
    questions = (Tag(),)
    published = (
        Published(
            "ForTokenClassification", (*ENCODER, HEAD), "token-classification", (HEAD, "dense", "kernel"), labeled=True,
            # Without word pieces, the strategies for words would take the text between two spaces for one.
            arguments=lambda kind: f'aggregation_strategy="{"first" if kind == "wordpiece" else "simple"}"',
        ),
    )  # fmt: skip

    def model(self, description: ModelDescription, vocab_size: int, compute: ComputeConfig, head_dropout: float = 0.0) -> TokenModel:
        """Return the Flax module."""
        from bert_jax.model.bert import TokenModel

        return TokenModel(
            vocab_size, description.encoder, compute, len(description.labels), HEAD, head_dropout, input=description.input
        )

    def labels(self, options: TaggingOptions) -> TagReader:
        """Return the reader of tags."""
        from bert_jax.tasks.tagging.labels import TagReader

        return TagReader(options)

    def read_rows(self, options: TaggingOptions) -> ReadRows:
        """Return the function that reads tagged words."""
        from bert_jax.tasks.tagging.files import read_tagged

        return partial(read_tagged, numbers=options.conll_columns)

    def encode(self, examples: LabelledExamples, reader: Any, length: int) -> EncodedExamples:
        """Tokenize tagged words as windows of at most `length` tokens."""
        from bert_jax.tasks.tagging.labels import encode_tagged

        return encode_tagged(examples, reader, length)

    def describe(self, options: TaggingOptions, labels: Sequence[str]) -> dict[str, Any]:
        """Return the names of the tags."""
        return {"labels": tuple(labels)}

    def objective(
        self, model: Any, options: TaggingOptions, labelled: Labelled, augmentation: Augment | None = None
    ) -> Objective:
        """Return cross-entropy over the first tokens of words."""
        from bert_jax.tasks.tagging.outputs import labeled_tokens, tag_metrics
        from bert_jax.training.objective import ExampleObjective

        outside = labelled.label_names.index(schemes.OUTSIDE) if schemes.OUTSIDE in labelled.label_names else -1
        return ExampleObjective(model, partial(tag_metrics, outside=outside), labeled_tokens, augmentation=augmentation)

    def predict(self, model: Any, params: Any, batch: Any) -> Any:
        """Return the most probable tag of each token and its probability, float32 [B, L, 2]."""
        from bert_jax.tasks.tagging.outputs import most_probable

        return most_probable(model, params, batch)

    def item_counts(self, examples: LabelledExamples) -> list[int]:
        """Return the number of words of each text."""
        return [len(text.words) for text in examples.texts]

    def scorer(self, labelled: Labelled, options: TaggingOptions) -> TagScorer:
        """Return a scorer for the F1 of entities and the accuracy of tags."""
        from bert_jax.tasks.tagging.scores import TagScorer

        columns = {COLUMNS: list(options.conll_columns)} if options.conll_columns else {}
        return TagScorer(labelled.test.targets, labelled.test.texts, labelled.label_names, columns)

    def linear_scores(self, labelled: Labelled, features: Callable[[], tuple[Any, Any]]) -> dict[str, float]:
        """Return the scores of logistic regression on the words near each word, and its form and affixes."""
        from bert_jax.tasks.tagging.linear import linear_tags
        from bert_jax.tasks.tagging.scores import scores

        names = labelled.label_names
        train, test = ([[names[tag] for tag in tags] for tags in part.targets] for part in (labelled.train, labelled.test))
        found = scores(test, linear_tags(labelled.train.texts, train, labelled.test.texts), names)
        return {name: found[name] for name in self.scores if found[name] is not None}

    # --- Display ---

    def curves(self, result: Json) -> list[Curve]:
        """Return the F1 of tags, the accuracy and the loss."""
        rates = {"F1 of tags other than O": "tag_f1", "Accuracy": "accuracy"}
        return [*(Curve(title, metric, percent=True) for title, metric in rates.items()), Curve("Loss", "loss")]

    def tables(self, result: Json) -> list[Shown]:
        """Return the F1 of each type of entity, or of each tag, as bars, and its precision and recall."""
        types = result.get("types")
        return display.rates("Types", "type", "entities", types) if types else display.rates("Tags", "tag", "words", result.get("tags"))

    def panels(self, examples: Mapping[str, Sequence[Json]]) -> list[Panel]:
        """Return texts with their predicted spans in color and, where some are wrong, with the true ones."""
        shown = []
        for one in examples.get(self.name) or []:
            text, predicted, true = _spans(one)
            texts = [Marked(text, [Mark(*span, correct=span in true) for span in predicted])]
            texts += [Marked(text, [Mark(*span) for span in true], "expected")] if predicted != true else []
            shown.append(Example(texts))
        return [Panel("Tagged texts", shown)]

    def example_lines(self, examples: Mapping[str, Sequence[Json]]) -> list[str]:
        """Return texts with their predicted spans in brackets."""
        lines = [f"  {display.shortened(bracketed(*_spans(one)[:2]), 120)}" for one in examples.get(self.name, ())]
        return ["", "Test texts and their predicted tags:", *lines] if lines else []


def _spans(example: Json) -> tuple[str, list[tuple[int, int, str]], list[tuple[int, int, str]]]:
    """Return the text of an example, its predicted and its true spans."""
    from bert_jax.tasks.tagging.words import Words

    words = Words(tuple(example["words"]))
    # A word without a token is predicted to be O, even if the model has no such tag.
    names = {*example["tags"], *example["predicted"]} - ({schemes.OUTSIDE} - {*example["tags"]})

    def found(tags: Sequence[str]) -> list[tuple[int, int, str]]:
        return [(words.spans[one.start][0], words.spans[one.end - 1][1], one.type) for one in entities(tags, [*names])]

    return str(words), found(example["predicted"]), found(example["tags"])


TAGGING = TaggingTask()
