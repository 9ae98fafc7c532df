"""Losses in which all texts of a batch see each other: their values, gradients, batches and scores."""

import dataclasses
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import children
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from test_labelled import Letters

from bert_jax.config import LabelledConfig
from bert_jax.data.labelled import LabelledExamples, load_labelled
from bert_jax.data.labelled_batches import labelled_batches, labelled_evaluation
from bert_jax.data.pipeline import merge_states
from bert_jax.errors import InputError
from bert_jax.model.batch import zero_row
from bert_jax.model.bert import EmbeddingModel
from bert_jax.model.dropout import row_keys
from bert_jax.tasks.contrastive.objective import ContrastiveObjective
from bert_jax.tasks.contrastive.pairs import Pairs, single_texts
from bert_jax.tasks.contrastive.scores import VectorScorer, pair_cosines, retrieval_scores, retrieved, spearman

BATCH, PER_ROW = 8, 3
ON_MESHES = [((2, 1, 1), "pairs"), ((1, 2, 2), "pairs"), ((2, 2, 1), "in microbatches")]
ON_MESHES += [((4, 1, 1), case) for case in ("pairs", "scored pairs", "in microbatches")]


def examples(count: int, negatives: bool = False, scores: Sequence[float] | None = None, seed: int = 0) -> LabelledExamples:
    """Distinct made-up texts, whose tokens are in the vocabulary of the tiny model."""
    rng = np.random.default_rng(seed)
    texts = ["".join(chr(5 + token) for token in rng.integers(0, 90, rng.integers(3, 12))) for _ in range(3 * count)]
    targets: np.ndarray = np.array(texts[2 * count :], object) if negatives else np.zeros(count, np.int8)
    if scores is not None:
        targets = np.array(scores, np.float32)
    return LabelledExamples(texts[:count], texts[count : 2 * count], targets, np.arange(count))


def batch_of(labelled: LabelledExamples) -> dict[str, np.ndarray]:
    """All pairs, in one batch."""
    rows, together = single_texts(labelled)
    ((batch, _),) = labelled_evaluation(rows, Letters(), tiny.ROWS.length, PER_ROW, True, BATCH, together=together)
    return batch


@cache
def parameters(dropout: float = 0.0) -> tuple[EmbeddingModel, Any]:
    config = dataclasses.replace(tiny.ENCODER, layers=1, dropout=dropout, attention_dropout=dropout)
    model = EmbeddingModel(tiny.VOCABULARY, config, tiny.COMPUTE)
    return model, model.init(jax.random.key(0), zero_row())["params"]


def vectors_and_loss(labelled: LabelledExamples, **options: Any) -> tuple[list[np.ndarray], float]:
    """The vectors of each column in the order of the pairs, and our loss of them."""
    model, params = parameters()
    batch = tiny.as_jax(batch_of(labelled))
    objective = ContrastiveObjective(model, **{"scored": False, "temperature": 0.05} | options)
    metrics = objective.metrics(params, batch, None)
    vectors = np.asarray(objective.vectors(params, batch, None)).reshape(-1, 32)
    targets, weights = np.asarray(batch["labels"]).reshape(-1, 4), np.asarray(batch["example_weights"]).ravel()
    columns = []
    for role in range(3 if labelled.targets.dtype == object else 2):
        own = np.flatnonzero((weights > 0) & (targets[:, 1] == role))
        columns.append(vectors[own[np.argsort(targets[own, 0])]])
    return columns, float(metrics["loss"].total / metrics["loss"].count)


@pytest.mark.parametrize("negatives", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
def test_the_loss_of_pairs_is_that_of_sentence_transformers(negatives: bool, symmetric: bool) -> None:
    torch, losses = pytest.importorskip("torch"), pytest.importorskip("sentence_transformers.losses")
    columns, loss = vectors_and_loss(examples(7, negatives), symmetric=symmetric, temperature=0.1)
    both = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"} if symmetric else {}
    theirs = losses.MultipleNegativesRankingLoss(model=None, scale=10.0, **both)
    wanted = theirs.compute_loss_from_embeddings([torch.tensor(column) for column in columns], None)
    assert loss == pytest.approx(float(wanted), rel=1e-5)


def test_the_loss_of_scored_pairs_is_that_of_sentence_transformers() -> None:
    torch, losses = pytest.importorskip("torch"), pytest.importorskip("sentence_transformers.losses")
    scores = [0.0, 5.0, 2.5, 2.5, 4.0, 1.0, 0.0]
    columns, loss = vectors_and_loss(examples(7, scores=scores), scored=True)
    wanted = losses.CoSENTLoss(model=None, scale=20.0).compute_loss_from_embeddings([*map(torch.tensor, columns)], torch.tensor(scores))
    assert loss == pytest.approx(float(wanted), rel=1e-5)
    _, scaled = vectors_and_loss(examples(7, scores=[10 * score - 3 for score in scores]), scored=True)
    assert scaled == loss, "only the order of the scores counts"


def written_out(columns: list[np.ndarray], texts: list[list[str]], temperature: float) -> float:
    """The loss, one anchor at a time: texts known to belong to it are left out."""
    anchors, positives = (column / np.linalg.norm(column, axis=1, keepdims=True) for column in columns)
    related = {(anchor, positive) for anchor, positive in zip(*texts, strict=True)}
    losses = []
    for i, anchor in enumerate(texts[0]):
        own = np.exp(anchors[i] @ positives[i] / temperature)
        kept = [j for j, other in enumerate(texts[1]) if (anchor, other) not in related and anchor != other]
        losses.append(-np.log(own / (own + sum(np.exp(anchors[i] @ positives[j] / temperature) for j in kept))))
    return float(np.mean(losses))


def test_equal_texts_are_no_negatives() -> None:
    labelled = examples(6)
    a, b = list(labelled.texts), list(labelled.pairs or ())
    a[1] = f"{a[0][:2]} {a[0][2:]}"  # the same query with another answer, and different whitespace
    b[3] = b[2]  # two queries with one answer
    b[5] = a[4]  # an answer that is another pair's query
    plain = examples(6)
    for texts in ((a, b), (plain.texts, plain.pairs)):
        pairs = LabelledExamples(*map(list, texts), np.zeros(6, np.int8), np.arange(6))  # type: ignore[arg-type]
        columns, loss = vectors_and_loss(pairs)
        same = [["".join(text.split()) for text in column] for column in texts]  # type: ignore[union-attr]
        assert loss == pytest.approx(written_out(columns, same, 0.05), rel=1e-5)
    # A positive of the same anchor in another pair, although this pair's anchor is another text.
    triples = dataclasses.replace(pairs, targets=np.array([*plain.pairs[1:], plain.pairs[0]], object))  # type: ignore[index]
    triples.targets[0] = plain.texts[0][:1] + " " + plain.texts[0][1:]
    _, with_own_text = vectors_and_loss(triples)
    triples.targets[0] = "".join(chr(60 + index) for index in range(9))
    assert with_own_text < vectors_and_loss(triples)[1], "the anchor's own text is not among its negatives"


def gradients(objective: ContrastiveObjective, params: Any, batch: Any, keys: Any) -> tuple[float, Any]:
    def loss(params: Any) -> jax.Array:
        metrics = objective.metrics(params, batch, keys)
        return metrics["loss"].total / objective.normalizers(batch)["loss"]

    value, grads = jax.jit(jax.value_and_grad(loss))(params)
    return float(value), grads


@pytest.mark.parametrize("scored", [False, True])
def test_microbatches_have_the_gradient_of_the_batch(scored: bool) -> None:
    model, params = parameters(dropout=0.2)
    batch = tiny.as_jax(batch_of(examples(11, scores=range(11) if scored else None)))
    keys = row_keys(jax.random.key(3), BATCH)
    objective = ContrastiveObjective(model, scored, 0.05, symmetric=not scored)
    loss, wanted = gradients(objective, params, batch, keys)
    found_loss, found = gradients(dataclasses.replace(objective, microbatches=4), params, batch, keys)
    assert found_loss == pytest.approx(loss, rel=1e-5)
    for tree in (found, wanted):
        del tree["encoder"]["layers"]["key"]["bias"]  # no output depends on it, so its gradient is rounding alone
    tiny.assert_close(found, wanted, 1e-4)
    plain, _ = gradients(objective, params, batch, None)
    assert abs(plain - loss) > 1e-3, "dropout changes the loss"


def test_microbatches_must_divide_the_rows() -> None:
    model, params = parameters()
    objective = ContrastiveObjective(model, False, 0.05, microbatches=3)
    with pytest.raises(InputError, match=r"8 rows on 1 device cannot be divided into 3 microbatches.*multiple of 3"):
        objective.metrics(params, tiny.as_jax(batch_of(examples(5))), None)


@pytest.mark.parametrize("pooling", ["cls", "max", "lasttoken"])
def test_empty_slots_have_finite_gradients(pooling: str) -> None:
    model, params = parameters()
    model = model.clone(pooling=pooling, normalize=False)
    _, grads = gradients(ContrastiveObjective(model, False, 0.05), params, tiny.as_jax(batch_of(examples(3))), None)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))


@pytest.fixture(scope="module")
def devices() -> dict[str, Any]:
    return json.loads(children.finish([children.start("contrastive.py", devices=4)])[0])


@pytest.mark.slow
@pytest.mark.parametrize(("mesh", "case"), ON_MESHES)
def test_loss_and_gradients_on_a_mesh_are_those_of_one_device(devices: dict[str, Any], mesh: tuple[int, ...], case: str) -> None:
    found, wanted = devices[str(mesh)][case], devices["(1, 1, 1)"][case if case == "scored pairs" else "pairs"]
    assert found["loss"] == pytest.approx(wanted["loss"], rel=2e-5)
    for path, gradient in wanted["gradients"].items():
        np.testing.assert_allclose(found["gradients"][path], gradient, atol=2e-4 * np.abs(gradient).max(), err_msg=path)


@pytest.mark.slow
def test_microbatches_need_less_memory_and_one_sum_of_gradients(devices: dict[str, Any]) -> None:
    whole, parts = (devices["(4, 1, 1)"][case] for case in ("pairs", "in microbatches"))
    assert parts["loss"] == pytest.approx(whole["loss"], rel=2e-5)
    assert parts["memory"] < 0.75 * whole["memory"]
    assert parts["all-reduced"] < 1.1 * whole["all-reduced"]


# Batches.


def stream(count: int, epochs: int = 3, batch_size: int = BATCH, **options: Any) -> Any:
    rows, together = single_texts(examples(count, negatives=True))
    return labelled_batches(rows, Letters(), 24, PER_ROW, True, batch_size, 5, epochs, "embedding", together=together, **options)


def test_texts_of_a_pair_are_in_one_batch_and_every_pair_once_an_epoch() -> None:
    batches = stream(100)
    found, per_epoch = list(batches), batches.steps_per_epoch
    assert len(found) == 3 * per_epoch
    orders = []
    for epoch in range(3):
        pairs, sizes = [], []
        for batch in found[epoch * per_epoch : (epoch + 1) * per_epoch]:
            used = batch["example_weights"] > 0
            own = [tuple(row) for row in batch["labels"][used][:, :2].tolist()]
            numbers = sorted({pair for pair, _ in own})
            assert sorted(own) == [(pair, role) for pair in numbers for role in range(3)]
            assert (batch["segments"] == 0).all()
            pairs += numbers
            sizes.append(len(numbers))
        assert sorted(pairs) == list(range(100))
        assert max(sizes) - min(sizes) <= 1
        orders.append(pairs)
    assert orders[0] != orders[1] != orders[2]
    rows = sum((batch["example_ids"] > 0).any(1).sum() for batch in found)
    assert rows > 0.8 * BATCH * len(found), "few rows are empty"


def test_processes_share_the_batches_and_go_on_where_they_stopped() -> None:
    whole = list(stream(50))
    parts = [stream(50, process_index=index, process_count=2) for index in range(2)]
    for expected in whole[:2]:
        joined = [next(part) for part in parts]
        np.testing.assert_array_equal(np.concatenate([part["tokens"] for part in joined]), expected["tokens"])
    restored = stream(50)
    restored.set_state(merge_states([part.get_state() for part in parts]))
    np.testing.assert_array_equal(next(restored)["labels"], whole[2]["labels"])


@pytest.mark.parametrize(("count", "rows", "message"), [(1, 8, "a split has only one: add"), (9, 1, "a batch of 1 row holds only one")])
def test_a_batch_of_one_pair_is_refused(count: int, rows: int, message: str) -> None:
    with pytest.raises(InputError, match=f"compared with the others in its batch, but {message}"):
        stream(count, batch_size=rows)


def test_long_texts_have_rows_of_their_own() -> None:
    rows, together = single_texts(LabelledExamples(["a" * 40, "b" * 50] * 5, ["c" * 60, "d"] * 5, np.zeros(10, np.int8), np.arange(10)))
    batches = labelled_evaluation(rows, Letters(), 16, PER_ROW, True, 4, together=together)
    assert sum(int((indices >= 0).sum()) for _, indices in batches) == 20 and len(batches) >= 4


# Scores.


def test_ranks_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    _, targets = (part := single_texts(examples(30, negatives=True)))[0].texts, part[0].targets
    vectors = rng.standard_normal((90, 6)).astype(np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit[0::3] @ np.concatenate([unit[1::3], unit[2::3]]).T
    wanted = [1 + sum(row > row[index]) for index, row in enumerate(cosines)]
    found = [*retrieved(vectors, targets, 3)]
    assert [one.rank for one in found] == wanted
    assert retrieval_scores([1, 2, 20])["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 20) / 3)
    assert retrieval_scores([1, 2, 20])["recall_at_10"] == pytest.approx(2 / 3) and retrieval_scores([1, 2, 20])["recall_at_1"] == 1 / 3
    best = [int(row.argmax()) for row in cosines]
    assert [one.nearest[0] for one in found] == [3 * index + 1 if index < 30 else 3 * (index - 30) + 2 for index in best]
    assert [one.correct[0] for one in found] == [index == pair for pair, index in enumerate(best)]
    assert [one.cosines[0] for one in found] == pytest.approx([row.max() for row in cosines], abs=1e-6)


def test_equal_vectors_and_nan_earn_nothing() -> None:
    targets = single_texts(examples(21))[0].targets
    for value in (1.0, 0.0, np.nan):
        ranks = [one.rank for one in retrieved(np.full((42, 4), value, np.float32), targets)]
        assert min(ranks) > 5 and retrieval_scores(ranks)["recall_at_1"] == 0


def test_other_positives_do_not_count_against_a_text() -> None:
    pairs = LabelledExamples(["q", "q", "r"], ["x", "y", "z"], np.zeros(3, np.int8), np.arange(3))
    vectors = np.array([[1, 0], [0.9, 0.1], [1, 0], [1, 0.01], [0, 1], [0, 1]], np.float32)
    found = [*retrieved(vectors, single_texts(pairs)[0].targets, 2)]
    assert [one.rank for one in found] == [1, 1, 1]
    assert found[0].correct == [True, True]


def test_vectors_of_several_models_are_not_compared() -> None:
    texts, _ = single_texts(examples(9))
    vectors = np.random.default_rng(0).standard_normal((18, 4)).astype(np.float32)
    scorer = VectorScorer(texts.texts, texts.targets, None)
    parts = [np.concatenate([2 * pairs, 2 * pairs + 1]) for pairs in (np.array([1, 4, 7, 8]), np.array([0, 2, 3, 5, 6]))]
    for slots in parts:
        scorer.add(slots, vectors[slots])
    ranks = []
    for slots in map(np.sort, parts):
        of_one = VectorScorer([texts.texts[slot] for slot in slots], texts.targets[slots], None)
        of_one.add(np.arange(len(slots)), vectors[slots])
        lines = [of_one.line(index) for index in range(len(slots) // 2)]
        assert lines == [scorer.line(pair) for pair in (slots[::2] // 2).tolist()]
        ranks += [line["rank"] for line in lines]
    assert scorer.result()["mrr"] == pytest.approx(np.mean(1 / np.array(ranks)))


def test_spearman_is_that_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(1)
    scores, vectors = rng.integers(0, 5, 40).astype(np.float32), rng.standard_normal((80, 5)).astype(np.float32)
    targets = single_texts(examples(40, scores=scores.tolist()))[0].targets
    cosines, ranks = pair_cosines(vectors, targets)
    by_hand = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(vectors[0::2], vectors[1::2], strict=True)]
    np.testing.assert_allclose(cosines, by_hand, atol=1e-6)
    assert spearman(ranks, cosines) == pytest.approx(stats.spearmanr(scores, by_hand).statistic, abs=1e-9)
    assert spearman(np.ones(4), cosines[:4]) is None and spearman(scores[:4], np.full(4, np.nan)) is None


def test_held_out_batches_are_scored_together() -> None:
    model, params = parameters()
    rows, together = single_texts(examples(24))
    batches = labelled_evaluation(rows, Letters(), tiny.ROWS.length, PER_ROW, True, BATCH, together=together)
    objective = ContrastiveObjective(model, False, 0.05)
    outputs = [jax.device_get(objective.evaluated(params, tiny.as_jax(batch))[1]) for batch, _ in batches]
    vectors = np.zeros((48, 32), np.float32)
    for (_, indices), (found, _, _) in zip(batches, outputs, strict=True):
        vectors[indices[indices >= 0]] = found[indices >= 0]
    assert len(batches) > 1
    assert objective.together(outputs) == retrieval_scores([one.rank for one in retrieved(vectors, rows.targets)])
    assert jnp.isfinite(vectors).all()


def test_dev_is_not_held_out_of_a_single_pair_of_texts(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("text\ttext_pair\tno\n" + "".join(f"a\tb\tc{number}\n" for number in range(3)))
    with pytest.raises(InputError, match=r"The 3 examples of .*train.tsv have too few different texts to hold out a dev set"):
        load_labelled(LabelledConfig(train=str(tmp_path / "train.tsv"), text_pair="text_pair"), Pairs("no", "refuse"), 0)
