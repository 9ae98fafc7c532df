"""What tasks have in common whose head is a linear layer over one vector per example."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from bert_jax.config import FinetuneConfig, TaskOptions
from bert_jax.tasks.base import FinetuningTask, Need
from bert_jax.tasks.published import ENCODER, Published

if TYPE_CHECKING:
    import numpy as np

    from bert_jax.config import ComputeConfig
    from bert_jax.data.labelled import LabelledExamples
    from bert_jax.model.bert import ClassificationModel
    from bert_jax.model.directory import ModelDescription
    from bert_jax.model.flops import StepFlops

PARTS = ("pooler", "classifier")
"""The head; the pooler is absent if the tokens are averaged."""


@dataclass(frozen=True)
class PooledOptions(TaskOptions):
    """Options of a task with one vector per example."""

    pooling: Literal["cls", "mean"] = "cls"
    """Input of the last layer: [CLS] through the pooler, or the mean over all tokens."""


O = TypeVar("O", bound=PooledOptions)  # noqa: E741


class PooledTask(FinetuningTask[O]):
    """A task whose model is the encoder with a linear layer over [CLS] or over the mean of the tokens of each example."""

    def outputs(self, description: ModelDescription) -> int:
        """Return the number of outputs per example; by default, one per label."""
        return len(description.labels)

    def model(
        self, description: ModelDescription, vocab_size: int, compute: ComputeConfig, head_dropout: float = 0.0
    ) -> ClassificationModel:
        """Return the Flax module."""
        from bert_jax.model.bert import ClassificationModel

        return ClassificationModel(
            vocab_size, description.encoder, compute, self.outputs(description), description.pooling, head_dropout,
            input=description.input,
        )  # fmt: skip

    def bias(self, targets: np.ndarray) -> np.ndarray | None:
        """Return the initial bias of the head, float32 [C], for training targets [n, ...]; None for zeros."""
        del targets
        return None

    def initialized(self, params: Any, train: LabelledExamples) -> Any:
        """Return the parameters with the initial bias.

        Moving it to where it belongs by small steps takes long, and meanwhile the encoder learns to give all examples the same vector.
        """
        bias = self.bias(train.targets)
        if bias is None:
            return params
        dense = params[PARTS[1]]["dense"]
        return params | {PARTS[1]: {"dense": dense | {"bias": bias.astype(dense["bias"].dtype)}}}

    def why_not_exportable(self, description: ModelDescription) -> str:
        """Return the reason if the model pools by the mean, which the heads of `transformers` do not support."""
        if description.pooling == "cls":
            return ""
        return (
            f"reads the mean of all tokens (finetune.task.pooling={description.pooling}), but the heads of transformers use [CLS] only, so "
            "it cannot be exported to them. Export it to ONNX (name an .onnx file), or fine-tune with --config.finetune.task.pooling=cls."
        )

    def needs(self, options: O) -> tuple[Need, ...]:
        """Return the pooler, which is needed for pooling by [CLS]."""
        need = Need("pooler", "finetune.task.pooling=cls", "--config.finetune.task.pooling=mean")
        return (need,) if options.pooling == "cls" else ()

    def flops(self, description: ModelDescription, stage: FinetuneConfig) -> StepFlops:
        """Return the FLOPs of a training step of the encoder and the head."""
        from bert_jax.model.flops import classification_flops

        examples = stage.batch_size * stage.examples_per_row
        return classification_flops(
            description.encoder, self.outputs(description), examples, description.pooling, description.input.units
        )


def published(problem_type: str, labeled: bool = True, arguments: str = "") -> Published:
    """Return the published class of such tasks, which uses [CLS]."""
    path = ("classifier", "dense", "kernel")
    parts = (*ENCODER, *PARTS)
    return Published("ForSequenceClassification", parts, "text-classification", path, labeled, problem_type, lambda kind: arguments)


def text_of(record: Mapping[str, Any]) -> str:
    """Return the text of a record, with the second text of a pair after a bar."""
    return str(record["text"]) + (f" | {record['text_pair']}" if "text_pair" in record else "")
