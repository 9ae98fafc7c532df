"""Files of questions: SQuAD's layout and tables, answers found again, and what is refused."""

import gzip
import json
import lzma
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bert_jax.config import LabelledConfig
from bert_jax.data.folds import load_folds
from bert_jax.errors import InputError
from bert_jax.tasks.answering.files import NOWHERE, Asked, Columns, Faults, QuestionFiles, TrueAnswer, nearest
from bert_jax.tasks.answering.labels import AnswerReader, read_asked
from bert_jax.tasks.answering.options import AnsweringOptions

PASSAGE = "In 1066 the Normans came to England. In 1087 their king died."


def question(given: Any = (), **fields: Any) -> dict[str, Any]:
    return {"id": "q1", "question": "When?", "answers": [{"text": text, "answer_start": start} for text, start in given]} | fields


def squad(*questions: Any, context: Any = PASSAGE) -> dict[str, Any]:
    return {"version": "v2.0", "data": [{"title": "Normans", "paragraphs": [{"context": context, "qas": [*questions]}]}]}


def read(path: Path, misplaced: Any = "search", training: bool = False, faults: Faults | None = None) -> list[Asked]:
    return [*QuestionFiles(Columns(), misplaced, training, faults or Faults()).read(str(path))]


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[Any], Path]:
    def save(content: Any) -> Path:
        path = tmp_path / "questions.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
        return path

    return save


def answers_of(path: Path, **options: Any) -> tuple[TrueAnswer, ...]:
    return read(path, **options)[0].answers


def test_questions_of_squad_have_their_answers_and_places(saved: Callable[[Any], Path]) -> None:
    path = saved(squad(question([("1066", 3), ("In 1066", 0)]), question([], id="q2", question="Why?", is_impossible=True)))
    first, second = read(path)
    assert first[1:] == (1, "When?", PASSAGE, (("1066", 3), ("In 1066", 0)))
    assert second[1:] == (2, "Why?", PASSAGE, ())
    assert first.where == f"{path} article 1 ('Normans'), paragraph 1, question 'q1'"


@pytest.mark.parametrize("suffix, compress", [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_compressed_files_are_read(tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]) -> None:
    path = tmp_path / f"questions.json{suffix}"
    path.write_bytes(compress(b"\xef\xbb\xbf" + json.dumps(squad(question([("1066", 3)]))).encode()))
    assert [one.question for one in read(path)] == ["When?"]


@pytest.mark.parametrize(
    "written, expected",
    [
        ('["1087"]', (("1087", 40),)),
        ('[{"text": "1087", "start": 40}]', (("1087", 40),)),
        ('[{"text": " 1087 ", "answer_start": 39}]', (("1087", 40),)),
        ('{"text": ["1066", "king"], "answer_start": [3, 51]}', (("1066", 3), ("king", 51))),
        ('"1066"', (("1066", 3),)),
        ("1066", (("1066", 3),)),
        ("[]", ()),
        ("null", ()),
        ('[""]', ()),
    ],
)
def test_rows_of_tables_name_their_answers_in_several_ways(tmp_path: Path, written: str, expected: Any) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(f'\n{{"question": "When?", "passage": "{PASSAGE}", "answers": {written}}}\n')
    faults = Faults()
    (found,) = read(path, faults=faults)
    assert found == (f"{path} line 2", 2, "When?", PASSAGE, expected)
    assert not faults.moved


def test_a_tsv_file_may_have_one_answer_or_a_list(tmp_path: Path) -> None:
    path = tmp_path / "questions.tsv"
    path.write_text(f'question\tpassage\tanswers\nWhen?\t{PASSAGE}\t1066\nWhen?\t{PASSAGE}\t["1087"]\nWhen?\t{PASSAGE}\t\n')
    assert [one.answers for one in read(path)] == [(("1066", 3),), (("1087", 40),), ()]


def test_a_misplaced_answer_is_found_where_it_is_nearest_to_its_offset(saved: Callable[[Any], Path]) -> None:
    path, faults = saved(squad(question([("In", 30), ("In", 10), ("In", -1), ("In", 500), ("1066", 3)]))), Faults()
    assert [answer.start for answer in answers_of(path, faults=faults)] == [37, 0, 0, 37, 3]
    assert (faults.moved, faults.nowhere) == (4, 0)
    assert faults.remarks("a.json") == ("a.json: 4 of its answers are not at their offset and were found nearby.",)


def test_nearest_looks_at_overlapping_occurrences() -> None:
    assert [nearest("aa", "aaaa b aa", start) for start in (0, 1, 2, 3, 5, 6, 99)] == [0, 1, 2, 2, 7, 7, 7]
    assert nearest("c", "aaaa", 2) == NOWHERE


def test_an_answer_that_is_nowhere_counts_for_scoring_and_is_counted_in_training(saved: Callable[[Any], Path]) -> None:
    path = saved(squad(question([("1492", 3)]), question([("1492", -1), ("1066", 3)], id="q2"), question([], id="q3")))
    scored, trained = Faults(), Faults()
    assert [one.answers for one in read(path, faults=scored)] == [(("1492", NOWHERE),), (("1492", NOWHERE), ("1066", 3)), ()]
    assert [one.line for one in read(path, training=True, faults=trained)] == [1, 2, 3]
    assert (scored.left_out, trained.left_out, trained.nowhere) == (0, 1, 2)


def test_a_misplaced_answer_is_refused_where_configured(saved: Callable[[Any], Path]) -> None:
    with pytest.raises(InputError, match=r"'q1' has the answer '1066' at character 4 .* is '066 ', and the answer is at 3\. .*search"):
        read(saved(squad(question([("1066", 4)]))), misplaced="refuse")
    with pytest.raises(InputError, match="and it is nowhere else"):
        read(saved(squad(question([("1492", 4)]))), misplaced="refuse")


def test_an_empty_question_is_left_out_of_training_and_refused_for_scoring(saved: Callable[[Any], Path]) -> None:
    path, faults = saved(squad(question([("1066", 3)], question=" "), question([], id="q2"))), Faults()
    assert [one.line for one in read(path, training=True, faults=faults)] == [2]
    assert faults.left_out == 1
    with pytest.raises(InputError, match=r"paragraph 1, question 'q1' has an empty question"):
        read(path)


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", r"is not JSON .*download it again"),
        ("[" * 100_000, "nested too deeply"),
        ([], "has no list 'data'"),
        ({"dataset": []}, "its keys are 'dataset'.*layout of SQuAD"),
        ({"data": []}, "contains no questions"),
        ({"data": [{"paragraphs": {}}]}, "article 1 has no list 'paragraphs'"),
        ({"data": [{"title": "T", "paragraphs": ["x"]}]}, r"article 1 \('T'\), paragraph 1, has no list 'qas'"),
        (squad(question(), context=None), "paragraph 1, has no 'context'"),
        (squad(question(), context=7), "paragraph 1, has a 'context' that is not text but int"),
        (squad(question(), context=" \n"), "question 'q1' has no passage"),
        (squad("x"), "question 1 is not an object"),
        (squad(question(id=None)), "question 1 has no id"),
        (squad(question(question=None)), "question 'q1' has no 'question'"),
        (squad(question(answers="1066")), "'q1' has answers that are not a list but str"),
        (squad(question(answers=[None])), "'q1' has an answer whose text is not a string"),
        (squad(question([("1066", "3")])), "'q1' has the answer '1066' with the start '3'"),
        (squad(question([("1066", True)])), "with the start True"),
        (squad(question([("1066", 3)], is_impossible=True)), "although is_impossible is true"),
        (squad(question(is_impossible="no")), "is_impossible='no'"),
        (squad(question(question="\ud800")), "an unpaired surrogate"),
    ],
)
def test_malformed_files_are_refused_by_their_place(saved: Callable[[Any], Path], content: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(saved(content))
    assert "questions.json" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "row, message",
    [
        ('{"question": "When?", "answers": []}', "line 1 has no column 'passage'.*finetune.data.text_pair"),
        ('{"question": "When?", "passage": "", "answers": []}', "line 1 has no passage"),
        ('{"question": "When?", "passage": "x", "answers": "[1"}', "line 1 has answers in the column 'answers' that are not JSON"),
        ('{"question": "When?", "passage": "x", "answers": {"text": ["x"], "start": []}}', "different numbers of texts and starts"),
        ('{"question": "When?", "passage": "x", "answers": {"texts": []}}', "not a list but dict"),
    ],
)
def test_malformed_rows_are_refused_by_their_line(tmp_path: Path, row: str, message: str) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(row)
    with pytest.raises(InputError, match=message):
        read(path)


def test_folds_score_a_question_whose_answer_is_nowhere_but_nothing_is_trained_on_it(saved: Callable[[Any], Path]) -> None:
    asked = [question([("1066" if number else "1492", 3)], id=str(number), question=f"When {number}?") for number in range(12)]
    config = LabelledConfig(str(saved(squad(*asked))), text="question", text_pair="passage", folds=3)
    options = AnsweringOptions()
    found = load_folds(config, AnswerReader(options), 0, others=partial(read_asked, options=options))
    assert sorted(np.concatenate([fold.places for fold in found.parts]).tolist()) == [*range(12)]
    for part in (found.whole, *(fold.labelled for fold in found.parts)):
        assert "When 0?" not in {*part.train.texts, *part.dev.texts}
        assert [note for note in part.notes if "not used for training" in note and ": 1 of" in note] == [part.notes[-1]]
    assert len(found.whole.train) + len(found.whole.dev) == 11
