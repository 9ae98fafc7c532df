"""The question that taggers answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bert_jax.errors import InputError
from bert_jax.runtime.ahead import Finish
from bert_jax.tasks.display import Json
from bert_jax.tasks.question import Loaded, Question
from bert_jax.tasks.tagging import schemes

if TYPE_CHECKING:
    import numpy as np

    from bert_jax.data.reader import Reader
    from bert_jax.data.tables import Row
    from bert_jax.tasks.tagging.words import WordWindows

COLUMNS = "conll_columns"
"""The name of what a model's result says about the columns of its training file, if they were configured."""


@dataclass(frozen=True)
class Span:
    """A tagged part of a text: `text` is `start` to `end` (exclusive, in characters) of it, with the mean probability of its tags."""

    label: str
    text: str
    start: int
    end: int
    probability: float


class Tag(Question):
    """The entities of each text, or the tag of each of its words if tags have no prefixes."""

    name = "tag"
    help = "tag the entities in texts, or every word"
    windowed = True
    examples = (
        "runs/names/finetune 'Anna Keller moved from Bern to Oslo.'",
        "runs/names/finetune texts.txt --output names.jsonl",
        "runs/names/finetune names.conll --output tagged_words.jsonl",
        "runs/names/finetune words.jsonl --text words --output tagged_lists.jsonl",
    )
    parts = ("tagger",)
    formats: ClassVar[Mapping[str, str]] = {".conll": "a word per line", ".conllu": "as Universal Dependencies"}

    lists = True

    def rows(self, path: Path, result: Json) -> Iterator[Row]:
        """Yield the words of each text of a file in columns, without its tags if there are any; the columns are those of training."""
        from bert_jax.tasks.tagging.files import read_words

        return read_words(path, *(result.get(COLUMNS) or ())[:1])

    def given(self, value: str) -> Any:
        """Return the words of a list in JSON; the text itself if it is not one."""
        from bert_jax.tasks.tagging.words import Words

        try:
            found = json.loads(value) if value.lstrip().startswith("[") else None
        except (ValueError, RecursionError):
            return value
        # [1] is a text, such as a reference.
        if not isinstance(found, list) or (found and all(isinstance(one, int | float) for one in found)):
            return value
        return Words(tuple(map(str, found))) if all(isinstance(one, str | int | float) for one in found) else found

    def encode(self, texts: Sequence[Any], pairs: Sequence[Any] | None, reader: Reader, positions: int, /) -> WordWindows:
        """Convert strings, or lists of words, to windows, so that no text is truncated.

        Raises:
            TextError: a text is neither, or has no readable characters.
        """
        from bert_jax.tasks.tagging.words import encode_words

        if pairs is not None:
            raise InputError("tag takes single texts, not pairs: leave the second texts out.")
        return encode_words(texts, reader, positions)

    def start(self, model: Loaded, **options: Any) -> Callable[[WordWindows], Finish[list[list[Span]]]]:
        """Return a function that tags a chunk of texts."""
        from bert_jax.tasks.tagging.outputs import most_probable

        forward, names = model.forward, model.description.labels

        def start(windows: WordWindows) -> Finish[list[list[Span]]]:
            finish = forward.per_token(windows, lambda batch: most_probable(forward.model, forward.params, batch))
            return lambda: spans(windows, finish(), names)

        return start

    def record(self, answer: list[Span]) -> dict[str, Any]:
        """Return a record with `spans`."""
        return {"spans": [vars(span) | {"probability": round(span.probability, 6)} for span in answer]}

    def show(self, records: Sequence[dict[str, Any]]) -> list[str]:
        """Return each text with its spans in brackets, one line per text."""
        return [bracketed(str(one["text"]), [(span["start"], span["end"], span["label"]) for span in one["spans"]]) for one in records]


def bracketed(text: str, found: Sequence[tuple[int, int, str]]) -> str:
    """Return a text with the label of each span (start, end, label) after it, in brackets."""
    shown, place = [], 0
    for start, end, label in found:
        shown.append(f"{text[place:start]}[{text[start:end]} {label}]")
        place = end
    return "".join(shown) + text[place:]


def spans(windows: WordWindows, found: np.ndarray, names: Sequence[str]) -> list[list[Span]]:
    """Return the spans of each text from the tags of all tokens and their probabilities, float32 [t, 2]."""
    import numpy as np

    words = windows.words
    # Own tokens are all tokens, in order, so they are indexed as the tokens are.
    found = found[windows.own_cells()]
    tags = np.where(words.first >= 0, found[words.first, 0], -1).astype(np.int64).tolist()
    probabilities, places = found[words.first, 1].astype(np.float64), words.spans.tolist()
    answers, begin = [], 0
    for text, count in zip(windows.strings, words.counts.tolist(), strict=True):
        own = [names[tag] if tag >= 0 else schemes.OUTSIDE for tag in tags[begin : begin + count]]
        answers.append([_span(text, entity, places, probabilities, begin) for entity in entities(own, names)])
        begin += count
    return answers


def entities(tags: Sequence[str], names: Sequence[str]) -> list[schemes.Entity]:
    """Return the entities of a model's tags; if no tag of the model marks entities, each word is one, unless it has no token."""
    if any(name == schemes.OUTSIDE or schemes.parts(name)[0] for name in names):
        return [*schemes.grouped_entities(tags)]
    return [schemes.Entity(tag, index, index + 1) for index, tag in enumerate(tags) if tag != schemes.OUTSIDE]


def _span(text: str, entity: schemes.Entity, places: Sequence[Sequence[int]], probabilities: np.ndarray, begin: int) -> Span:
    first, last = begin + entity.start, begin + entity.end - 1
    start, end = places[first][0], places[last][1]
    return Span(entity.type, text[start:end], start, end, float(probabilities[first : last + 1].mean()))


