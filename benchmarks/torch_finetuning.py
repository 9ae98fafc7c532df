"""The PyTorch loop of the fine-tuning benchmark, over the heads of transformers: shuffled batches, padded to their longest text."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from machine import CORES

from bert_jax.config import FinetuneConfig
from bert_jax.data.labelled import LabelledExamples
from bert_jax.training.optimizer import learning_rate_schedule

IGNORED = -100
"""The label of tokens that have none, in transformers."""
WARM_UP = 5
"""Steps before the clock starts."""

torch.set_num_threads(CORES)


class Encoded(NamedTuple):
    """Tokenized examples: the arguments of the model, and for words the index of the one that each token begins, -1 for other tokens."""

    inputs: list[dict[str, list[int]]]
    words: list[list[int]]


class Head(NamedTuple):
    """A class of transformers, the labels of its batches, and how its logits become what our scorers compare."""

    model: Any
    problem_type: str | None
    dtype: torch.dtype
    predict: Callable[[torch.Tensor], torch.Tensor]


def _most_probable(logits: torch.Tensor) -> torch.Tensor:
    return torch.stack([logits.argmax(-1).float(), logits.softmax(-1).amax(-1)], -1)


_SEQUENCE = transformers.AutoModelForSequenceClassification
HEADS = {
    "classification": Head(_SEQUENCE, "single_label_classification", torch.int64, lambda logits: logits.softmax(-1)),
    "multilabel": Head(_SEQUENCE, "multi_label_classification", torch.float32, torch.sigmoid),
    "regression": Head(_SEQUENCE, "regression", torch.float32, lambda logits: logits),
    "tagging": Head(transformers.AutoModelForTokenClassification, None, torch.int64, _most_probable),
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
        self.head, self.stage, self.seed, self.by_word = HEADS[kind], stage, seed, kind == "tagging"
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
        torch.manual_seed(seed)
        options = {} if self.head.problem_type is None else {"problem_type": self.head.problem_type}
        self.model = self.head.model.from_pretrained(encoder, num_labels=outputs, attn_implementation="sdpa", **options)

    def encode(self, examples: LabelledExamples) -> Encoded:
        """Tokenize the examples and truncate them."""
        limits = {"truncation": True, "max_length": self.stage.length}
        if self.by_word:
            found = self.tokenizer([list(text.words) for text in examples.texts], is_split_into_words=True, **limits)
            words = [_first_tokens(found.word_ids(index)) for index in range(len(examples))]
        else:
            found, words = self.tokenizer(examples.texts, examples.pairs, **limits), []
        names = [name for name in ("input_ids", "token_type_ids") if name in found]
        return Encoded([dict(zip(names, values, strict=True)) for values in zip(*(found[name] for name in names), strict=True)], words)

    def train(self, examples: LabelledExamples, batch_size: int, report: Callable[[int, int], None]) -> float:
        """Train for all epochs, and return real tokens per second."""
        encoded, optimizer_options = self.encode(examples), self.stage.optimizer
        steps = self.stage.epochs * -(-len(examples) // batch_size)
        schedule = learning_rate_schedule(optimizer_options, steps)
        named = dict(self.model.named_parameters())
        plain = [p for name, p in named.items() if name.endswith("bias") or "LayerNorm" in name]
        decayed = [p for name, p in named.items() if not (name.endswith("bias") or "LayerNorm" in name)]
        groups = [{"params": decayed, "weight_decay": optimizer_options.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        betas = (optimizer_options.beta1, optimizer_options.beta2)
        optimizer = torch.optim.AdamW(groups, optimizer_options.learning_rate, betas, optimizer_options.epsilon)
        self.model.train()
        tokens, begun = 0, time.perf_counter()
        for step, chosen in enumerate(_batches(len(examples), batch_size, self.stage.epochs, self.seed)):
            if step == WARM_UP:
                tokens, begun = 0, time.perf_counter()
            for group in optimizer.param_groups:
                group["lr"] = float(schedule(step))
            inputs = self._padded(encoded, chosen)
            loss = self.model(**inputs, labels=self._labels(examples, encoded, chosen, inputs["input_ids"].shape[1])).loss
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), optimizer_options.clip_norm)
            optimizer.step()
            tokens += int(inputs["attention_mask"].sum())
            report(step + 1, steps)
        return tokens / (time.perf_counter() - begun)

    def predict(self, examples: LabelledExamples, batch_size: int = 32) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the indices of examples, or of words, and the predictions for them."""
        encoded = self.encode(examples)
        starts = np.cumsum([0, *(len(text.words) for text in examples.texts)]) if self.by_word else ()
        order = np.argsort([len(one["input_ids"]) for one in encoded.inputs], kind="stable")
        self.model.eval()
        for chosen in np.split(order, range(batch_size, len(order), batch_size)):
            with torch.inference_mode():
                found = self.head.predict(self.model(**self._padded(encoded, chosen)).logits).numpy()
            if not self.by_word:
                yield chosen, found
                continue
            for row, example in enumerate(chosen.tolist()):
                words = np.array(encoded.words[example])
                yield starts[example] + words[words >= 0], found[row, : len(words)][words >= 0]

    def _padded(self, encoded: Encoded, chosen: Sequence[int]) -> dict[str, torch.Tensor]:
        return dict(self.tokenizer.pad([encoded.inputs[index] for index in chosen], return_tensors="pt"))

    def _labels(self, examples: LabelledExamples, encoded: Encoded, chosen: np.ndarray, length: int) -> torch.Tensor:
        if not self.by_word:
            return torch.as_tensor(np.stack(examples.targets[chosen])).to(self.head.dtype)
        labels = np.full((len(chosen), length), IGNORED)
        for row, example in enumerate(chosen.tolist()):
            for place, word in enumerate(encoded.words[example]):
                if word >= 0:
                    labels[row, place] = examples.targets[example][word]
        return torch.from_numpy(labels)


def _first_tokens(words: Sequence[int | None]) -> list[int]:
    return [word if word is not None and word != before else -1 for before, word in zip([None, *words], words, strict=False)]


def _batches(count: int, batch_size: int, epochs: int, seed: int) -> Iterator[np.ndarray]:
    for epoch in range(epochs):
        order = np.random.default_rng((seed, epoch)).permutation(count)
        yield from np.split(order, range(batch_size, count, batch_size))
