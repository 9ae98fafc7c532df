"""Commands on files: what becomes of every line, of bad ones, and of a command that does not reach its end."""

import fcntl
import gzip
import itertools
import json
import os
import resource
import shutil
import tracemalloc
from functools import partial
from pathlib import Path

import children
import numpy as np
import pytest
from command_line import failure, json_lines, ok
from conftest import write_model

import bert_jax
from bert_jax.cli import main
from bert_jax.data.tables import BadRow, Row
from bert_jax.errors import InputError
from bert_jax.inference import Bert
from bert_jax.inference.answer_files import AnswerFile, count_texts, read_texts
from bert_jax.model import directory as model_directory
from bert_jax.tasks.answering.questions import AnswerQuestion

TEXTS = ["很" * (1 + 7 * number % 60) + f" the cat {number}" for number in range(23)]


@pytest.fixture
def texts(tmp_path, monkeypatch) -> Path:
    """A file of 23 lines, one of which is bad; a chunk is 4."""
    monkeypatch.setattr("bert_jax.cli.predict.CHUNK", 4)
    path = tmp_path / "texts.txt"
    path.write_bytes("\n".join([*TEXTS[:6], "\udcff", *TEXTS[7:]]).encode(errors="surrogateescape"))
    return path


def interrupt(monkeypatch, chunk: int, *arguments: object) -> None:
    """Runs a command and strikes Ctrl-C when the model gets that chunk, from 0."""
    original, calls = Bert.ask, 0

    def struck(*given, **options):
        nonlocal calls
        calls += 1
        if calls > chunk:
            raise KeyboardInterrupt
        return original(*given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Bert, "ask", struck)
        assert main([str(argument) for argument in arguments]) == 130


def test_a_file_of_lines_becomes_json_lines_in_order(tiny_classifier, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("bert_jax.cli.predict.CHUNK", 3)
    texts = ["很" * length for length in (5, 60, 3, 1, 20, 47, 2)]
    (tmp_path / "texts.txt.gz").write_bytes(gzip.compress(("\n".join(texts[:2]) + "\n\n" + "\r\n".join(texts[2:])).encode()))
    ok("classify", tiny_classifier, tmp_path / "texts.txt.gz", "--output", tmp_path / "out.jsonl")
    answers = json_lines((tmp_path / "out.jsonl").read_text())
    assert [(a["line"], a["text"]) for a in answers] == list(zip((1, 2, 4, 5, 6, 7, 8), texts, strict=True))
    with pytest.warns(UserWarning, match="truncated"):
        wanted = bert_jax.load(tiny_classifier).classify(texts)
    for answer, classified in zip(answers, wanted, strict=True):
        assert answer["label"] == classified.label and answer["probabilities"] == pytest.approx(classified.probabilities, abs=1e-5)
    captured = capsys.readouterr()
    assert "2 of 7 texts were truncated to the model's limit of 48 tokens" in captured.err and "classify  7/7 texts" in captured.err
    assert captured.err.endswith(f"7 answers, 0 invalid lines in {tmp_path / 'out.jsonl'}\n")
    assert not captured.out and sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "texts.txt.gz"]


def test_tables_by_column_and_vectors_as_npy(tiny_pretrained, tiny_classifier, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("bert_jax.cli.predict.CHUNK", 2)
    rows = [("房间", "很好"), ("the cat", "sat"), ("再也", "不来了")]
    (tmp_path / "pairs.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in [("a", "b"), *rows]))
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps({"text": a, "text_pair": b}) + "\n" for a, b in rows))
    bert = bert_jax.load(tiny_pretrained)
    ok("embed", tiny_pretrained, tmp_path / "pairs.tsv", "--text", "b", "--output", tmp_path / "v.npy")
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), bert.embed([b for _, b in rows]), atol=1e-5)
    capsys.readouterr()
    for flags in ([tmp_path / "pairs.tsv", "--text", "a", "--text-pair", "b"], [tmp_path / "pairs.jsonl"]):
        ok("next-sentence", tiny_pretrained, *flags, "--json")
        answers = json_lines(capsys.readouterr().out)
        assert [(answer["text"], answer["text_pair"]) for answer in answers] == rows
        wanted = bert.next_sentence(*zip(*rows, strict=True))
        assert [answer["probability"] for answer in answers] == pytest.approx(wanted, abs=1e-5)
    ok("classify", tiny_classifier, tmp_path / "pairs.jsonl", "--text-pair", "text_pair", "--json")
    first = json_lines(capsys.readouterr().out)[0]
    assert first["probabilities"] == pytest.approx(bert_jax.load(tiny_classifier).classify(*rows[0]).probabilities, abs=1e-5)
    ok("classify", tiny_classifier, *rows[0], "--pair", "--json")
    assert json_lines(capsys.readouterr().out) == [{name: value for name, value in first.items() if name != "line"}]
    assert "with --pair" in failure(capsys, "classify", tiny_classifier, rows[0][0], "--text-pair", rows[0][1])
    assert "two texts, A and B (or two paths), not 1 argument." in failure(capsys, "classify", tiny_classifier, "好", "--pair")
    assert "second text with --text-pair" in failure(capsys, "classify", tiny_classifier, tmp_path / "pairs.tsv", "--pair")


def test_a_file_is_known_by_its_ending_or_named_with_input(tiny_classifier, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("很好\n")
    (tmp_path / "a.log").write_text("很好\n")
    found = []
    for arguments in ([tmp_path / "a.txt"], ["--input", tmp_path / "a.txt"], ["--input", tmp_path / "a.log"]):
        ok("classify", tiny_classifier, *arguments, "--json")
        found += json_lines(capsys.readouterr().out)
    assert found[0] == found[1] == found[2] and (found[0]["line"], found[0]["text"]) == (1, "很好")
    for texts in (["不是文件.txt"], [str(tmp_path / "a.log"), "很" * 300 + ".txt", "no file.txt"]):
        ok("classify", tiny_classifier, *texts, "--json")
        told = capsys.readouterr()
        assert [answer["text"] for answer in json_lines(told.out)] == texts
        assert ("a.log is a file, but it is read as a text" in told.err) == (str(tmp_path / "a.log") in texts)
    assert "reviws.tsv does not exist" in failure(capsys, "classify", tiny_classifier, "reviws.tsv")
    assert "Give a single file" in failure(capsys, "classify", tiny_classifier, tmp_path / "a.txt", "很好")
    assert "but not both" in failure(capsys, "classify", tiny_classifier, tmp_path / "a.txt", "--input", tmp_path / "a.txt")


def test_bad_lines_do_not_stop_the_others(tiny_pretrained, tmp_path, capsys):
    lines = ["很[MASK]", "很", "", "\udcff[MASK]", "[MASK]" + "很" * 60 + "[MASK]", "[MASK]好", "\u200b[MASK]"]
    (tmp_path / "a.txt").write_bytes("\n".join(lines).encode(errors="surrogateescape"))
    ok("fill-mask", tiny_pretrained, tmp_path / "a.txt", "--output", tmp_path / "out.jsonl")
    answers = {answer["line"]: answer for answer in json_lines((tmp_path / "out.jsonl").read_text())}
    told = capsys.readouterr().err.splitlines()
    assert list(answers) == [1, 2, 4, 5, 6, 7]
    for line, problem in {2: "has no [MASK]", 4: "is not UTF-8", 5: "has masks too far apart"}.items():
        assert answers[line].keys() == {"line", "error"} and problem in answers[line]["error"]
        assert f"{tmp_path / 'a.txt'} line {line}: {answers[line]['error']}" in told
    wanted = bert_jax.load(tiny_pretrained).fill_mask([lines[0], lines[5]])
    for line, masks in zip((1, 6), wanted, strict=True):
        assert [p["id"] for p in answers[line]["masks"][0]] == [p.id for p in masks[0]]
    assert told[-1] == f"3 answers, 3 invalid lines in {tmp_path / 'out.jsonl'}"


def test_a_bad_row_of_a_table_is_not_a_number(tiny_pretrained, tmp_path, capsys):
    rows = ["好", "a\tb", "很", " ", "不"]
    (tmp_path / "a.tsv").write_text("\n".join(["text", *rows]))
    ok("embed", tiny_pretrained, tmp_path / "a.tsv", "--output", tmp_path / "v.npy")
    found = np.load(tmp_path / "v.npy")
    assert found.dtype == np.float32 and np.isnan(found).all(1).tolist() == [False, True, False, True, False]
    np.testing.assert_allclose(found[[0, 2, 4]], bert_jax.load(tiny_pretrained).embed(["好", "很", "不"]), atol=1e-5)
    told = capsys.readouterr().err
    assert "line 3: has 2 fields" in told and "line 5: has an empty text" in told and "3 answers, 2 invalid lines" in told
    ok("embed", tiny_pretrained, tmp_path / "a.tsv", "--json")
    answers = json_lines(capsys.readouterr().out)
    assert [answer["line"] for answer in answers] == [2, 3, 4, 5, 6] and "2 fields" in answers[1]["error"]
    ok("embed", tiny_pretrained, tmp_path / "a.tsv")
    captured = capsys.readouterr()
    assert captured.out.splitlines()[::2] == ["好", "很", "不"] and captured.err.endswith("3 answers, 2 invalid lines\n")


def test_many_bad_lines_are_counted(tiny_pretrained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("bert_jax.cli.predict.CHUNK", 15)
    (tmp_path / "a.txt").write_text("\n".join(["很"] * 40 + ["很[MASK]"]))
    ok("fill-mask", tiny_pretrained, tmp_path / "a.txt", "--output", tmp_path / "out.jsonl")
    told = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0].split()[-1] for line in told if "has no [MASK]" in line] == [str(number) for number in range(1, 21)]
    assert told.count("further invalid lines are counted but not listed") == 1 and told[-1].startswith("1 answer, 40 invalid lines")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"\n \n", "contains no text"),
        ("a.tsv", b"text\n", "contains no examples"),
        ("a.tsv", "x\n很[MASK]\n".encode(), "line 1 has no column 'text' among 'x': set --text to one"),
        ("a.txt.gz", gzip.compress(b"[MASK]\n" * 99, mtime=0)[:-9], "is damaged"),
        ("missing.txt", None, "missing.txt does not exist"),
        ("folder", None, "is not a regular file"),
    ],
)
def test_a_fault_of_the_whole_file_leaves_nothing(tiny_pretrained, tmp_path, capsys, name, content, message):
    (tmp_path / "folder").mkdir()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert message in failure(capsys, "fill-mask", tiny_pretrained, "--input", tmp_path / name, "--output", tmp_path / "out.jsonl")
    assert not list(tmp_path.glob("out*"))


def test_a_file_without_an_answer_is_an_error(tiny_pretrained, tmp_path, capsys):
    """A wrong choice of column must not replace the good file of yesterday."""
    (tmp_path / "a.jsonl").write_text('{"review": "很[MASK]"}\n' * 3)
    (tmp_path / "out.jsonl").write_text("of yesterday")
    arguments = ["fill-mask", str(tiny_pretrained), str(tmp_path / "a.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    assert main(arguments) == 2
    told = capsys.readouterr().err.splitlines()
    assert "line 1: has no column 'text' among 'review'" in told[0]
    assert told[-1].startswith("error: None of the 3 lines of") and "could be answered" in told[-1] and "was not written" in told[-1]
    assert [path.read_text() for path in tmp_path.glob("out*")] == ["of yesterday"]


def test_memory_does_not_grow_with_the_file(tiny_pretrained, tmp_path, monkeypatch):
    monkeypatch.setattr("bert_jax.cli.predict.CHUNK", 64)
    fill_mask, chunks = Bert.fill_mask, itertools.count()

    def load_and_watch(path: Path, **options) -> Bert:
        bert = bert_jax.load(path, **options)
        tracemalloc.start()
        return bert

    def forget_what_was(*given, **options):
        # Of a run's first chunk the model takes more than the work on all of them.
        answers = fill_mask(*given, **options)
        if next(chunks) == 0:
            tracemalloc.reset_peak()
        return answers

    def peak(lines: int) -> int:
        nonlocal chunks
        chunks = itertools.count()
        path = tmp_path / f"{lines}.csv"
        path.write_text("text\n" + f"很[MASK]的{' ' * 500}the cat\nbad,row\n" * (lines // 2))
        ok("fill-mask", tiny_pretrained, path, "--output", tmp_path / "out.jsonl")
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert (tmp_path / "out.jsonl").read_text().count("\n") == lines
        return most

    monkeypatch.setattr("bert_jax.cli.predict.load", load_and_watch)
    monkeypatch.setattr(Bert, "fill_mask", forget_what_was)
    _, small, large = peak(128), peak(256), peak(2560)  # the first compiles
    # The texts of 2,304 lines more are 1 MB, their records 4 MB.
    assert large < small + 500_000, (small, large)


def test_a_killed_command_goes_on_to_the_same_file(tiny_classifier, texts):
    def command(out: str) -> list[str]:
        return ["classify", str(tiny_classifier), str(texts), "--output", str(texts.with_name(out))]

    first = {"commands": [command("whole.jsonl"), command("killed.jsonl")], "chunk": 4, "at": 3}
    children.finish([children.start("predict.py", json.dumps(first))], children.KILLED)
    part, state = texts.with_name("killed.jsonl.part"), texts.with_name("killed.jsonl.part.json")
    written = part.read_bytes()
    assert written.count(b"\n") == 12 and json.loads(state.read_text())["written"]["rows"] == 8
    part.write_bytes(written + b'{"line": 13, "te')
    [told] = children.finish([children.start("predict.py", json.dumps({"commands": [command("killed.jsonl")], "chunk": 4}))])
    assert told.splitlines()[0] == "resuming after 8 lines" and "line 7: is not UTF-8" not in told
    assert told.splitlines()[-1] == f"22 answers, 1 invalid line in {texts.with_name('killed.jsonl')}"
    assert texts.with_name("killed.jsonl").read_bytes() == texts.with_name("whole.jsonl").read_bytes()
    assert sorted(path.name for path in texts.parent.iterdir()) == ["killed.jsonl", "texts.txt", "whole.jsonl"]


def test_an_interrupted_command_goes_on_with_vectors(tiny_pretrained, texts, capsys, monkeypatch):
    def command(out: str) -> list[object]:
        return ["embed", tiny_pretrained, texts, "--output", texts.with_name(out)]

    ok(*command("whole.npy"))
    cut = capsys.readouterr().err.splitlines()[-2]
    assert "of 23 texts were truncated" in cut
    interrupt(monkeypatch, 3, *command("v.npy"))
    assert capsys.readouterr().err.endswith("interrupted: the same command resumes after 12 of 23 lines\n")
    ok(*command("v.npy"))
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "resuming after 12 lines" and any(line.startswith("embed  23/23 texts") for line in told)
    assert told[-2:] == [cut, f"22 answers, 1 invalid line in {texts.with_name('v.npy')}"]
    assert texts.with_name("v.npy").read_bytes() == texts.with_name("whole.npy").read_bytes()


def test_a_file_that_another_process_completes_meanwhile_is_left_alone(tmp_path, monkeypatch):
    out, lock = tmp_path / "out.jsonl", fcntl.flock
    part = tmp_path / "out.jsonl.part"

    def complete_first(file, operation):
        monkeypatch.setattr(fcntl, "flock", lock)
        part.replace(out)
        lock(file, operation)

    part.write_text("complete\n")
    monkeypatch.setattr(fcntl, "flock", complete_first)
    with AnswerFile(out, {"input": "texts"}, (1, 0)) as output:
        output.append([{"line": 1}], 0)
    assert out.read_text() == "complete\n" and part.read_text() == '{"line": 1}\n'


def test_what_belongs_to_another_command_is_not_gone_on_with(tiny_pretrained, texts, capsys, monkeypatch, tmp_path):
    model = shutil.copytree(tiny_pretrained, tmp_path / "model")
    out = tmp_path / "out.jsonl"
    part, state = tmp_path / "out.jsonl.part", tmp_path / "out.jsonl.part.json"
    command = ["embed", model, texts, "--output", out]

    def touch() -> None:
        os.utime(texts, ns=(1, 1))

    def train_anew() -> None:
        description, _ = model_directory.read(model)
        shutil.rmtree(model)
        write_model(model, description, seeds=(5,))

    def shorten() -> None:
        os.truncate(part, part.stat().st_size // 2)

    cases = [
        ([], lambda: None, "resuming after 8 lines"),
        (["--pooling", "cls"], lambda: None, f"starting over: {part} belongs to another command (different options)"),
        (["--text", "other"], touch, f"starting over: {part} belongs to another command (different input, columns)"),
        ([], train_anew, f"starting over: {part} belongs to another command (different model)"),
        ([], state.unlink, f"starting over: {state} is missing, so it is unknown what {part.name} belongs to"),
        ([], lambda: state.write_text("{"), f"starting over: {state} is damaged"),
        ([], shorten, f"starting over: {part} is shorter than {state.name} says"),
    ]
    for options, change, message in cases:
        interrupt(monkeypatch, 2, *command)
        change()
        capsys.readouterr()
        ok(*command, *options)
        assert capsys.readouterr().err.splitlines()[0] == message
        assert [answer["line"] for answer in json_lines(out.read_text())] == list(range(1, 24))
        assert not part.exists() and not state.exists()


def test_an_output_that_cannot_be_written(tiny_pretrained, texts, capsys):
    out = texts.with_name("out.jsonl")
    command = ["embed", tiny_pretrained, texts, "--output", out]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, hard))  # a disk that is soon full
    try:
        assert main([str(argument) for argument in command]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"error: {out}.part cannot be written (File too large)") and "resumes after 8 lines" in told
    with Path(f"{out}.part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert "Another process is writing" in failure(capsys, *command)
    ok(*command)
    assert capsys.readouterr().err.startswith("resuming after 8 lines\n")
    assert len(json_lines(out.read_text())) == 23


def test_a_layout_of_its_own_is_checked_as_tables_are(tmp_path):
    path, rows = tmp_path / "questions.json", partial(AnswerQuestion().rows, result={})
    questions = [{"id": 1, "question": "Who\ud83d?"}, {"id": 2, "question": "Who?"}]
    path.write_text(json.dumps({"data": [{"paragraphs": [{"context": "Anna.", "qas": questions}]}]}))
    bad, good = read_texts(path, {}, own=rows)
    assert isinstance(bad, BadRow) and bad.line == 1 and r"unpaired surrogate \ud83d" in bad.problem
    assert good == Row(2, ("Who?", "Anna.", 2))
    path.write_text('{"data": []}')
    with pytest.raises(InputError, match=r"contains no text\.$"):
        count_texts(path, {}, rows)


def test_a_json_file_has_the_answer_to_each_id_when_it_is_complete(tmp_path):
    out, state = tmp_path / "out.json", tmp_path / "out.json.part.json"
    answers = [{"line": 1, "id": "q1", "answer": "安娜"}, {"line": 2, "error": "has"}, {"line": 3, "id": 3, "answer": None}]
    with AnswerFile(out, {"input": "questions"}, (3, 0), "answer") as file:
        file.append(answers[:2], 0)
    assert not out.exists() and state.exists()
    with AnswerFile(out, {"input": "questions"}, (3, 0), "answer") as file:
        assert (file.written.rows, file.written.bad) == (2, 1)
        file.append(answers[2:], 0)
        file.complete()
    assert json.loads(out.read_text("utf-8")) == {"q1": "安娜", "3": ""}
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_ids_are_checked_before_anything_is_computed(tiny_pretrained, tmp_path, capsys):
    questions, table, same = tmp_path / "questions.json", tmp_path / "questions.jsonl", [{"id": 1, "question": "Who?"}] * 2
    questions.write_text(json.dumps({"data": [{"paragraphs": [{"context": "Anna.", "qas": same}]}]}))
    table.write_text('{"text": "Who?", "text_pair": "Anna."}')
    for source, output, message in (
        (questions, "out.json", "has two entries with the id '1'"),
        (table, "out.json", "questions.jsonl has no ids: name a .jsonl file"),
        (questions, "questions.json", "is the file to read"),
        (table, "questions.jsonl", "is the file to read"),
        (table, "out.txt", "does not end in .jsonl or .json"),
    ):
        before = source.read_bytes()
        assert message in failure(capsys, "answer", tiny_pretrained, source, "--output", tmp_path / output)
        assert source.read_bytes() == before and not list(tmp_path.glob("out*"))
    assert "a typed text has no ids" in failure(capsys, "answer", tiny_pretrained, "Who?", "Anna.", "--output", tmp_path / "out.json")


def test_a_path_that_is_not_utf_8_is_escaped(tmp_path):
    out, origin = tmp_path / "out.jsonl", {"input": ["caf\udce9.png", "好.png"]}
    with AnswerFile(out, origin, (2, 0)) as file:
        file.append([{"text": text} for text in origin["input"]], 0)
    with AnswerFile(out, origin, (2, 0)) as file:
        assert file.written.rows == 2 and not file.refused
        file.complete()
    assert out.read_text("utf-8").splitlines() == [r'{"text": "caf\udce9.png"}', '{"text": "好.png"}']
