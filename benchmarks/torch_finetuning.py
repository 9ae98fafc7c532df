"""The PyTorch loop of the fine-tuning benchmark, over the heads of transformers: shuffled batches, padded to their longest input."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from machine import CORES

from bert_jax.config import FinetuneConfig
from bert_jax.data.labelled import LabelledExamples
from bert_jax.tasks.answering.scores import judged
from bert_jax.training.optimizer import learning_rate_schedule

IGNORED = -100
"""The label of tokens that have none, in transformers."""
WARM_UP = 5
"""Steps before the clock starts."""
ATTENTION = {"attn_implementation": "sdpa"}
OVERLAP = 4
"""The share of a window of a passage that the next one repeats is one in so many."""

torch.set_num_threads(CORES)


class Inputs(NamedTuple):
    """Tokenized inputs of a model.

    Attributes:
        arguments: of each input, by the names of the model's arguments.
        labels: of each input.
        about: what the scorer has to know of the inputs.
    """

    arguments: list[dict[str, list[int]]]
    labels: Sequence[Any]
    about: Any


class Sequences:
    """An input is a text or a pair, with one label or several.

    Args:
        problem: the problem type in transformers.
        dtype: of the labels.
        predict: converts logits [n, C] to predictions.
    """

    def __init__(self, problem: str, dtype: torch.dtype, predict: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._problem, self._dtype, self._predict = problem, dtype, predict

    def model(self, encoder: Path, outputs: int) -> Any:
        """The encoder with a new head."""
        options = {"num_labels": outputs, "problem_type": self._problem, **ATTENTION}
        return transformers.AutoModelForSequenceClassification.from_pretrained(encoder, **options)

    def encode(self, tokenizer: Any, examples: LabelledExamples, stage: FinetuneConfig) -> Inputs:
        """Tokenize the examples and truncate them."""
        found = tokenizer(examples.texts, examples.pairs, truncation=True, max_length=stage.length)
        return Inputs(_arguments(found), examples.targets, len(examples))

    def labels(self, labels: Sequence[Any], length: int) -> dict[str, torch.Tensor]:
        """The arguments of the model that hold the labels of a batch."""
        return {"labels": torch.as_tensor(np.stack(labels)).to(self._dtype)}

    def logits(self, output: Any) -> torch.Tensor:
        """The model's logits, one row per input."""
        return output.logits

    def scored(self, examples: LabelledExamples, inputs: Inputs, logits: Sequence[np.ndarray], stage: FinetuneConfig) -> Any:
        """The arguments of `Scorer.add` for the logits of all inputs."""
        return np.arange(len(examples)), self._predict(torch.from_numpy(np.stack(logits))).numpy()


class Words:
    """An input is a list of words, each with a label, which belongs to its first token."""

    def model(self, encoder: Path, outputs: int) -> Any:
        return transformers.AutoModelForTokenClassification.from_pretrained(encoder, num_labels=outputs, **ATTENTION)

    def encode(self, tokenizer: Any, examples: LabelledExamples, stage: FinetuneConfig) -> Inputs:
        """Tokenize the examples and truncate them; `about` has the index of the word that each token begins, -1 for other tokens."""
        words = [list(text.words) for text in examples.texts]
        found = tokenizer(words, is_split_into_words=True, truncation=True, max_length=stage.length)
        firsts = [_first_tokens(found.word_ids(index)) for index in range(len(examples))]
        labels = [np.where(first >= 0, np.asarray(own)[first], IGNORED) for own, first in zip(examples.targets, firsts, strict=True)]
        return Inputs(_arguments(found), labels, firsts)

    def labels(self, labels: Sequence[Any], length: int) -> dict[str, torch.Tensor]:
        padded = [np.pad(own, (0, length - len(own)), constant_values=IGNORED) for own in labels]
        return {"labels": torch.as_tensor(np.stack(padded)).long()}

    def logits(self, output: Any) -> torch.Tensor:
        return output.logits

    def scored(self, examples: LabelledExamples, inputs: Inputs, logits: Sequence[np.ndarray], stage: FinetuneConfig) -> Any:
        starts = np.cumsum([0, *(len(text.words) for text in examples.texts)])
        items = [start + first[first >= 0] for start, first in zip(starts, inputs.about, strict=False)]
        found = torch.from_numpy(np.concatenate([own[first >= 0] for own, first in zip(logits, inputs.about, strict=True)]))
        return np.concatenate(items), torch.stack([found.argmax(-1).float(), found.softmax(-1).amax(-1)], -1).numpy()


class Answers:
    """An input is a question with a window of its passage; its labels are the first and the last token of the answer, or [CLS]."""

    def model(self, encoder: Path, outputs: int) -> Any:
        return transformers.AutoModelForQuestionAnswering.from_pretrained(encoder, **ATTENTION)

    def encode(self, tokenizer: Any, examples: LabelledExamples, stage: FinetuneConfig) -> Inputs:
        """Tokenize questions with overlapping windows of their passages; `about` has the windows' questions and their tokens' places."""
        found = tokenizer(
            examples.texts, examples.pairs, truncation="only_second", max_length=stage.length, stride=stage.length // OVERLAP,
            return_overflowing_tokens=True, return_offsets_mapping=True,
        )  # fmt: skip
        questions = np.array(found["overflow_to_sample_mapping"])
        inside = [np.array([part == 1 for part in found.sequence_ids(index)]) for index in range(len(questions))]
        offsets = [np.array(own) for own in found["offset_mapping"]]
        labels = [_answer(examples.targets[row], *own) for row, *own in zip(questions, inside, offsets, strict=True)]
        return Inputs(_arguments(found), labels, (questions, inside, offsets))

    def labels(self, labels: Sequence[Any], length: int) -> dict[str, torch.Tensor]:
        starts, ends = torch.as_tensor(np.array(labels)).T
        return {"start_positions": starts, "end_positions": ends}

    def logits(self, output: Any) -> torch.Tensor:
        return torch.stack([output.start_logits, output.end_logits], -1)

    def scored(self, examples: LabelledExamples, inputs: Inputs, logits: Sequence[np.ndarray], stage: FinetuneConfig) -> Any:
        """The best answer of all windows of each question, by the sum of its two logits."""
        questions, inside, offsets = inputs.about
        with_cls = [np.concatenate([own, np.broadcast_to(own[0], own.shape)], 1)[kept] for own, kept in zip(logits, inside, strict=True)]
        places = np.concatenate([own[kept] for own, kept in zip(offsets, inside, strict=True)])
        encoded: Any = SimpleNamespace(questions=questions, sizes=np.array([kept.sum() for kept in inside]), offsets=places)
        return judged(stage.task, examples, encoded, np.arange(len(places)), np.concatenate(with_cls))  # type: ignore[arg-type]


PROBLEMS = {
    "classification": Sequences("single_label_classification", torch.int64, lambda logits: logits.softmax(-1)),
    "multilabel": Sequences("multi_label_classification", torch.float32, torch.sigmoid),
    "regression": Sequences("regression", torch.float32, lambda logits: logits),
    "tagging": Words(),
    "answering": Answers(),
}
"""By the kind of our task."""


class Loop:
    """A model fine-tuned as the scripts of transformers do, with our learning rates.

    Args:
        encoder: a directory that transformers reads.
        kind: the kind of our task.
        stage: our settings.
        outputs: the number of labels, or 1.
        seed: of the head, the dropout and the order.
    """

    def __init__(self, encoder: Path, kind: str, stage: FinetuneConfig, outputs: int, seed: int) -> None:
        self.problem, self.stage, self.seed = PROBLEMS[kind], stage, seed
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
        torch.manual_seed(seed)
        self.model = self.problem.model(encoder, outputs)

    def train(self, examples: LabelledExamples, per_epoch: int, report: Callable[[int, int], None]) -> dict[str, int]:
        """Train for all epochs of about `per_epoch` steps, and return real tokens per second, the number of steps and the batch size."""
        inputs, optimizer_options = self.problem.encode(self.tokenizer, examples, self.stage), self.stage.optimizer
        batch_size = -(-len(inputs.arguments) // per_epoch)
        steps = self.stage.epochs * -(-len(inputs.arguments) // batch_size)
        schedule = learning_rate_schedule(optimizer_options, steps)
        named = dict(self.model.named_parameters())
        plain = [p for name, p in named.items() if name.endswith("bias") or "LayerNorm" in name]
        decayed = [p for name, p in named.items() if not (name.endswith("bias") or "LayerNorm" in name)]
        groups = [{"params": decayed, "weight_decay": optimizer_options.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        betas = (optimizer_options.beta1, optimizer_options.beta2)
        optimizer = torch.optim.AdamW(groups, optimizer_options.learning_rate, betas, optimizer_options.epsilon)
        self.model.train()
        tokens, begun = 0, time.perf_counter()
        for step, chosen in enumerate(_batches(len(inputs.arguments), batch_size, self.stage.epochs, self.seed)):
            if step == WARM_UP:
                tokens, begun = 0, time.perf_counter()
            for group in optimizer.param_groups:
                group["lr"] = float(schedule(step))
            batch = self._padded(inputs, chosen)
            labels = self.problem.labels([inputs.labels[index] for index in chosen], batch["input_ids"].shape[1])
            loss = self.model(**batch, **labels).loss
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), optimizer_options.clip_norm)
            optimizer.step()
            tokens += int(batch["attention_mask"].sum())
            report(step + 1, steps)
        rate = tokens / (time.perf_counter() - begun)
        return {"tokens_per_second": round(rate), "steps": steps, "batch_size": batch_size}

    def predict(self, examples: LabelledExamples, batch_size: int = 32) -> tuple[np.ndarray, np.ndarray]:
        """Return the arguments of `Scorer.add` for all examples."""
        inputs = self.problem.encode(self.tokenizer, examples, self.stage)
        sizes = np.array([len(one["input_ids"]) for one in inputs.arguments])
        order = np.argsort(sizes, kind="stable")
        logits: list[np.ndarray] = [np.zeros(0)] * len(order)
        self.model.eval()
        for chosen in np.split(order, range(batch_size, len(order), batch_size)):
            with torch.inference_mode():
                found = self.problem.logits(self.model(**self._padded(inputs, chosen))).numpy()
            for index, own in zip(chosen.tolist(), found, strict=True):
                # The logits of tokens end with the input.
                logits[index] = own if own.ndim == 1 else own[: sizes[index]]
        return self.problem.scored(examples, inputs, logits, self.stage)

    def _padded(self, inputs: Inputs, chosen: np.ndarray) -> dict[str, torch.Tensor]:
        return dict(self.tokenizer.pad([inputs.arguments[index] for index in chosen], return_tensors="pt"))


def _arguments(found: Any) -> list[dict[str, list[int]]]:
    names = [name for name in ("input_ids", "token_type_ids") if name in found]
    return [dict(zip(names, values, strict=True)) for values in zip(*(found[name] for name in names), strict=True)]


def _first_tokens(words: Sequence[int | None]) -> np.ndarray:
    return np.array([word if word is not None and word != before else -1 for before, word in zip([None, *words], words, strict=False)])


def _answer(answers: Sequence[Any], inside: np.ndarray, offsets: np.ndarray) -> tuple[int, int]:
    """The first and the last token of an answer, 0 and 0 if the window does not hold all of it."""
    if not answers:
        return 0, 0
    text, start = answers[0]
    tokens = np.flatnonzero(inside & (offsets[:, 1] > start) & (offsets[:, 0] < start + len(text)))
    whole = len(tokens) and offsets[inside, 0].min() <= start and offsets[inside, 1].max() >= start + len(text)
    return (int(tokens[0]), int(tokens[-1])) if whole else (0, 0)


def _batches(count: int, batch_size: int, epochs: int, seed: int) -> Iterator[np.ndarray]:
    for epoch in range(epochs):
        order = np.random.default_rng((seed, epoch)).permutation(count)
        yield from np.split(order, range(batch_size, count, batch_size))
