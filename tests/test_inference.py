"""The answers of a loaded model against the model called directly, whatever the company, the order and the length of a text."""

import dataclasses
import subprocess
import sys
import warnings
from functools import partial

import children
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_parameters, write_model

import bert_jax
from bert_jax.config import ComputeConfig
from bert_jax.errors import InputError
from bert_jax.inference import Bert, TextError, TruncationWarning, chunks, forward
from bert_jax.model import directory as model_directory
from bert_jax.model.bert import ClassificationModel, PretrainingModel
from bert_jax.model.directory import EmbeddingConfig, ModelDescription
from bert_jax.tasks.pretraining import answers
from bert_jax.tasks.pretraining import questions as pretrained_questions
from bert_jax.training.checkpoints.saving import Checkpoints
from bert_jax.training.state import TrainState

PAIRS = [("这家酒店", "服务很好"), ("the cat", "sat on the mat, good"), ("太差", "房间也很干净。再也不来了"), ("很", "好")]


@pytest.fixture(scope="module")
def bert(tiny_pretrained) -> Bert:
    return bert_jax.load(tiny_pretrained)


@pytest.fixture(scope="module")
def classifier(tiny_classifier) -> Bert:
    return bert_jax.load(str(tiny_classifier))


def row(bert: Bert, a: str, b: str = "", length: int = 48) -> dict[str, jax.Array]:
    """One row, built by hand; of one length, so that the model is compiled once."""
    t = bert.tokenizer
    first = [t.cls_id, *t.encode(a).ids.tolist(), t.sep_id]
    second = [*t.encode(b).ids.tolist(), t.sep_id] if b else []
    tokens = first + second
    fields = {
        "tokens": tokens,
        "example_ids": [1] * len(tokens),
        "positions": range(len(tokens)),
        "segments": [0] * len(first) + [1] * len(second),
        "masked_positions": [i for i, token in enumerate(tokens) if token == t.mask_id],
    }
    padded = {name: [*values, *([0] * length)][:length] for name, values in fields.items()}
    return {name: jnp.array([values], jnp.int32) for name, values in (padded | {"cls_positions": [0]}).items()}


@pytest.fixture(scope="module")
def reference(bert):
    """Both heads of the model over one row."""
    model = PretrainingModel(bert.tokenizer.vocab_size, bert.config, ComputeConfig())
    return jax.jit(lambda row: model.apply({"params": bert.params}, row))


def softmax(scores) -> np.ndarray:
    return np.asarray(jax.nn.softmax(scores, axis=-1), np.float64)


def test_blanks_are_filled_as_by_the_model_itself(bert, reference):
    texts = ["这家[MASK]店的服[MASK]很好", "the [MASK] sat on the mat", "[MASK]" * 40]
    for text, masks in zip(texts, bert.fill_mask(texts, top_k=7), strict=True):
        assert len(masks) == text.count("[MASK]")
        wanted = softmax(reference(row(bert, text)).masked_tokens[0, : len(masks)])
        for predictions, probabilities in zip(masks, wanted, strict=True):
            best = np.argsort(-probabilities)[:7]
            assert [p.id for p in predictions] == best.tolist()
            assert [p.token for p in predictions] == bert.tokenizer.tokens(best)
            np.testing.assert_allclose([p.probability for p in predictions], probabilities[best], rtol=1e-4)
    assert [[p.id for p in mask] for mask in bert.fill_mask(texts[0], top_k=7)] == [
        [p.id for p in mask] for mask in bert.fill_mask(texts[:1], top_k=7)[0]
    ]


def test_the_whole_vocabulary_sums_to_one(bert):
    [mask] = bert.fill_mask("很[MASK]", top_k=bert.tokenizer.vocab_size)
    assert sum(p.probability for p in mask) == pytest.approx(1, abs=1e-5)
    for top_k in (0, bert.tokenizer.vocab_size + 1):
        with pytest.raises(InputError, match="top_k"):
            bert.fill_mask("很[MASK]", top_k)


def test_next_sentence_is_the_probability_of_the_class_is_next(bert, reference):
    wanted = [softmax(reference(row(bert, a, b)).next_sentence[0, 0])[1] for a, b in PAIRS]
    found = bert.next_sentence([a for a, _ in PAIRS], [b for _, b in PAIRS])
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert np.ptp(wanted) > 0.01
    assert bert.next_sentence(*PAIRS[0]) == pytest.approx(found[0], abs=1e-5)


def described(bert: Bert, **changes) -> Bert:
    """The same model with another description."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    return Bert(dataclasses.replace(bert._model.description, **changes), bert.tokenizer, bert._model.forward.model, bert.params, mesh)


def hidden_states(bert: Bert, text: str) -> np.ndarray:
    """Of the embeddings and every layer [N + 1, L, D], in a row without padding."""
    model = PretrainingModel(bert.tokenizer.vocab_size, bert.config, ComputeConfig())
    unpadded = row(bert, text, length=len(bert.tokenizer.encode(text)) + 2)
    states = jax.jit(lambda row: model.apply({"params": bert.params}, row, method="encode", every_layer=True)[1])
    return np.asarray(states(unpadded)[:, 0])


def test_vectors_are_pooled_from_a_texts_own_tokens_in_any_layer(bert):
    text = "这家酒店的服务很好"
    states = hidden_states(bert, text)
    texts = [text, "cat", "太差"]  # which share a row
    pools = {"mean": lambda hidden: hidden.mean(0), "cls": lambda hidden: hidden[0], "max": lambda hidden: hidden.max(0)}
    for pooling, pool in pools.items():
        found = bert.embed(texts, pooling)
        assert found.shape == (3, 32) and found.dtype == np.float32
        np.testing.assert_allclose(found[0], pool(states[-1]), atol=1e-5)
    for layer, wanted in ((0, states[0]), (1, states[1]), (-2, states[1]), (2, states[2]), (-3, states[0])):
        np.testing.assert_allclose(bert.embed(texts, layer=layer)[0], wanted.mean(0), atol=1e-5)
    assert bert.embed(text, "max").shape == (32,)
    np.testing.assert_allclose(bert.embed(text, "max", layer=1), states[1].max(0), atol=1e-5)


def test_lower_layers_are_compiled_when_they_are_asked_for(bert):
    text = "很" * 40
    bert.embed(text)
    compiled = forward._encode._cache_size()
    bert.embed(text, layer=2)
    assert forward._encode._cache_size() == compiled
    bert.embed(text, layer=1)
    assert forward._encode._cache_size() == compiled + 1


def test_vectors_are_scaled_to_length_one_if_asked(bert):
    plain, scaled = bert.embed(["很好", "cat"]), bert.embed(["很好", "cat"], normalize=True)
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(scaled, plain / np.linalg.norm(plain, axis=1)[:, None], atol=1e-6)
    assert abs(np.linalg.norm(plain[0]) - 1) > 0.1


def test_a_description_says_how_texts_are_embedded(bert):
    settings = EmbeddingConfig("max", normalize=True, max_length=7)
    imported = described(bert, embedding=settings)
    with pytest.warns(TruncationWarning, match="1 of 2 texts are longer than the model's limit of 7 tokens"):
        found = imported.embed(["这家酒店的服务很好", "cat"])
    assert imported.truncated == 1
    np.testing.assert_allclose(found, bert.embed(["这家酒店的", "cat"], "max", normalize=True), atol=1e-5)
    np.testing.assert_allclose(imported.embed("cat", "mean", normalize=False), bert.embed("cat"), atol=1e-5)
    assert imported.fill_mask("这家酒店的服务很[MASK]") and imported.truncated == 1


def test_a_score_is_the_sum_over_tokens_covered_one_by_one(bert):
    texts = ["这家酒店的服务很好", "the cat", "很", "cat"]
    everything = bert.tokenizer.vocab_size

    def by_hand(text: str) -> float:
        tokens = bert.tokenizer.tokens(bert.tokenizer.encode(text).ids)
        gap = "" if len(tokens) == len(text) else " "
        covered = [gap.join([*tokens[:i], "[MASK]", *tokens[i + 1 :]]) for i in range(len(tokens))]
        answers = zip(tokens, bert.fill_mask(covered, everything), strict=True)
        return sum(np.log(p.probability) for token, masks in answers for p in masks[0] if p.token == token)

    scores = bert.score(texts)
    np.testing.assert_allclose(scores, [by_hand(text) for text in texts], rtol=1e-4)
    assert isinstance(scores[0], float) and max(scores) < 0
    assert bert.score(texts[0]) == pytest.approx(scores[0], rel=1e-5)


def test_the_tokens_of_a_score_are_its_terms(bert, monkeypatch):
    texts = ["The CAT sat 很好", "🐈 很[MASK]好", "很"]
    monkeypatch.setattr(chunks, "CHUNK", 2)
    found = bert.score(texts, tokens=True)
    np.testing.assert_allclose([sum(one.log_probability for one in own) for own in found], bert.score(texts), rtol=1e-5)
    for text, own in zip(texts, found, strict=True):
        ids = bert.tokenizer.encode(text).ids.tolist()
        assert [one.token for one in own] == [token for token in bert.tokenizer.tokens(ids) if token != "[MASK]"]
        for one in own:
            covered = f"{text[: one.start]}[MASK]{text[one.end :]}"
            guesses = bert.fill_mask(covered, bert.tokenizer.vocab_size)[-1 if one.start > covered.index("[MASK]") else 0]
            wanted = next(guess.probability for guess in guesses if guess.token == one.token)
            assert one.log_probability == pytest.approx(np.log(wanted), abs=1e-4)
    assert [(one.start, one.end) for one in found[1]] == [(0, 1), (2, 3), (9, 10)]
    assert bert.score("[MASK]", tokens=True) == [] and bert.score("很", tokens=True) == found[2]


def test_scores_of_many_texts_are_made_in_groups(bert, monkeypatch):
    texts = ["很" * size for size in (1, 40, 3, 46)] + ["好[MASK]"]
    wanted = [bert.score(text) for text in texts]
    monkeypatch.setattr(pretrained_questions, "_BATCHES_PER_CHUNK", 1)
    monkeypatch.setattr(chunks, "CHUNK", 3)
    np.testing.assert_allclose(bert.score(iter(texts)), wanted, rtol=1e-5)
    assert bert.score("[MASK]") == 0
    with pytest.warns(TruncationWarning):
        assert bert.score("很" * 50) == pytest.approx(wanted[3], rel=1e-5)


def test_words_are_the_only_answers_and_keep_their_probabilities(bert):
    text = "很[MASK],the [MASK]"
    everything = [{p.token: p.probability for p in mask} for mask in bert.fill_mask(text, bert.tokenizer.vocab_size)]
    words = ["好", "cat", "Mat", "差", "好"]
    for mask, wanted in zip(bert.fill_mask(text, words=words), everything, strict=True):
        assert {p.token for p in mask} == {"好", "cat", "mat", "差"}
        probabilities = [p.probability for p in mask]
        assert probabilities == sorted(probabilities, reverse=True)
        assert probabilities == pytest.approx([wanted[p.token] for p in mask], rel=1e-4)
    assert [len(mask) for mask in bert.fill_mask(text, top_k=2, words=words)] == [2, 2]


def test_classes_are_those_of_the_best_checkpoint(classifier):
    model = ClassificationModel(classifier.tokenizer.vocab_size, classifier.config, ComputeConfig(), 3, "mean")
    first = random_parameters(classifier._model.description, classifier.tokenizer.vocab_size, seed=1)
    reference = jax.jit(lambda row: model.apply({"params": first}, row))
    for pairs in (None, [b for _, b in PAIRS]):
        found = classifier.classify([a for a, _ in PAIRS], pairs)
        for (a, b), classified in zip(PAIRS, found, strict=True):
            wanted = softmax(reference(row(classifier, a, b if pairs else ""))[0, 0])
            assert tuple(classified.probabilities) == ("negative", "neutral", "positive") == classifier.labels
            np.testing.assert_allclose(list(classified.probabilities.values()), wanted, atol=1e-5)
            assert classified.label == classifier.labels[wanted.argmax()]
            assert classified.probability == max(classified.probabilities.values())
    assert classifier.classify("很").label == classifier.classify(["很"])[0].label


def test_the_newest_checkpoint_of_a_pretrained_model_is_taken(tmp_path, bert):
    description = ModelDescription("pretraining", bert.config, 32)
    newest = bert_jax.load(write_model(tmp_path, description, seeds=(3, 4), scores=(0.9, 0.8)))
    wanted = random_parameters(description, bert.tokenizer.vocab_size, seed=4)
    np.testing.assert_array_equal(newest.params["embeddings"]["tokens"], wanted["embeddings"]["tokens"])
    with pytest.raises(InputError, match="without the next-sentence task"):
        newest.next_sentence("很", "好")


def test_an_answer_does_not_depend_on_the_company_or_the_order_of_a_text(bert, classifier):
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("这家酒店的服务很好cat "), rng.integers(1, 90))) + "很" for _ in range(60)]
    texts = [text[:44] for text in texts]
    order = rng.permutation(len(texts))
    alone = np.stack([bert.embed(text) for text in texts[:4]])
    together = bert.embed(texts)
    np.testing.assert_allclose(together[:4], alone, atol=1e-5)
    np.testing.assert_allclose(bert.embed([texts[i] for i in order]), together[order], atol=1e-5)
    np.testing.assert_allclose(bert.embed(iter(texts)), together, atol=0)
    masked = ["[MASK]" + text[:40] for text in texts]
    for text, together_ in zip(masked[:2], bert.fill_mask(masked), strict=False):
        assert [p.probability for p in together_[0]] == pytest.approx([p.probability for p in bert.fill_mask(text)[0]], abs=1e-5)
    for text, together_ in zip(texts[:2], classifier.classify(texts), strict=False):
        assert together_.probabilities == pytest.approx(classifier.classify(text).probabilities, abs=1e-5)


def test_chunks_keep_the_order_and_number_the_texts_through(bert, monkeypatch):
    texts = [a + b for a, b in PAIRS] * 3
    whole = bert.embed(texts)
    monkeypatch.setattr(chunks, "CHUNK", 5)
    np.testing.assert_allclose(bert.embed(text for text in texts), whole, atol=1e-5)
    with pytest.raises(TextError, match="Text 12 ") as error:
        bert.embed([*texts, " "])
    assert error.value.index == 12
    with pytest.raises(InputError, match="two lists of the same length"):
        bert.next_sentence(texts, texts[:-1])


def test_any_lengths_compile_a_handful_of_programs(bert):
    before = forward._encode._cache_size(), answers.top_tokens._cache_size()
    for count in range(1, 47):
        texts = ["[MASK]" + "很" * (count - 1), "[MASK]"]
        bert.fill_mask(texts[0], top_k=3)
        bert.fill_mask(texts, top_k=3)
    bert.embed(["很" * count for count in range(1, 47)] * 3)
    # One row of 16, 32 or 64 tokens; of 128, one and a full batch.
    assert forward._encode._cache_size() - before[0] <= 5
    assert answers.top_tokens._cache_size() - before[1] <= 3


def test_only_covered_positions_meet_the_vocabulary(bert):
    batch = {name: np.zeros((8, 48), np.int32) for name in ("tokens", "positions", "segments", "example_ids")}
    encode = partial(forward._encode, bert._model.forward.model)
    top_tokens = partial(answers.top_tokens, bert._model.forward.model, top_k=5)
    places, allowed = np.zeros(forward._LEAST_MASKED, np.int32), np.ones(bert.tokenizer.vocab_size, np.bool_)
    jaxprs = (
        jax.make_jaxpr(encode)(bert.params, batch),
        jax.make_jaxpr(top_tokens)(bert.params, jax.eval_shape(encode, bert.params, batch), places, places, allowed),
    )
    over_vocabulary = [
        np.prod(shape) for jaxpr in jaxprs for shape in shapes(jaxpr.jaxpr) if shape and shape[-1] == bert.tokenizer.vocab_size
    ]
    assert max(over_vocabulary) == forward._LEAST_MASKED * bert.tokenizer.vocab_size


def shapes(jaxpr) -> list[tuple[int, ...]]:
    found = []
    for equation in jaxpr.eqns:
        found += [v.aval.shape for v in equation.outvars]
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            found += shapes(inner) if hasattr(inner, "eqns") else []
    return found


def test_long_texts_are_cut_counted_and_told(bert):
    before = bert.truncated
    with pytest.warns(TruncationWarning, match="2 of 3 texts are longer than the model's limit of 48 tokens") as caught:
        vectors = bert.embed(["很" * 46, "很" * 47, "很" * 90])
    assert caught[0].filename == __file__
    assert bert.truncated - before == 2
    np.testing.assert_allclose(vectors[1:], vectors[[0, 0]], atol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bert.embed("很" * 46)


def test_a_text_is_cut_around_its_masks(bert):
    with pytest.warns(TruncationWarning):
        masks = bert.fill_mask(["很" * 60 + "[MASK]", "[MASK]" + "很" * 60, "很" * 30 + "[MASK][MASK]" + "很" * 30])
    assert [len(mask) for mask in masks] == [1, 1, 2]
    last, first = (bert.fill_mask(text)[0] for text in ("很" * 45 + "[MASK]", "[MASK]" + "很" * 45))
    for cut, whole in ((masks[0], last), (masks[1], first)):
        assert [p.id for p in cut[0]] == [p.id for p in whole]
        assert [p.probability for p in cut[0]] == pytest.approx([p.probability for p in whole], abs=1e-5)
    with pytest.raises(TextError, match="too far apart"):
        bert.fill_mask("[MASK]" + "很" * 60 + "[MASK]")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda bert: bert.embed(["很", "", "好"]), "Text 1 .*empty"),
        (lambda bert: bert.embed(["很", " \u200b\n"]), "Text 1 .*empty"),
        (lambda bert: bert.next_sentence(["很", "好"], ["很", ""]), "Text 1 .*empty"),
        (lambda bert: bert.embed(["很", None]), "Text 1 .*NoneType"),
        (lambda bert: bert.embed("很", "median"), "pooling='median'.*cls, max, mean"),
        (lambda bert: bert.embed("很", layer=3), "layer=3.*to 2 or -1"),
        (lambda bert: bert.embed("很", layer=-4), "layer=-4"),
        (lambda bert: bert.score(["很", ""]), "Text 1 .*empty"),
        (lambda bert: bert.fill_mask("[MASK]", words=["好", "cat mat"]), "'cat mat' .*pieces cat mat,"),
        (lambda bert: bert.fill_mask("[MASK]", words=["龘"]), r"'龘' .*\[UNK\]"),
        (lambda bert: bert.fill_mask("[MASK]", words=[" "]), "' ' .*nothing"),
        (lambda bert: bert.fill_mask("[MASK]", words=[]), "one or more words"),
        (lambda bert: bert.fill_mask("[MASK]", words="好"), "give a list"),
        (lambda bert: bert.fill_mask(["很[MASK]", "很"]), r"Text 1 .*no \[MASK\]"),
        (lambda bert: bert.next_sentence("很", ["好"]), "cannot be paired"),
        (lambda bert: bert.classify("很"), "requires a classifier"),
    ],
)
def test_what_cannot_be_answered_is_an_input_error(bert, call, message):
    with pytest.raises(InputError, match=message):
        call(bert)


def test_no_texts_give_no_answers(bert, classifier):
    assert bert.fill_mask([]) == bert.next_sentence([], []) == bert.score(iter(())) == classifier.classify(iter(())) == []
    assert bert.embed([]).shape == (0, 32)


def test_a_classifier_embeds_and_fills_no_masks(classifier):
    with pytest.raises(InputError, match="requires a pre-trained model"):
        classifier.fill_mask("[MASK]")
    assert classifier.embed("很").shape == (32,)


def test_heads_that_were_not_imported_are_told(tmp_path, bert):
    absent = ("pooler", "next_sentence")
    directory = tmp_path / "imported"
    model_directory.write(directory, ModelDescription("pretraining", bert.config, 48, "nsp", absent=absent), bert.tokenizer)
    checkpoints = Checkpoints(directory / "checkpoints", keep=1)
    kept = {name: part for name, part in bert.params.items() if name not in absent}
    checkpoints.save(1, TrainState(jnp.int32(1), kept, optimizer_state=()), {"step": 1})
    checkpoints.close()
    imported = bert_jax.load(directory)
    assert [p.id for p in imported.fill_mask("很[MASK]")[0]] == [p.id for p in bert.fill_mask("很[MASK]")[0]]
    np.testing.assert_allclose(imported.embed("很"), bert.embed("很"), atol=1e-6)
    with pytest.raises(InputError, match=r"pooler and next_sentence.*--initialize-missing.*supports fill_mask, score, embed"):
        imported.next_sentence("很", "好")
    bare = described(bert, absent=("masked_token", "next_sentence"))
    for call in (bare.fill_mask, bare.score):
        with pytest.raises(InputError, match=r"needs masked_token, .* supports embed, similar, attention\."):
            call("[MASK]")


def test_directories_that_are_no_models(tmp_path, tiny_pretrained, tiny_classifier):
    with pytest.raises(InputError, match=f"{tiny_classifier}, {tiny_pretrained}"):
        bert_jax.load(tiny_pretrained.parent)
    with pytest.raises(InputError, match="no model"):
        bert_jax.load(tmp_path / "nowhere")
    (tmp_path / "model.json").write_bytes((tiny_pretrained / "model.json").read_bytes())
    (tmp_path / "tokenizer.json").write_bytes((tiny_pretrained / "tokenizer.json").read_bytes())
    with pytest.raises(InputError, match="no committed checkpoint"):
        bert_jax.load(tmp_path)


def test_bfloat16_is_near_float32(tiny_pretrained, bert):
    half = bert_jax.load(tiny_pretrained, ComputeConfig(dtype="bfloat16", scan_layers=True))
    found, wanted = half.embed(["这家酒店", "cat"]), bert.embed(["这家酒店", "cat"])
    assert found.dtype == np.float32
    assert 0 < np.abs(found - wanted).max() < 0.1


_ELSEWHERE = """
import sys, numpy, jax
import bert_jax
assert not jax._src.xla_bridge.backends_are_initialized()
bert = bert_jax.load(sys.argv[1])
assert len(jax.devices()) == 2 and all(len(leaf.sharding.device_set) == 2 for leaf in jax.tree.leaves(bert.params))
numpy.save(sys.argv[2], bert.embed(["这家酒店", "cat", "很" * 20]))
print([p.id for p in bert.fill_mask("很[MASK]")[0]])
"""


def test_two_devices_give_the_answers_of_one(tiny_pretrained, bert, tmp_path):
    command = [sys.executable, "-c", _ELSEWHERE, str(tiny_pretrained), str(tmp_path / "v.npy")]
    done = subprocess.run(command, env=children.environment(2), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), bert.embed(["这家酒店", "cat", "很" * 20]), atol=1e-5)
    assert done.stdout.strip() == str([p.id for p in bert.fill_mask("很[MASK]")[0]])


def test_import_is_fast_and_takes_no_jax():
    code = "import time; t = time.perf_counter(); import bert_jax, sys; assert 'jax' not in sys.modules; print(time.perf_counter() - t)"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1
