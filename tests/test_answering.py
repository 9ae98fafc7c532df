"""Question answering: from files to answers, scores, the report, and transformers."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bert_jax
from bert_jax.cli import main
from bert_jax.config import (
    CorpusConfig,
    EncoderConfig,
    FinetuneConfig,
    LabelledConfig,
    LoopConfig,
    OptimizerConfig,
    RunConfig,
    VocabularyConfig,
)
from bert_jax.convert.exports import export_model
from bert_jax.convert.imports import import_model
from bert_jax.data.labelled import Labelled, LabelledExamples
from bert_jax.errors import InputError
from bert_jax.stages import outputs
from bert_jax.stages.run import run
from bert_jax.tasks.answering.files import TrueAnswer
from bert_jax.tasks.answering.metrics import match
from bert_jax.tasks.answering.options import AnsweringOptions
from bert_jax.tasks.answering.scores import AnswerScorer

QUESTIONS = {"who": "Who came there?", "where": "Where was it?", "when": "When was it?"}
WORDS = {
    "who": ["Anna", "José", "Otto", "Maria", "Ivan"],
    "where": ["Bern", "Oslo", "Zürich", "Rome", "Paris"],
    "when": ["1066", "1492", "1789", "1848", "1914"],
}
OTHERS = ["It was a long day.", "They had bread and tea.", "The way was not easy.", "She said that it was late.", "Nobody knew."]
LENGTH, MAX_POSITIONS = 48, 64


def passage(rng: np.random.Generator, missing: str) -> tuple[str, dict[str, tuple[str, int]]]:
    """A passage of a few sentences, some longer than the model, and the place of each kind of answer but one."""
    chosen = {kind: str(rng.choice(words)) for kind, words in WORDS.items() if kind != missing}
    facts = {"who": "{} came there.", "where": "The place was {}.", "when": "This was in {}."}
    sentences = [facts[kind].format(word) for kind, word in chosen.items()] + [str(one) for one in rng.choice(OTHERS, rng.integers(1, 9))]
    text = " ".join(sentences[index] for index in rng.permutation(len(sentences)))
    return text, {kind: (word, text.index(word)) for kind, word in chosen.items()}


def squad(count: int, seed: int) -> dict[str, Any]:
    """Passages with a question of each kind; of some passages, one of the questions has no answer."""
    rng, paragraphs = np.random.default_rng(seed), []
    for number in range(count):
        text, places = passage(rng, str(rng.choice([*WORDS, "", ""])))
        qas = [
            {
                "id": f"{number}-{kind}", "question": question, "is_impossible": kind not in places,
                "answers": [{"text": places[kind][0], "answer_start": places[kind][1]}] if kind in places else [],
            }
            for kind, question in QUESTIONS.items()
        ]  # fmt: skip
        paragraphs.append({"context": text, "qas": qas})
    return {"version": "v2.0", "data": [{"title": "Made up", "paragraphs": paragraphs}]}


def configured(folder: Path, **options: Any) -> RunConfig:
    data = LabelledConfig(str(folder / "train.json"), str(folder / "dev.json"), str(folder / "test.json"), "question", "passage")
    return RunConfig(
        encoder=EncoderConfig(
            layers=1, width=32, heads=2, feed_forward=64, max_positions=MAX_POSITIONS, dropout=0.0, attention_dropout=0.0,
            initializer_range=0.1,
        ),
        vocabulary=VocabularyConfig(size=200),
        corpus=CorpusConfig(source=str(folder / "text")),
        pretrain=None,
        finetune=FinetuneConfig(
            data=data, task=AnsweringOptions(**options), from_scratch=True, length=LENGTH, batch_size=8, epochs=8, dropout=0.0,
            examples_per_row=3, optimizer=OptimizerConfig(learning_rate=5e-3),
            loop=LoopConfig(log_every=50, evaluate_every=200, save_every=200),
        ),
    )  # fmt: skip


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that finds names, places and years in passages that may be longer than it reads at once."""
    folder = tmp_path_factory.mktemp("answering")
    (folder / "text").mkdir()
    parts = {name: squad(count, seed) for seed, (name, count) in enumerate({"train": 150, "dev": 40, "test": 40}.items())}
    for name, content in parts.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    texts = [paragraph["context"] for paragraph in parts["train"]["data"][0]["paragraphs"]]
    (folder / "text" / "text.txt").write_text("\n\n".join([*texts, *[" ".join(QUESTIONS.values())] * 50]), "utf-8")
    run(configured(folder), folder / "run")
    return folder / "run"


def lines_of(workdir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workdir / "finetune" / "predictions.jsonl").read_text("utf-8").splitlines()]


def test_it_learns_and_its_scores_are_those_of_its_predictions(workdir: Path) -> None:
    result = json.loads((workdir / "summary.json").read_text())["finetune"]
    lines = lines_of(workdir)
    matches = [match(line["predicted"] or "", line["answers"], "english") for line in lines]
    assert result["f1"] == pytest.approx(np.mean([one.f1 for one in matches]))
    assert [line["exact_match"] for line in lines] == [one.exact for one in matches]
    assert result["exact_match"] == pytest.approx(np.mean([one.exact for one in matches]))
    assert result["has_answer_f1"] == pytest.approx(np.mean([one.f1 for one, line in zip(matches, lines, strict=True) if line["answers"]]))
    assert result["f1"] > 0.85, result
    assert result["no_answer_f1"] > 0.5, result
    assert (result["scoring"], result["max_answer_tokens"]) == ("english", 30)
    for line in lines:
        if line["predicted"] is not None:
            assert line["text_pair"][line["start"] : line["end"]] == line["predicted"]


def test_the_report_shows_passages_with_their_answers(workdir: Path) -> None:
    report = (workdir / "report.html").read_text("utf-8")
    line = next(line for line in lines_of(workdir)[:6] if line["predicted"])
    assert f">{line['predicted']}</mark>" in report
    assert "Test F1 of answers" in report and "Questions with and without an answer" in report


def test_a_loaded_model_gives_the_answers_of_the_stage(workdir: Path) -> None:
    model, lines = bert_jax.load(workdir / "finetune"), lines_of(workdir)
    found = model.answer([line["text"] for line in lines], [line["text_pair"] for line in lines])
    assert [one and one.text for one in found] == [line["predicted"] for line in lines]
    answered = next(index for index, line in enumerate(lines) if line["predicted"])
    one = model.answer(lines[answered]["text"], lines[answered]["text_pair"])
    assert one is not None
    assert (one.start, one.end) == (lines[answered]["start"], lines[answered]["end"])
    assert one.probability == pytest.approx(lines[answered]["probability"], abs=1e-4)
    assert model.truncated == 0


def test_offsets_are_those_of_the_text_as_given_in_any_window(workdir: Path) -> None:
    model = bert_jax.load(workdir / "finetune")
    before = "Nobody  knew. " * 30
    text = before + "JOS\u00c9\u200b came there. " + "It was a long day. " * 20
    found = model.answer("Who came there?", text, threshold=1e9)
    assert found is not None and (found.text, found.start) == ("JOSÉ", len(before))


def test_options_of_an_answer(workdir: Path) -> None:
    model = bert_jax.load(workdir / "finetune")
    text = "Anna came there."
    assert model.answer("Who came there?", text, threshold=-1e9) is None
    found = model.answer("Who came there?", text, threshold=1e9, max_answer_tokens=1)
    assert found is not None and found.text in text.replace(".", " .").split()
    with pytest.raises(InputError, match="max_answer_tokens=0 leaves no answer"):
        model.answer("Who came there?", text, max_answer_tokens=0)
    with pytest.raises(InputError, match=r"Text 1 .*has an empty passage"):
        model.answer(["Who?", "Who?"], ["Anna", " "])
    with pytest.raises(InputError, match=r"Text 0 .*is an empty question"):
        model.answer(["\u200b"], ["Anna"])
    with pytest.raises(InputError, match=r"Text 1 .*and its pair are str and list: pass a question and a passage"):
        model.answer(["Who?", "Who?"], ["Anna", ["Otto"]])  # type: ignore[list-item]


def test_the_command_answers_single_questions_and_files(workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, lines = str(workdir / "finetune"), lines_of(workdir)[:5]
    answered = next(line for line in lines if line["predicted"])
    assert main(["answer", model, answered["text"], answered["text_pair"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["answer"] == answered["predicted"]
    assert main(["answer", model, answered["text"], answered["text_pair"], "--threshold=-1e9"]) == 0
    assert capsys.readouterr().out.startswith("no answer")
    rows = [{"question": line["text"], "passage": line["text_pair"]} for line in lines] + [{"question": "Who?", "passage": ""}]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    columns = ["--text", "question", "--text-pair", "passage"]
    out = tmp_path / "answers.jsonl"
    assert main(["answer", model, str(tmp_path / "questions.jsonl"), *columns, "--output", str(out)]) == 0
    *found, last = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert [line["answer"] for line in found] == [line["predicted"] for line in lines]
    assert last["line"] == 6 and "empty" in last["error"]
    content = json.loads((workdir.parent / "test.json").read_text())
    content["data"][0]["paragraphs"] = content["data"][0]["paragraphs"][:2]
    content["data"][0]["paragraphs"][1]["qas"].append({"id": "none", "question": " ", "answers": []})
    (tmp_path / "questions.json").write_text(json.dumps(content))
    assert main(["answer", model, str(tmp_path / "questions.json"), "--output", str(out)]) == 0
    *found, last = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    expected = lines_of(workdir)[: len(found)]
    assert [(one["text"], one["answer"]) for one in found] == [(one["text"], one["predicted"]) for one in expected]
    assert last["line"] == len(found) + 1 and "empty" in last["error"]
    ids = [question["id"] for paragraph in content["data"][0]["paragraphs"] for question in paragraph["qas"][:3]]
    assert [one["id"] for one in found] == ids
    assert main(["answer", model, str(tmp_path / "questions.json"), "--output", str(tmp_path / "official.json")]) == 0
    official = json.loads((tmp_path / "official.json").read_text("utf-8"))
    assert official == {name: one["answer"] or "" for name, one in zip(ids, found, strict=True)}
    (tmp_path / "questions.json").write_text("[]")
    assert main(["answer", model, str(tmp_path / "questions.json")]) == 2
    assert "layout of SQuAD" in capsys.readouterr().err


def test_transformers_computes_the_same_logits_and_the_model_comes_back(workdir: Path, tmp_path: Path) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    assert export_model(workdir / "finetune", tmp_path / "out") == "BertForQuestionAnswering"
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(tmp_path / "out").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    import_model(tmp_path / "out", tmp_path / "back")
    ours = [bert_jax.load(path) for path in (workdir / "finetune", tmp_path / "back")]
    for line in [line for line in lines_of(workdir) if len(line["text_pair"]) < 120][:6]:
        question, text = line["text"], line["text_pair"]
        tokens = tokenizer(question, text, return_tensors="pt", return_offsets_mapping=True)
        offsets = tokens.pop("offset_mapping")[0].numpy()
        inside = np.array([sequence == 1 for sequence in tokens.sequence_ids(0)])
        assert len(inside) <= LENGTH
        with torch.no_grad():
            logits = model(**tokens)
        inside[0] = True
        start, end = (
            np.where(inside, torch.softmax(one[0].masked_fill(~torch.tensor(inside), -1e4), -1).numpy(), 0)
            for one in (logits.start_logits, logits.end_logits)
        )
        start[0] = end[0] = 0
        first, last = np.unravel_index(np.triu(np.outer(start, end)).argmax(), (len(inside),) * 2)
        for bert in ours:
            found = bert.answer(question, text, threshold=1e9)
            assert found is not None and (found.start, found.end) == (offsets[first, 0], offsets[last, 1])
            assert found.probability == pytest.approx(start[first] * end[last], abs=1e-5)


def test_answers_of_several_models_are_scored_together_each_by_its_own_threshold(tmp_path: Path) -> None:
    targets = np.empty(4, object)
    for index, own in enumerate([(TrueAnswer("Anna", 0),), (), (TrueAnswer("Anna", 0),), ()]):
        targets[index] = own
    examples = LabelledExamples(["Who?"] * 4, ["Anna came."] * 4, targets, np.arange(4))
    labelled = Labelled(examples, examples, examples, (), 0, {})
    # Start, end, probability, margin of no answer, exact match, F1, answerable: the second model prefers no answer more.
    rows = {place: np.array([[0, 4, 0.9, place - 1, 1, 1, 1], [5, 9, 0.2, place + 1, 0, 0, 0]], np.float64) for place in (0, 10)}
    together = AnswerScorer(labelled, AnsweringOptions())
    for place, found in rows.items():
        (tmp_path / str(place)).mkdir()
        outputs.keep(tmp_path / str(place), (np.array([0, 1]), found), (targets[:2], found))
        outputs.score(tmp_path / str(place), together, np.array([2, 3] if place else [0, 1]))
    result = together.result()
    assert result["f1"] == result["has_answer_f1"] == result["no_answer_exact_match"] == 1
    assert "no_answer_threshold" not in result
    assert [together.line(index)["predicted"] for index in range(4)] == ["Anna", None, "Anna", None]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda squad: squad["data"][0]["paragraphs"][0]["qas"][0]["answers"].append({"text": "Zug", "answer_start": 3}), "'Zug'"),
        (lambda squad: squad["data"][0]["paragraphs"][0].update(context=""), "has no passage"),
        (lambda squad: [qa.update(answers=[]) for one in squad["data"][0]["paragraphs"] for qa in one["qas"]], "nothing to learn"),
    ],
)
def test_faulty_files_are_refused_before_training(tmp_path: Path, change: Any, message: str) -> None:
    content = squad(4, 0)
    (tmp_path / "text").mkdir()
    for name in ("dev", "test"):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    change(content)
    (tmp_path / "train.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        run(configured(tmp_path, misplaced="refuse"), tmp_path / "run")


def test_pairs_are_required(tmp_path: Path) -> None:
    config = configured(tmp_path)
    assert config.finetune is not None
    data = LabelledConfig(str(tmp_path / "train.json"), text="question")
    with pytest.raises(InputError, match=r"finetune\.data\.text_pair to their column, such as passage"):
        run(replace(config, finetune=replace(config.finetune, data=data)), tmp_path / "run")


def test_another_model_does_not_answer(tiny_classifier: Path) -> None:
    with pytest.raises(InputError, match="answer requires a question answering model, but this model is a classifier"):
        bert_jax.load(tiny_classifier).answer("Who?", "Anna.")
