"""Questions and passages as windows with labels, and the loss over them beside transformers."""

from typing import Any

import numpy as np
import pytest

from bert_jax.config import ComputeConfig, EncoderConfig, VocabularyConfig
from bert_jax.data.labelled import LabelledExamples
from bert_jax.data.labelled_batches import labelled_evaluation
from bert_jax.data.windows import Windows
from bert_jax.errors import InputError, TextError
from bert_jax.modalities.text.tokenizer import Tokenizer
from bert_jax.tasks.answering import ANSWERING, HEAD
from bert_jax.tasks.answering.files import NOWHERE, TrueAnswer
from bert_jax.tasks.answering.passages import END, START, EncodedQuestions, encode_asked, encode_passages

LENGTH = 16
PASSAGE = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
QUESTION = "which number"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    words = [PASSAGE, QUESTION, "Jose Angstrom 北京大学"]
    return Tokenizer.train(words * 9, VocabularyConfig(size=300, min_frequency=1), show_progress=False)


def labeled(*rows: tuple[str, str, tuple[TrueAnswer, ...]]) -> LabelledExamples:
    questions, passages, answers = zip(*rows, strict=True)
    targets = np.empty(len(rows), object)
    for row, own in enumerate(answers):
        targets[row] = own
    return LabelledExamples([*questions], [*passages], targets, np.arange(len(rows)))


def at(text: str, passage: str = PASSAGE) -> TrueAnswer:
    return TrueAnswer(text, passage.index(text))


def labels_of(encoded: EncodedQuestions, window: int) -> dict[str, int]:
    """The first and the last token of a window that are labeled, as their text's places."""
    begin = int(encoded.sizes[:window].sum())
    (places,) = np.nonzero(encoded.items >= 0)
    own = encoded.token_labels[places[begin : begin + encoded.sizes[window]]] if encoded.token_labels is not None else np.zeros(0)
    offsets = encoded.offsets[begin : begin + len(own)]
    found = {f"start{index}": int(place) for index, place in enumerate(offsets[(own & START) > 0, 0])}
    return found | {f"end{index}": int(place) for index, place in enumerate(offsets[(own & END) > 0, 1])}


def test_each_window_that_holds_all_of_an_answer_is_labeled_with_it(tokenizer: Tokenizer) -> None:
    encoded = encode_asked(labeled((QUESTION, PASSAGE, (at("nine ten"), at("one")))), tokenizer, LENGTH)
    assert len(encoded.sizes) > 1 and encoded.sizes.sum() > 14  # overlapping
    start = PASSAGE.index("nine ten")
    ends = np.cumsum(encoded.sizes)
    for window, end in enumerate(ends):
        shown = encoded.offsets[end - encoded.sizes[window] : end]
        whole = shown[0, 0] <= start and start + len("nine ten") <= shown[-1, 1]
        assert labels_of(encoded, window) == ({"start0": start, "end0": start + len("nine ten")} if whole else {})
    assert any(labels_of(encoded, window) for window in range(len(ends)))
    assert encoded.examples.weights.tolist() == [1] * len(ends)


def test_questions_share_their_passage_and_keep_their_own_labels(tokenizer: Tokenizer) -> None:
    short = "one two three"
    rows = [("which", short, (at("two"),)), (QUESTION, short, ()), ("number", short, (at("three"),))]
    encoded = encode_asked(labeled(*rows), tokenizer, LENGTH)
    assert encoded.questions.tolist() == [0, 1, 2] and encoded.sizes.tolist() == [3, 3, 3]
    assert [labels_of(encoded, window) for window in range(3)] == [{"start0": 4, "end0": 7}, {}, {"start0": 8, "end0": 13}]
    assert sorted(encoded.items[encoded.items >= 0].tolist()) == [*range(9)]


def test_an_answer_inside_a_token_is_the_whole_token_and_one_that_has_none_has_no_weight(tokenizer: Tokenizer) -> None:
    text = "one two\u200b three"
    answers = [TrueAnswer("wo", 5), TrueAnswer("\u200b", 7), TrueAnswer("x", NOWHERE)]
    encoded = encode_asked(labeled(*((QUESTION, text, (answer,)) for answer in answers)), tokenizer, LENGTH)
    assert [labels_of(encoded, window) for window in range(3)] == [{"start0": 4, "end0": 7}, {}, {}]
    assert encoded.examples.weights.tolist() == [1, 0, 0]


def test_windows_of_an_answer_that_is_longer_than_each_of_them_have_no_weight(tokenizer: Tokenizer) -> None:
    encoded = encode_asked(labeled((QUESTION, PASSAGE, (at(PASSAGE),)), (QUESTION, PASSAGE, ())), tokenizer, LENGTH)
    count = len(encoded.sizes) // 2
    assert encoded.examples.weights.tolist() == [0] * count + [1] * count
    assert encoded.token_labels is not None and not encoded.token_labels.any()


@pytest.mark.parametrize(
    ("passage", "answer"),
    [
        ("it was JOSÉ one", "JOSÉ"),
        ("it was Jose\u0301 one", "Jose\u0301"),
        ("it was Jose\u0301\u0323", "Jose\u0301\u0323"),
        ("A\u030angstrom one", "A\u030angstrom"),
        ("在北京大学", "北京大学"),
    ],
)
def test_labels_are_where_the_answer_is_in_the_passage_as_given(tokenizer: Tokenizer, passage: str, answer: str) -> None:
    encoded = encode_asked(labeled((QUESTION, passage, (at(answer, passage),))), tokenizer, LENGTH + 16)
    found = labels_of(encoded, 0)
    assert passage[found["start0"] : found["end0"]] == answer


def test_long_questions_are_truncated_and_leave_half_of_the_window(tokenizer: Tokenizer) -> None:
    windows = encode_passages([PASSAGE, "one"], ["two three", PASSAGE], tokenizer, LENGTH)
    asked = windows.examples.a[:, 1] - windows.examples.a[:, 0]
    assert asked[windows.texts == 0].tolist() == [(LENGTH - 3) // 2]
    assert windows.truncated == 1
    assert (windows.examples.lengths <= LENGTH).all()
    covered = np.concatenate([np.arange(*one) for one in windows.own[windows.texts == 1]])
    assert covered.tolist() == [*range(*windows.passage_ranges[1])]
    assert isinstance(windows, Windows)


def test_questions_and_passages_without_readable_characters_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(TextError, match=r"Text 1 .*is an empty question") as caught:
        encode_passages(["one", "\u200b", " "], ["one"] * 3, tokenizer, LENGTH)
    assert [*caught.value.problems] == [1, 2]
    with pytest.raises(InputError, match="The question 'one' has an empty passage"):
        encode_asked(labeled(("one", "\u200b", ())), tokenizer, LENGTH)


def test_logits_and_loss_are_those_of_transformers(tokenizer: Tokenizer) -> None:
    """Random weights; several windows share rows here and have one each there."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    import jax.numpy as jnp

    from bert_jax.convert.layouts import to_parameters
    from bert_jax.families.bert import BERT
    from bert_jax.tasks.answering.outputs import span_logits

    sizes = EncoderConfig(layers=2, width=32, heads=2, feed_forward=64, max_positions=LENGTH, dropout=0.0, attention_dropout=0.0)
    torch.manual_seed(0)
    theirs = transformers.BertForQuestionAnswering(
        transformers.BertConfig(
            vocab_size=tokenizer.vocab_size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
            max_position_embeddings=LENGTH, initializer_range=0.3,
        )
    ).eval()  # fmt: skip
    entries = BERT.entries(sizes, ("embeddings", "encoder", HEAD))
    params = to_parameters({name: one.detach().numpy() for name, one in theirs.state_dict().items()}, entries)
    shorter = ("which", "six seven", (at("seven", "six seven"),))
    examples = labeled((QUESTION, PASSAGE, (at("nine ten"),)), ("number", "one two", ()), shorter)
    encoded = encode_asked(examples, tokenizer, LENGTH)
    ours = _model(tokenizer, sizes)
    ((batch, items),) = labelled_evaluation(examples, tokenizer, 2 * LENGTH, 3, True, 4, lambda *_: encoded)
    found = np.asarray(span_logits(ours, params, {name: jnp.asarray(value) for name, value in batch.items()}))
    metrics = ANSWERING.measure(jnp.asarray(found[..., :2]), {name: jnp.asarray(value) for name, value in batch.items()})
    ends, losses, right = np.cumsum(encoded.sizes), [], []
    for window, (a, b) in enumerate(zip(encoded.examples.a, encoded.examples.b, strict=True)):
        first, second = encoded.tokens[slice(*a)].tolist(), encoded.tokens[slice(*b)].tolist()
        ids = [tokenizer.cls_id, *first, tokenizer.sep_id, *second, tokenizer.sep_id]
        places = {bit: [index for index, label in enumerate(encoded.token_labels[slice(*b)]) if label & bit] for bit in (START, END)}  # type: ignore[index]
        start, end = (len(first) + 2 + places[bit][0] if places[bit] else 0 for bit in (START, END))
        with torch.no_grad():
            result = theirs(
                torch.tensor([ids]), token_type_ids=torch.tensor([[0] * (len(first) + 2) + [1] * (len(second) + 1)]),
                start_positions=torch.tensor([start]), end_positions=torch.tensor([end]),
            )  # fmt: skip
        losses.append(float(result.loss))
        logits = torch.stack([result.start_logits, result.end_logits], -1)[0].numpy()
        right.append([*logits.argmax(0)] == [start, end])
        rows = np.nonzero((items >= ends[window] - encoded.sizes[window]) & (items < ends[window]))
        np.testing.assert_allclose(found[rows][:, :2], logits[len(first) + 2 : -1], atol=1e-5)
        np.testing.assert_allclose(found[rows][:, 2:], np.tile(logits[:1], (len(second), 1)), atol=1e-5)
    assert len(losses) > 3
    assert float(metrics["loss"].total / metrics["loss"].count) == pytest.approx(np.mean(losses), rel=1e-5)
    assert float(metrics["accuracy"].total / metrics["accuracy"].count) == pytest.approx(np.mean(right))


def _model(tokenizer: Tokenizer, sizes: EncoderConfig) -> Any:
    from bert_jax.model.directory import ModelDescription

    return ANSWERING.model(ModelDescription("answering", sizes, LENGTH), tokenizer.vocab_size, ComputeConfig())
