"""Embedding models: from files of pairs to vectors, neighbors, scores, the report, and sentence-transformers."""

import dataclasses
import itertools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import failure, json_lines, ok
from small_run import write_files

import bert_jax
from bert_jax.convert.exports import export_model
from bert_jax.convert.imports import import_model
from bert_jax.errors import InputError
from bert_jax.inference import TruncationWarning
from bert_jax.inference.bert import Bert
from bert_jax.model.directory import EmbeddingConfig
from bert_jax.stages.run import run
from bert_jax.tasks import choices, configured
from bert_jax.tasks.contrastive import EMBEDDING, EmbeddingOptions


def write(path: Path, header: str, rows: list[str]) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained on overlapping parts of texts, with another text as a negative of each."""
    folder = tmp_path_factory.mktemp("embed")
    loop = "loop=LoopConfig(log_every=5, evaluate_every=20, save_every=20)"
    config = write_files(folder, 100, 200, "steps=2", f"{loop}, optimizer=OptimizerConfig(learning_rate=2e-3)")
    texts = [line.split("\t")[1] for line in (folder / "reviews.tsv").read_text(encoding="utf-8").splitlines()[1:]]
    texts = list(dict.fromkeys(text[:12] for text in texts if len(text) > 11))
    rows = [f"{text[:8]}\t{text[4:12]}\t{other[2:10]}" for text, other in itertools.pairwise(texts)]
    write(folder / "triples.tsv", "a\tb\tc", rows)
    overrides = ["pretrain=none", "finetune.task=embed", "finetune.task.negative=c", f"finetune.data.train={folder / 'triples.tsv'}"]
    overrides += ["finetune.data.text=a", "finetune.data.text_pair=b", "finetune.data.dev_fraction=0.2", "finetune.epochs=5"]
    overrides += ["finetune.from_scratch=true", "finetune.length=24", "finetune.task.microbatches=2", "finetune.batch_size=16"]
    overrides += ["encoder.segment_types=1"]
    run(configured(str(config), overrides), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def model(workdir: Path) -> Bert:
    return bert_jax.load(workdir / "finetune")


def predictions(workdir: Path) -> list[dict[str, Any]]:
    return predictions_of(workdir / "finetune")


def predictions_of(directory: Path) -> list[dict[str, Any]]:
    return json_lines((directory / "predictions.jsonl").read_text(encoding="utf-8"))


def test_it_learns_and_its_scores_are_those_of_its_vectors(workdir: Path, model: Bert) -> None:
    summary = json.loads((workdir / "summary.json").read_text())["finetune"]
    lines = predictions(workdir)
    untrained = json_lines((workdir / "finetune" / "metrics.jsonl").read_text())
    assert summary["mrr"] > 0.5 and summary["spearman"] is None
    best = max(line["mrr"] for line in untrained if line["split"] == "valid")
    assert summary["mrr"] == pytest.approx(best, abs=1e-6), "dev is test, and its best checkpoint is the model"
    answers = [line["text_pair"] for line in lines]
    anchors, positives = (model.embed([line[name] for line in lines]) for name in ("text", "text_pair"))
    np.testing.assert_allclose(np.linalg.norm(anchors, axis=1), 1, atol=1e-5)
    for line, cosines in zip(lines, anchors @ positives.T, strict=True):
        # The candidates include the negatives, so the rank among positives alone is a lower bound.
        assert line["rank"] >= 1 + sum(cosines > cosines[answers.index(line["text_pair"])] + 1e-5)
        first = line["nearest"][0]
        assert first["cosine"] == pytest.approx(float(model.embed(line["text"]) @ model.embed(first["text"])), abs=1e-4)
        assert [one["correct"] for one in line["nearest"]] == [one["text"] == line["text_pair"] for one in line["nearest"]]
    assert summary["recall_at_1"] == pytest.approx(np.mean([line["rank"] == 1 for line in lines]))


def test_the_report_marks_neighbors(workdir: Path) -> None:
    report = (workdir / "report.html").read_text(encoding="utf-8")
    assert "Test mean reciprocal rank" in report and "Nearest texts, by cosine" in report and "Test Spearman" not in report
    shown = json.loads((workdir / "examples.json").read_text())["embed"]
    right = [sum(one["correct"] for one in example["nearest"]) for example in shown]
    assert report.count('class="right"') == sum(right) > 0 and report.count('class="wrong"') == sum(5 - count for count in right)
    assert report.count("→") == right.count(0)


def test_the_description_says_how_vectors_are_made(model: Bert) -> None:
    assert model.embedding_length == 24
    with pytest.warns(TruncationWarning, match="limit of 24"):
        np.testing.assert_allclose(model.embed("好" * 50), model.embed("好" * 22), atol=1e-6)
    assert set(model.questions) == {"embed", "similar", "attention"}
    with pytest.raises(InputError, match=r"classify requires a classifier.*supports embed, similar"):
        model.classify("好")


def test_sentence_transformers_loads_it_and_it_comes_back(workdir: Path, model: Bert, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    assert export_model(workdir / "finetune", tmp_path / "out") == "BertModel"
    theirs = library.SentenceTransformer(str(tmp_path / "out"), device="cpu", local_files_only=True)
    texts = [*(line["text"] for line in predictions(workdir)[:5]), "好" * 60]
    wanted = theirs.encode(texts)
    assert "SentenceTransformer" in (tmp_path / "out" / "README.md").read_text()
    import_model(tmp_path / "out", tmp_path / "back")
    back = bert_jax.load(tmp_path / "back")
    assert back.embedding_length == 24
    with pytest.warns(TruncationWarning):
        np.testing.assert_allclose(model.embed(texts), wanted, atol=1e-5)
        np.testing.assert_allclose(back.embed(texts), wanted, atol=1e-5)


def test_a_transformers_model_with_pooling_by_hand_gives_the_same(workdir: Path, model: Bert, tmp_path: Path) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    export_model(workdir / "finetune", tmp_path / "out")
    texts = [line["text"] for line in predictions(workdir)[:4]]
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")(texts, return_tensors="pt", padding=True)
    tokens.pop("token_type_ids", None)
    with torch.no_grad():
        hidden = transformers.AutoModel.from_pretrained(tmp_path / "out").eval()(**tokens).last_hidden_state
    mask = tokens["attention_mask"][..., None]
    vectors = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1))
    np.testing.assert_allclose(model.embed(texts), vectors.numpy(), atol=1e-5)


def test_onnx_computes_the_vectors(workdir: Path, model: Bert, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("jax2onnx")
    ok("export", workdir / "finetune", tmp_path / "model.onnx")
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"))
    ids = [model.tokenizer.cls_id, *model.tokenizer.encode_batch(["房间"])[0].ids, model.tokenizer.sep_id]
    row = np.array([ids], np.int32)
    fields = {"tokens": row, "example_ids": row * 0 + 1, "positions": np.arange(row.size, dtype=np.int32)[None], "segments": row * 0}
    (found,) = session.run(["vectors"], fields | {"cls_positions": np.zeros((1, 1), np.int32)})
    np.testing.assert_allclose(found[0, 0], model.embed("房间"), atol=1e-5)


# Similar texts.


def test_similar_texts_are_those_of_numpy(model: Bert, tiny_classifier: Path) -> None:
    texts = ["房间很干净", "再也不来了", "服务很好", "房间很干净", "酒店不错"]
    for bert in (model, bert_jax.load(tiny_classifier)):
        vectors = bert.embed(texts, normalize=True)
        cosines = bert.embed(["很好", "干净"], normalize=True) @ vectors.T
        found = bert.similar(["很好", "干净"], texts, top_k=3)
        assert [len(one) for one in found] == [3, 3]
        for neighbors, row in zip(found, cosines, strict=True):
            assert [one.cosine for one in neighbors] == pytest.approx(sorted(row, reverse=True)[:3], abs=1e-5)
            assert all(one.text == texts[one.index] and row[one.index] == pytest.approx(one.cosine, abs=1e-5) for one in neighbors)
        (single,) = bert.similar("房间很干净", texts, top_k=1)
        assert (single.index, single.text) == (0, "房间很干净") and single.cosine == pytest.approx(1, abs=1e-5)
        assert [one.index for one in bert.similar("房间很干净", iter(texts), top_k=99)][:2] == [0, 3], "equal texts in their order"
        assert len(bert.similar("好", texts, top_k=99)) == 5


@pytest.mark.parametrize(
    ("texts", "top_k", "message"),
    [([], 5, "no texts to search"), (["好", " "], 5, "search at index 1 .*is empty"), (["好"], 0, "top_k=0 is invalid: .* at least 1")],
)
def test_what_cannot_be_searched_is_refused(model: Bert, texts: list[str], top_k: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model.similar("好", texts, top_k)


def test_prompts_are_those_for_queries_and_documents(workdir: Path, tmp_path: Path) -> None:
    export_model(workdir / "finetune", tmp_path / "out")
    prompts = {"query": "问", "document": "答好"}
    (tmp_path / "out" / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    bert = bert_jax.load(tmp_path / "out")
    (found,) = bert.similar("房间", ["服务"])
    plain = bert.embed(["问房间", "答好服务"])
    assert found.text == "服务" and found.cosine == pytest.approx(float(plain[0] @ plain[1]), abs=1e-5)


def test_the_command_answers_texts_and_files_and_resumes(
    workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bert_jax.cli import predict

    model, texts, out = workdir / "finetune", tmp_path / "texts.txt", tmp_path / "near.jsonl"
    texts.write_text("房间很干净\n再也不来了\n服务很好\n", encoding="utf-8")
    write(tmp_path / "queries.tsv", "text", ["干净", " ", "很好", "不来"])
    ok("similar", model, "干净", "不来", "--texts", texts, "--top-k", 2, "--json")
    first, second = json_lines(capsys.readouterr().out)
    assert len(first["nearest"]) == 2 and first["nearest"][0]["text"] == "房间很干净" and second["nearest"][0]["index"] == 1
    ok("similar", model, "干净", "--texts", texts)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "干净" and len(shown) == 4 and shown[1].split() == [f"{first['nearest'][0]['cosine']:.3f}", "房间很干净"]

    monkeypatch.setattr(predict, "CHUNK", 2)
    arguments = ["similar", model, tmp_path / "queries.tsv", "--texts", texts, "--output", out]
    ok(*arguments)
    whole = out.read_bytes()
    assert ["nearest" in line for line in json_lines(whole.decode())] == [True, False, True, True]
    out.unlink()
    answer, calls = Bert.ask, []

    def interrupted(*given: Any, **options: Any) -> Any:
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return answer(*given, **options)

    monkeypatch.setattr(Bert, "ask", interrupted)
    from bert_jax.cli import main

    assert main([str(argument) for argument in arguments]) == 130
    monkeypatch.setattr(Bert, "ask", answer)
    capsys.readouterr()
    ok(*arguments)
    assert "resuming after 2 lines" in capsys.readouterr().err and out.read_bytes() == whole
    out.unlink()
    texts.write_text("房间\n\n服务\n", encoding="utf-8")
    write(tmp_path / "bad.tsv", "text", ["好", " "])
    assert "bad.tsv line 3 has an empty text" in failure(capsys, "similar", model, "好", "--texts", tmp_path / "bad.tsv")
    (tmp_path / "long.txt").write_text("好" * 60 + "\n服务\n", encoding="utf-8")
    ok("similar", model, "好", "--texts", tmp_path / "long.txt")
    assert "1 of the texts to search were truncated to the model's limit of 24 tokens." in capsys.readouterr().err
    assert "none.txt" in failure(capsys, "similar", model, "好", "--texts", tmp_path / "none.txt")


# Scored pairs.


def test_scored_pairs_from_a_trained_model(workdir: Path, tmp_path: Path) -> None:
    stats = pytest.importorskip("scipy.stats")
    triples = [line.split("\t") for line in (workdir.parent / "triples.tsv").read_text(encoding="utf-8").splitlines()[1:41]]
    rows = [f"{a}\t{b}\t5" for a, b, _ in triples] + [f"{a}\t{c}\t{len(c) % 2}" for a, _, c in triples]
    write(tmp_path / "scored.tsv", "a\tb\tscore", [*rows, "好\t好\t5"])
    overrides = ["pretrain=none", "finetune.task=embed", "finetune.task.target=score", "finetune.task.equal_sides=leave_out"]
    overrides += [f"finetune.data.train={tmp_path / 'scored.tsv'}", "finetune.data.text=a", "finetune.data.text_pair=b"]
    overrides += [f"finetune.checkpoint={workdir / 'finetune'}", "finetune.compare_from_scratch=true", "finetune.data.dev_fraction=0.3"]
    overrides += ["finetune.task.pooling=cls", "finetune.task.normalize=false", "finetune.loop.evaluate_every=2"]
    run(configured(str(workdir.parent / "config.py"), overrides), tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())["finetune"]
    lines = predictions(tmp_path / "run")
    expected = stats.spearmanr([line["score"] for line in lines], [line["cosine"] for line in lines]).statistic
    assert summary["spearman"] == pytest.approx(expected, abs=2e-2) and summary["mrr"] is None
    assert -1 <= summary["from_scratch_spearman"] <= 1 and summary["notes"] == ["1 row with the same text on two sides was left out."]
    assert "Scores and cosines of test pairs" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    bert = bert_jax.load(tmp_path / "run" / "finetune")
    a, b = bert.embed([lines[0]["text"], lines[0]["text_pair"]])
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) == pytest.approx(lines[0]["cosine"], abs=1e-4)
    assert abs(np.linalg.norm(a) - 1) > 1e-3
    description = json.loads((tmp_path / "run" / "finetune" / "model.json").read_text())
    assert EmbeddingConfig(**description["embedding"]) == EmbeddingConfig("cls", False, 32)


def test_cross_validation_ranks_every_pair_among_those_of_its_fold(workdir: Path, tmp_path: Path) -> None:
    rows = (workdir.parent / "triples.tsv").read_text(encoding="utf-8").splitlines()[1:25]
    write(tmp_path / "triples.tsv", "a\tb\tc", rows)
    overrides = ["pretrain=none", "finetune.task=embed", "finetune.task.negative=c", f"finetune.data.train={tmp_path / 'triples.tsv'}"]
    overrides += ["finetune.data.text=a", "finetune.data.text_pair=b", "finetune.data.dev_fraction=0.2", "finetune.epochs=1"]
    overrides += ["finetune.data.folds=2", f"finetune.checkpoint={workdir / 'finetune'}", "finetune.length=24"]
    run(configured(str(workdir.parent / "config.py"), overrides), tmp_path / "run")
    lines = predictions_of(tmp_path / "run")
    assert [(line["text"], line["text_pair"]) for line in lines] == [tuple(row.split("\t")[:2]) for row in rows]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())["finetune"]
    assert summary["mrr"] == pytest.approx(np.mean([1 / line["rank"] for line in lines])) and summary["test_examples"] == 24
    folds = [predictions_of(tmp_path / "run" / f"finetune_fold_{number}") for number in (1, 2)]
    assert sorted(map(str, itertools.chain(*folds))) == sorted(map(str, lines))


# Bad input.

FAULTS: list[tuple[str, list[str], dict[str, str], str]] = [
    ("a\tb", ["x\ty", "same  text\tsame text", "z\tw"], {}, "line 3 has the same text on two sides ('same  text').*equal_sides=leave_out"),
    ("a\tb\tc", ["x\ty\tv", "z\tw\tz"], {"task.negative": "c"}, r"line 3 has the same text on two sides \('z'\)"),
    ("a\tb\tc", ["x\ty\tv", "z\tw\t "], {"task.negative": "c"}, "line 3 has empty text in column 'c'"),
    ("a\tb", ["x\ty"], {}, "has 1 pair, but each text is compared with those of other pairs"),
    ("a\tb", ["x\ty", "v\tw"], {"data.text_pair": ""}, "trained on pairs: set finetune.data.text_pair"),
    ("a\tb\tc", ["x\ty\t3", "v\tw\tnan"], {"task.target": "c"}, "line 3 has 'nan' in the column 'c', which must be a finite number"),
    ("a\tb\tc", ["x\ty\t3", "v\tw\t3"], {"task.target": "c"}, "has the number 3: there is nothing to learn"),
    ("a\tb", ["x\tx", "y\ty"], {"task.equal_sides": "leave_out"}, "No row of .* can be used: all were left out.*finetune.data.train"),
    ("a\tb", ["x\ty", "v\tw"], {"task.negative": "n"}, "no column 'n'.*finetune.task.negative"),
    ("a\tb", ["x\ty", "v\tw"], {"task.negative": "b"}, "task.negative='b' is invalid: it must not be one of the text columns"),
    ("a\tb\tc", ["x\ty\t3"], {"task.target": "c", "task.negative": "d"}, "scored pairs (task.target) have no negatives"),
    ("a\tb", ["x\ty", "v\tw"], {"task.temperature": "0"}, "temperature=0.0 is invalid: it must be greater than zero"),
    ("a\tb", ["x\ty", "v\tw"], {"task.pooling": "median"}, "pooling"),
]


@pytest.mark.parametrize(("header", "rows", "options", "message"), FAULTS)
def test_faults_are_refused_with_their_line(
    header: str, rows: list[str], options: dict[str, str], message: str, workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write(tmp_path / "pairs.tsv", header, rows)
    given = {"task": "embed", "data.train": str(table), "data.text": "a", "data.text_pair": "b", **options}
    arguments = [f"--config.finetune.{name}={value}" for name, value in given.items()]
    config = workdir.parent / "config.py"
    error = failure(capsys, "train", f"--config={config}", f"--workdir={tmp_path / 'run'}", "--config.pretrain=none", *arguments)
    assert re.search(message.replace("(task.target)", r"\(task.target\)").replace("('same  text')", r"\('same  text'\)"), error), error


def test_several_negatives_of_a_pair_are_kept_and_stay_together(tmp_path: Path) -> None:
    from bert_jax.config import LabelledConfig
    from bert_jax.data.labelled import load_labelled

    rows = [f"q{pair}\td{pair}\tn{pair} {index}" for pair in range(20) for index in (0, 1)]
    table = write(tmp_path / "triples.tsv", "a\tb\tc", [*rows, rows[0]])
    config = LabelledConfig(train=str(table), text="a", text_pair="b", dev_fraction=0.2)
    labelled = load_labelled(config, EMBEDDING.labels(EmbeddingOptions(negative="c")), 0)
    assert labelled.duplicates == 1 and labelled.overlaps == {"dev": 0, "test": 0}
    assert len(labelled.dev) == 8 and 20 < len(labelled.train) <= 32


def test_what_an_embedding_model_loses_is_said(model: Bert) -> None:
    options = EmbeddingOptions(pooling="cls")
    (remark,) = EMBEDDING.encoder_remarks(options, model.description)
    assert "pools by mean, the fine-tuned one by cls. To keep it, set --config.finetune.task.pooling=mean." in remark
    prompted = dataclasses.replace(model.description, embedding=EmbeddingConfig("cls", prompts={"query": "query: "}))
    (remark,) = EMBEDDING.encoder_remarks(options, prompted)
    assert "prompts ('query: ')" in remark
    plain = dataclasses.replace(model.description, embedding=EmbeddingConfig())
    assert not EMBEDDING.encoder_remarks(options, plain), "a pre-trained BERT has no pooling of its own"


def test_microbatches_that_do_not_divide_the_batch_are_refused(workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write(tmp_path / "pairs.tsv", "a\tb", [f"好{index}\t很{index}" for index in range(12)])
    given = {"task": "embed", "data.train": str(table), "data.text": "a", "data.text_pair": "b", "task.microbatches": "3"}
    arguments = [f"--config.finetune.{name}={value}" for name, value in given.items()]
    arguments += [f"--config.finetune.checkpoint={workdir / 'finetune'}", "--config.pretrain=none"]
    command = ["train", f"--config={workdir.parent / 'config.py'}", f"--workdir={tmp_path / 'run'}", *arguments]
    assert "finetune.batch_size=8 cannot be divided into finetune.task.microbatches=3" in failure(capsys, *command)
    shutil.rmtree(tmp_path / "run")
    command[-3] = "--config.finetune.batch_size=1"
    assert "a batch of 1 row holds only one" in failure(capsys, *command, "--config.finetune.examples_per_row=2")


def test_options_reach_the_objective() -> None:
    assert choices()[type(EmbeddingOptions()).__mro__[1]]["embed"] is EmbeddingOptions
    options = EmbeddingOptions(temperature=0.1, symmetric=True, microbatches=4)
    found: Any = EMBEDDING.objective(None, options, None)  # type: ignore[arg-type]
    assert (found.temperature, found.symmetric, found.microbatches, found.scored) == (0.1, True, 4, False)
