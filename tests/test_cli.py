"""The command line: what it prints and writes, and its exit statuses."""

import argparse
import atexit
import gc
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import failure, json_lines, ok

import bert_jax
from bert_jax.cli.program import collect_rarely, config_overrides, main, run_command
from bert_jax.errors import InputError, Interrupted, TrainingError
from bert_jax.modalities.text.tokenizer import Tokenizer

CONFIG = """
from bert_jax.config import EncoderConfig, PretrainConfig, RowsConfig, RunConfig
def get_config():
    return RunConfig(encoder=EncoderConfig.preset("tiny"), pretrain=PretrainConfig(rows=RowsConfig(length=16)))
"""


@pytest.fixture
def corpus(tmp_path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("\n\n".join(f"the cat {word} on the mat. It was good.\n房间很{word}。我很喜欢。" for word in ("sat", "lay", "ran")))
    return path


def test_blanks_for_a_person_and_for_a_machine(tiny_pretrained, capsys):
    texts = ["这家[MASK]店的服[MASK]很好", "the [MASK]"]
    ok("fill-mask", tiny_pretrained, *texts, "--top-k", 2, "--json")
    answers = json_lines(capsys.readouterr().out)
    for answer, text, wanted in zip(answers, texts, bert_jax.load(tiny_pretrained).fill_mask(texts, 2), strict=True):
        assert answer["text"] == text
        assert [[p["token"] for p in mask] for mask in answer["masks"]] == [[p.token for p in mask] for mask in wanted]
        assert answer["masks"][0][0]["probability"] == pytest.approx(wanted[0][0].probability, abs=1e-5)
    ok("fill-mask", tiny_pretrained, *texts, "--top-k", 2)
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert [lines[0], lines[3]] == texts and len(lines) == 6 and lines[1].count("%") == 2
    assert all(p["token"] in shown for answer in answers for mask in answer["masks"] for p in mask)


def test_a_terminal_that_knows_latin_letters_alone(tiny_pretrained, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="ascii"))
    ok("fill-mask", tiny_pretrained, "房间很[MASK]😀", "--top-k", 1)
    ok("fill-mask", tiny_pretrained, "房间很[MASK]😀", "--top-k", 1, "--json")
    shown, line = written.getvalue().decode("ascii").splitlines()[::2]
    assert shown.startswith("\\u623f\\u95f4") and json.loads(line)["text"] == "房间很[MASK]😀"


def test_columns_stand_below_each_other_in_chinese_too():
    from bert_jax.runtime.terminal import padded, width

    cells = [padded(text, 8) for text in ("好", "##ing", "e\u0301", "酒店")]
    assert [width(cell) for cell in cells] == [8] * 4
    assert cells[0] == "好      "


def test_the_other_answers(tiny_pretrained, tiny_classifier, capsys):
    bert, classifier = bert_jax.load(tiny_pretrained), bert_jax.load(tiny_classifier)
    ok("next-sentence", tiny_pretrained, "房间", "很好", "--json")
    [answer] = json_lines(capsys.readouterr().out)
    assert answer["probability"] == pytest.approx(bert.next_sentence("房间", "很好"), abs=1e-5)
    ok("next-sentence", tiny_pretrained, "房间", "很好")
    assert capsys.readouterr().out.endswith("%  房间 | 很好\n")
    ok("classify", tiny_classifier, "房间", "很好")
    for line, found in zip(capsys.readouterr().out.splitlines(), classifier.classify(["房间", "很好"]), strict=True):
        assert line.split()[:2] == [found.label, f"{100 * found.probability:.1f}%"]
    ok("embed", tiny_pretrained, "房间", "很好", "--pooling", "cls", "--json")
    found = np.array([answer["embedding"] for answer in json_lines(capsys.readouterr().out)])
    np.testing.assert_allclose(found, bert.embed(["房间", "很好"], "cls"), atol=1e-5)
    ok("embed", tiny_pretrained, "房间")
    assert "(32 values" in capsys.readouterr().out


def test_blanks_are_filled_from_some_words(tiny_pretrained, capsys):
    ok("fill-mask", tiny_pretrained, "这家[MASK]店", "--words", "好，酒,的", "--top-k", 2, "--json")
    [answer] = json_lines(capsys.readouterr().out)
    wanted = bert_jax.load(tiny_pretrained).fill_mask("这家[MASK]店", 2, ["好", "酒", "的"])
    assert [p["token"] for p in answer["masks"][0]] == [p.token for p in wanted[0]]
    assert {p["token"] for p in answer["masks"][0]} < {"好", "酒", "的"}


@pytest.mark.parametrize("flags", [[], ["--pooling", "max"], ["--layer", "1"], ["--pooling", "cls", "--layer", "0", "--normalize"]])
def test_vectors_are_made_as_is_asked(tiny_pretrained, capsys, flags):
    options = dict(zip(flags[::2], flags[1::2], strict=False))
    wanted = bert_jax.load(tiny_pretrained).embed(
        ["房间"], options.get("--pooling"), int(options.get("--layer", -1)), True if "--normalize" in flags else None
    )
    ok("embed", tiny_pretrained, "房间", *flags, "--json")
    np.testing.assert_allclose(json_lines(capsys.readouterr().out)[0]["embedding"], wanted[0], atol=1e-5)


def test_scores_of_texts(tiny_pretrained, tmp_path, capsys):
    texts = ["房间很好", "the cat"]
    wanted = bert_jax.load(tiny_pretrained).score(texts)
    ok("score", tiny_pretrained, *texts)
    assert capsys.readouterr().out.splitlines() == [f"{score:8.2f}  {text}" for score, text in zip(wanted, texts, strict=True)]
    (tmp_path / "a.txt").write_text("\n".join(texts))
    ok("score", tiny_pretrained, tmp_path / "a.txt", "--json")
    assert [answer["score"] for answer in json_lines(capsys.readouterr().out)] == pytest.approx(wanted, abs=1e-4)


def test_arguments_that_do_not_fit(tiny_pretrained, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("很\n")
    assert "but not both" in failure(capsys, "embed", tiny_pretrained)
    assert "but not both" in failure(capsys, "embed", tiny_pretrained, "很", "--input", tmp_path / "a.txt")
    assert "but not both" in failure(capsys, "embed", tiny_pretrained, "--input", tmp_path / "a.txt", tmp_path / "a.txt")
    assert "two texts, A and B (or two paths), not 1" in failure(capsys, "next-sentence", tiny_pretrained, "很")
    assert "two columns" in failure(capsys, "next-sentence", tiny_pretrained, "--input", tmp_path / "a.txt")
    assert ".jsonl or .npy" in failure(capsys, "embed", tiny_pretrained, "很", "--output", tmp_path / "v.csv")
    assert "does not end in .jsonl:" in failure(capsys, "classify", tiny_pretrained, "很", "--output", tmp_path / "v.npy")
    assert f"the directory {tmp_path / 'no'} does not exist" in failure(
        capsys, "embed", tiny_pretrained, "很", "--output", tmp_path / "no" / "v.npy"
    )
    assert "The text '很' has no [MASK]" in failure(capsys, "fill-mask", tiny_pretrained, "很")
    assert str(tiny_pretrained) in failure(capsys, "embed", tiny_pretrained.parent, "很")
    assert "requires a classifier" in failure(capsys, "classify", tiny_pretrained, "很")
    for arguments in (["embed", "model", "很", "--pool", "cls"], ["fill-mask", "model", "[MASK]", "--words", ","], ["no-such-command"], []):
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        assert exit_.value.code == 2


def test_a_vocabulary_is_trained_and_never_overwritten(corpus, tmp_path, capsys):
    ok("train-vocab", corpus, tmp_path / "vocab", "--size", 60, "--min-frequency", 1, "--casing", "cased")
    tokenizer = Tokenizer.load(tmp_path / "vocab")
    assert f"{tokenizer.vocab_size} tokens" in capsys.readouterr().out
    assert tokenizer.unk_id not in tokenizer.encode("It was 房间").ids
    assert "already exists" in failure(capsys, "train-vocab", corpus, tmp_path / "vocab")
    corpus.write_bytes(b"abc \xff\n")
    assert main(["train-vocab", str(corpus), str(tmp_path / "other")]) == 2
    assert "not UTF-8 at byte 4" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "other").exists()


def test_looking_at_a_corpus(corpus, tmp_path, capsys):
    (tmp_path / "test.tsv").write_text("text\tlabel\n房间很sat。我很喜欢。\t1\nsomething else altogether\t0\n")
    ok("inspect", corpus, "--evaluation-file", tmp_path / "test.tsv", "--json")
    found = json.loads(capsys.readouterr().out)
    assert (found["documents"], found["overlaps"][0]["texts"]) == (3, 2)
    ok("train-vocab", corpus, tmp_path / "vocab", "--min-frequency", 1)
    ok("inspect", corpus, "--vocab", tmp_path / "vocab", "--length", 16, "--batch-size", 2)
    assert "documents" in capsys.readouterr().out


def test_preparing_ahead_makes_what_training_looks_for(corpus, tmp_path, capsys):
    (tmp_path / "config.py").write_text(CONFIG)
    overrides = [f"--config.corpus.source={corpus}", "--config.corpus.valid_fraction", "0.3", "--config.vocabulary.min_frequency=1"]
    arguments = ["prepare", "--config", tmp_path / "config.py", "--workdir", tmp_path / "run", *overrides]
    ok(*arguments)
    shown = capsys.readouterr().out
    assert "train" in shown and "documents" in shown and (tmp_path / "run" / "vocabulary" / "vocab.txt").is_file()
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "data").rglob("*.array_record*")}
    assert made
    ok(*arguments)
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert "There is no configuration value" in failure(capsys, *arguments, "--config.corpus.sauce=x")
    with pytest.raises(SystemExit):
        main([str(argument) for argument in [*arguments, "--bogus"]])


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (InputError("name it"), 2, "error: name it\n"),
        (TrainingError("not finite"), 1, "error: not finite\n"),
        (Interrupted("saved step 3"), 130, "interrupted: saved step 3\n"),
        (Interrupted("saved step 3", 15), 143, "interrupted: saved step 3\n"),
        (
            OSError(28, "", "x"), 1,
            "error: A file cannot be read or written (No space left on device: x). Fix the cause and run the same command again.\n",
        ),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_errors_for_users_have_a_status_and_no_traceback(capsys, error, status, told):
    def command() -> None:
        raise error

    assert run_command(command) == status
    assert capsys.readouterr().err == told


def test_a_fault_of_the_program_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: print(1 // 0))


def test_overrides_of_a_configuration():
    parser = argparse.ArgumentParser()
    assert config_overrides(parser, ["--config.a.b=1", "--config.c", "x=y", "--config.d=p=q", "--config.e"]) == [
        "a.b=1",
        "c=x=y",
        "d=p=q",
        "e",
    ]
    for arguments in (["stray"], ["--config.a=1", "stray"], ["--other=1"]):
        with pytest.raises(SystemExit):
            config_overrides(parser, arguments)


def test_as_a_program(tmp_path):
    def program(*arguments: str, **options) -> subprocess.CompletedProcess:
        command = [sys.executable, "-X", "importtime", "-m", "bert_jax", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)}, check=False, **options)

    helped = program("classify", "--help")
    assert helped.returncode == 0 and "examples:" in helped.stdout and "jax.numpy" not in helped.stderr and "numpy" not in helped.stderr
    failed = program("train-vocab", str(tmp_path / "nowhere"), str(tmp_path / "out"))
    assert failed.returncode == 2 and "Traceback" not in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith(f"error: The corpus {tmp_path / 'nowhere'} does not exist")


def test_a_former_name_of_a_value_is_pointed_out(tmp_path):
    command = [sys.executable, "-m", "bert_jax", "train", "--config=demo", f"--workdir={tmp_path}", "--config.pretrain.accumulation=3"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 2 and "accumulation is now pretrain.gradient_accumulation_steps" in ran.stderr
    assert "gradient_accumulation_steps=3 is invalid" in ran.stderr.splitlines()[-1]


def test_a_process_looks_for_garbage_rarely_and_not_at_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    thresholds, at_exit = gc.get_threshold(), []
    monkeypatch.setattr(atexit, "register", at_exit.append)
    try:
        collect_rarely()
        assert gc.get_threshold()[0] > 10 * thresholds[0] and gc.get_threshold()[1:] == thresholds[1:]
    finally:
        gc.set_threshold(*thresholds)
    assert at_exit == [gc.freeze]
