"""Tags for words: from files to spans, scores, the report, and transformers."""

import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import failure
from small_run import write_files

import bert_jax
from bert_jax.convert.exports import export_model
from bert_jax.convert.imports import import_model
from bert_jax.errors import InputError
from bert_jax.stages.run import run
from bert_jax.tasks import configured
from bert_jax.tasks.tagging import TAGGING, schemes
from bert_jax.tasks.tagging.files import read_tagged, read_words
from bert_jax.tasks.tagging.linear import linear_tags
from bert_jax.tasks.tagging.questions import Tag, entities
from bert_jax.tasks.tagging.scores import entity_scores
from bert_jax.tasks.tagging.words import Words

NAMES, PLACES = "人家时", "房床店"  # of the vocabulary
COLUMNS = {"finetune.data.text": "words", "finetune.task.target": "tags"}


def sentence(random_: random.Random, length: int) -> list[tuple[str, str]]:
    """Characters with tags: a name is one of NAMES and the character after it, a place is one of PLACES."""
    tagged: list[tuple[str, str]] = []
    while len(tagged) < length:
        kind = random_.randrange(4)
        if kind == 0:
            tagged += [(random_.choice(NAMES), "B-PER"), (random_.choice("好大小"), "I-PER")]
        elif kind == 1:
            tagged.append((random_.choice(PLACES), "B-LOC"))
        else:
            tagged.append((random_.choice("的是在很好小"), "O"))
    return tagged


def conll(sentences: list[list[tuple[str, str]]]) -> str:
    return "\n\n".join("\n".join(f"{word}\t{tag}" for word, tag in one) for one in sentences) + "\n"


def numbered(columns: str) -> str:
    """The same with a column before the others."""
    return "".join(f"7\t{line}" if line.strip() else line for line in columns.splitlines(keepends=True))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of names and places, trained on texts of which some are longer than its rows."""
    folder = tmp_path_factory.mktemp("tagging")
    loop = "loop=LoopConfig(log_every=5, evaluate_every=40, save_every=40)"
    finetune = f"{loop}, from_scratch=True, compare_linear=True, optimizer=OptimizerConfig(learning_rate=3e-3)"
    config = write_files(folder, 100, 200, "steps=2", finetune)
    random_ = random.Random(0)
    sentences = [sentence(random_, random_.choice((3, 9, 20, 70))) for _ in range(160)]
    (folder / "train.conll").write_text(numbered(conll(sentences[:120])), encoding="utf-8")
    (folder / "test.conll").write_text(numbered(conll(sentences[120:])), encoding="utf-8")
    overrides = ["pretrain=none", "finetune.task=tag", f"finetune.data.train={folder / 'train.conll'}", "finetune.epochs=10"]
    overrides += [f"finetune.data.test={folder / 'test.conll'}", "finetune.length=32", "finetune.task.conll_columns=2,3"]
    run(configured(str(config), overrides), folder / "run")
    return folder / "run"


def predictions(workdir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workdir / "finetune" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_scores_of_a_run_are_those_of_seqeval(workdir: Path) -> None:
    metrics, scheme = pytest.importorskip("seqeval.metrics"), pytest.importorskip("seqeval.scheme")
    true, found = ([line[name] for line in predictions(workdir)] for name in ("tags", "predicted"))
    summary = json.loads((workdir / "summary.json").read_text())["finetune"]
    expected = metrics.classification_report(true, found, mode="strict", scheme=scheme.IOB2, output_dict=True, zero_division=0)
    assert summary["f1"] == pytest.approx(expected["micro avg"]["f1-score"])
    assert summary["accuracy"] == pytest.approx(metrics.accuracy_score(true, found))
    for row in summary["types"]:
        values = expected[row["type"]]
        assert [row["precision"], row["recall"], row["f1"]] == pytest.approx([values[n] for n in ("precision", "recall", "f1-score")])
        assert row["entities"] == values["support"]


def test_it_learns_and_the_report_shows_it(workdir: Path) -> None:
    summary = json.loads((workdir / "summary.json").read_text())["finetune"]
    assert summary["f1"] > 0.8 and summary["accuracy"] > 0.85 and summary["linear_f1"] > 0.5 and summary["test_words"] > 500
    report = (workdir / "report.html").read_text(encoding="utf-8")
    assert "F1 of each type" in report and '<mark class="color' in report


def test_every_word_of_a_long_text_is_predicted(workdir: Path) -> None:
    lines = predictions(workdir)
    assert max(len(line["words"]) for line in lines) > 60
    long = [pair for line in lines if len(line["words"]) > 60 for pair in zip(line["tags"], line["predicted"], strict=True)]
    assert np.mean([true == found for true, found in long]) > 0.85  # words that no window had read would all be O


def test_a_loaded_model_finds_the_stored_predictions(workdir: Path) -> None:
    model = bert_jax.load(workdir / "finetune")
    lines = predictions(workdir)
    answers = model.tag([line["text"] for line in lines])
    assert answers == model.tag([line["words"] for line in lines])
    assert [span.label for span in model.tag(lines[0]["text"])] == [span.label for span in answers[0]]
    for line, spans in zip(lines, answers, strict=True):
        places = Words(tuple(line["words"])).spans
        stored = [(one.type, places[one.start][0], places[one.end - 1][1]) for one in entities(line["predicted"], model.labels)]
        assert stored == [(span.label, span.start, span.end) for span in spans]
        assert all(line["text"][span.start : span.end] == span.text and 0 < span.probability <= 1 for span in spans)
    with pytest.raises(InputError, match=r"classify requires a classifier.*supports tag, embed"):
        model.classify("好")
    with pytest.raises(InputError, match="is not a string or a list of words but int"):
        model.tag([3])  # type: ignore[list-item]
    with pytest.raises(InputError, match="is empty"):
        model.tag(["好", "\u200b"])


def test_the_command_tags_a_file_and_texts(workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bert_jax.cli import main

    model = bert_jax.load(workdir / "finetune")
    texts = [line["text"] for line in predictions(workdir)[:5]]
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    assert main(["tag", str(workdir / "finetune"), str(tmp_path / "texts.txt"), "--output", str(tmp_path / "out.jsonl")]) == 0
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    for answer, spans in zip(answers, model.tag(texts), strict=True):
        assert [(one["label"], one["text"], one["start"]) for one in answer["spans"]] == [(s.label, s.text, s.start) for s in spans]
    files = {"words.conll": "\n\n".join("\n".join(text) for text in texts), "tagged.conll": conll([[(c, "O") for c in t] for t in texts])}
    for name, content in files.items():
        (tmp_path / name).write_text(numbered(content), encoding="utf-8")
        assert main(["tag", str(workdir / "finetune"), str(tmp_path / name), "--output", str(tmp_path / "words.jsonl")]) == 0
        found = [json.loads(line) for line in (tmp_path / "words.jsonl").read_text(encoding="utf-8").splitlines()]
        assert [(line["text"], line["spans"]) for line in found] == [(line["text"], line["spans"]) for line in answers]
        assert [line["line"] for line in found][:2] == [1, len(texts[0]) + 2]
    rows = [*({"words": [*text]} for text in texts), {"words": []}, {"words": "[房]"}, {"words": ["房", None]}]
    (tmp_path / "lists.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    arguments = [str(tmp_path / "lists.jsonl"), "--text=words", f"--output={tmp_path / 'words.jsonl'}"]
    assert main(["tag", str(workdir / "finetune"), *arguments]) == 0
    *found, empty, text, null = [json.loads(line) for line in (tmp_path / "words.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["text"], line["spans"]) for line in found] == [(line["text"], line["spans"]) for line in answers]
    assert "empty" in empty["error"] and "another type" in text["error"] and "not a string or a list of words" in null["error"]
    assert [Tag().given(one) for one in ("[1]", "[PER] x", '["x", 1]')] == ["[1]", "[PER] x", Words(("x", "1"))]
    capsys.readouterr()
    assert main(["tag", str(workdir / "finetune"), "在房的"]) == 0
    assert capsys.readouterr().out == "在[房 LOC]的\n"


def test_transformers_finds_the_same_spans(workdir: Path, tmp_path: Path) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    assert export_model(workdir / "finetune", tmp_path / "out") == "BertForTokenClassification"
    theirs = transformers.AutoModelForTokenClassification.from_pretrained(tmp_path / "out").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    model = bert_jax.load(workdir / "finetune")
    texts = [line["text"] for line in predictions(workdir) if len(line["words"]) <= 20][:8]
    # A word is a token here, so that `simple` groups what the strategies for words would; those warn that this tokenizer has none.
    tag = transformers.pipeline("token-classification", model=theirs, tokenizer=tokenizer, aggregation_strategy="simple")
    for found, spans in zip(tag(texts), model.tag(texts), strict=True):
        assert [(one["entity_group"], one["start"], one["end"]) for one in found] == [(s.label, s.start, s.end) for s in spans]
        assert [float(one["score"]) for one in found] == pytest.approx([s.probability for s in spans], abs=1e-5)
    assert 'aggregation_strategy="simple")' in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert export_model(workdir / "finetune", tmp_path / "bare", architecture="BertModel") == "BertModel"
    imported = import_model(tmp_path / "out", tmp_path / "again")
    assert imported.description.kind == "tagging" and imported.description.labels == model.labels
    again = bert_jax.load(tmp_path / "again").tag(texts)
    assert [[(s.label, s.start) for s in spans] for spans in again] == [[(s.label, s.start) for s in spans] for spans in model.tag(texts)]
    with torch.no_grad():
        logits = theirs(**tokenizer(texts[0], return_tensors="pt")).logits[0].numpy()
    assert logits.shape[-1] == len(model.labels)


def test_words_of_several_pieces_and_offsets_of_the_text_as_given(tmp_path: Path) -> None:
    """A published tagger of lower-cased pieces: its first pieces count, as in the pipeline's strategy `first`."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "an", "##na", "kel", "##ler", "in", "oslo", ",", "e", "##te", "ber", "##n", "."]
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    tokenizer = transformers.BertTokenizerFast(vocab_file=str(tmp_path / "theirs" / "vocab.txt"))
    labels = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    torch.manual_seed(3)
    config = transformers.BertConfig(
        vocab_size=len(pieces), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=40, id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)},
        initializer_range=0.5,
    )  # fmt: skip
    theirs = transformers.BertForTokenClassification(config).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer.save_pretrained(tmp_path / "theirs")
    import_model(tmp_path / "theirs", tmp_path / "ours")
    export_model(tmp_path / "ours", tmp_path / "out")
    assert 'aggregation_strategy="first")' in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    model = bert_jax.load(tmp_path / "theirs")
    texts = ["Anna Keller in Été, Bern.", "  ANNA  kéller\u200b in Oslo", "E\u0301te\u0301 in Bern, Anna.", "Bern"]
    pipeline = transformers.pipeline("token-classification", model=theirs, tokenizer=tokenizer, aggregation_strategy="first")
    different = False
    for text, found, spans in zip(texts, pipeline(texts), model.tag(texts), strict=True):
        assert [(one["entity_group"], one["start"], one["end"]) for one in found] == [(s.label, s.start, s.end) for s in spans]
        assert [float(one["score"]) for one in found] == pytest.approx([s.probability for s in spans], abs=1e-5)
        assert [s.text for s in spans] == [text[s.start : s.end] for s in spans]
        different |= len({s.label for s in spans}) > 1
    assert different  # else the texts would show little


def test_a_word_that_the_tokenizer_drops_keeps_its_place(workdir: Path, tmp_path: Path) -> None:
    from bert_jax.config import LabelledConfig
    from bert_jax.data.labelled import load_labelled
    from bert_jax.model import directory
    from bert_jax.tasks.tagging.options import TaggingOptions

    path = tmp_path / "dropped.conll"
    path.write_text("好\tO\n\u200b\tO\n京\tB-LOC\n\n王\tB-PER\n好\tI-PER\n", encoding="utf-8")
    options = TaggingOptions()
    data = LabelledConfig(train=str(path), dev=str(path), text="words")
    labelled = load_labelled(data, TAGGING.labels(options), 0, others=TAGGING.read_rows(options))
    _, reader = directory.read(workdir / "finetune")
    encoded = TAGGING.encode(labelled.train, reader, 16)
    names = [labelled.label_names[label] for label in encoded.token_labels.tolist()]
    assert names == ["O", "B-LOC", "B-PER", "I-PER"] and encoded.items.tolist() == [0, 2, 3, 4]
    scorer = TAGGING.scorer(labelled, options)
    found = np.stack([encoded.token_labels, np.ones(4)], 1).astype(np.float32)
    scorer.add(encoded.items, found)
    assert scorer.result()["f1"] == 1 and scorer.line(0)["predicted"] == ["O", "O", "B-LOC"]


@pytest.mark.parametrize("length", (8, 16, 24))
def test_each_word_is_labeled_in_one_window(workdir: Path, length: int) -> None:
    from bert_jax.data.labelled import LabelledExamples
    from bert_jax.model import directory
    from bert_jax.tasks.tagging.labels import encode_tagged

    _, reader = directory.read(workdir / "finetune")
    texts = [Words(tuple("好大小的是在" * repeats)) for repeats in (1, 2, 7)]
    targets = np.empty(3, object)
    targets[:] = [tuple(range(len(text.words))) for text in texts]
    encoded = encode_tagged(LabelledExamples(texts, None, targets, np.arange(3)), reader, length)
    assert encoded.examples.lengths.max() <= length
    labeled = encoded.items >= 0
    assert encoded.items[labeled].tolist() == list(range(sum(len(text.words) for text in texts)))
    assert encoded.token_labels[labeled].tolist() == [index for text in texts for index in range(len(text.words))]
    assert (encoded.token_labels[~labeled] == -1).all()


SEQEVAL = (0.5684430512016719, 0.55637513, 0.58031088)
BIO = ["B-A", "I-A", "O", "B-B", "B-B", "I-B", "I-B"]


@pytest.mark.parametrize(
    ("tags", "scheme"),
    (
        (BIO, "bio"),
        (["B-A", "E-A", "O", "S-B", "B-B", "I-B", "E-B"], "bioes"),
        (["B-A", "L-A", "O", "U-B", "B-B", "I-B", "L-B"], "bioes"),
    ),
)
def test_schemes_are_found_out_and_converted(tags: list[str], scheme: schemes.Scheme) -> None:
    assert schemes.detect(tags) == scheme
    assert schemes.to_bio(tags, scheme) == (BIO, [])


def test_types_alone_and_tags_without_entities() -> None:
    assert schemes.detect(["A", "A", "O", "B"]) == "io"
    assert schemes.to_bio(["A", "A", "O", "B", "A"], "io") == (["B-A", "I-A", "O", "B-B", "B-A"], [])
    assert schemes.to_bio(["I-A", "I-A", "O", "I-B", "I-A"], "io") == (["B-A", "I-A", "O", "B-B", "B-A"], [])
    assert schemes.detect(["NOUN", "X-Y", "VERB"]) == "plain"
    assert schemes.to_bio(["NOUN", "VERB"], "plain") == (["NOUN", "VERB"], [])


@pytest.mark.parametrize(
    ("tags", "scheme", "repaired", "places"),
    (
        (["I-A", "I-A", "O", "I-A"], "bio", ["B-A", "I-A", "O", "B-A"], [0, 3]),
        (["B-A", "I-B"], "bio", ["B-A", "B-B"], [1]),
        (["B-A", "O"], "bioes", ["B-A", "O"], [1]),
        (["B-A", "I-A"], "bioes", ["B-A", "I-A"], [1]),
        (["S-A", "E-A"], "bioes", ["B-A", "B-A"], [1]),
    ),
)
def test_impossible_tags_are_repaired(tags: list[str], scheme: schemes.Scheme, repaired: list[str], places: list[int]) -> None:
    assert schemes.to_bio(tags, scheme) == (repaired, places)


def test_scores_of_any_tags_are_those_of_seqeval() -> None:
    random_ = random.Random(1)
    tags = ["O", "B-A", "I-A", "B-B", "I-B"]
    true = [schemes.to_bio([random_.choice(tags) for _ in range(8)], "bio")[0] for _ in range(200)]
    found = [[random_.choice((tag, random_.choice(tags))) for tag in one] for one in true]
    # seqeval 1.2.2: f1_score(true, found, mode="strict", scheme=IOB2), and the same with average=None
    scores = entity_scores(true, found)
    assert scores["f1"] == pytest.approx(SEQEVAL[0], abs=1e-12)
    assert [row["f1"] for row in scores["types"]] == pytest.approx(SEQEVAL[1:], abs=1e-8)


def read(path: Path, text: str, **options: Any) -> list[tuple[list[str], list[str]]]:
    path.write_text(text, encoding="utf-8")
    rows = read_tagged(str(path), COLUMNS, "train", **options)
    return [(list(words.words), list(tagged.tags)) for words, tagged in (row.values for row in rows)]


def test_files_of_words_and_tags(tmp_path: Path) -> None:
    expected = [(["EU", "rejects"], ["B-ORG", "O"]), (["Oslo"], ["B-LOC"])]
    document = "-DOCSTART- -X- O O\n\nEU NNP I-NP B-ORG\nrejects VBZ I-VP O\n\nOslo NNP I-NP B-LOC\n"
    assert read(tmp_path / "a.txt", document) == expected
    assert read(tmp_path / "a.txt", document, numbers=(1, 2)) == [(["EU", "rejects"], ["NNP", "VBZ"]), (["Oslo"], ["NNP"])]
    # A separating line may hold a tab, and lines may end in \r\n.
    assert read(tmp_path / "b.conll", "EU\tB-ORG\r\nrejects\tO\r\n\t\r\nOslo\tB-LOC") == expected
    rows = [{"words": words, "tags": tags} for words, tags in expected]
    assert read(tmp_path / "c.jsonl", "".join(json.dumps(row) + "\n" for row in rows)) == expected
    universal = (
        "# text = vámonos\n1-2\tvámonos\t_\t_\t_\n1\tvamos\tir\tVERB\tx\n2\tnos\tnosotros\tPRON\tx\n2.1\tx\ty\tNOUN\tx\n\n1\t#\t#\tSYM\tx\n"
    )
    assert read(tmp_path / "d.conllu", universal) == [(["vamos", "nos"], ["VERB", "PRON"]), (["#"], ["SYM"])]


def test_lists_of_words_in_a_table_may_look_like_json(tmp_path: Path) -> None:
    assert read(tmp_path / "a.tsv", "words\ttags\n1984\tO\n[ 京\tO O\n") == [(["1984"], ["O"]), (["[", "京"], ["O", "O"])]
    with pytest.raises(InputError, match="line 2 has "):
        read(tmp_path / "a.tsv", f"words\ttags\n{'[' * 100_000}\tO O\n")


def test_a_line_without_a_word_is_refused_without_advice_about_training(tmp_path: Path) -> None:
    (tmp_path / "a.conllu").write_text("1\tvamos\n2\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"line 2 has 1 column \('2'\), but the word is in column 2: correct the line\.$"):
        list(read_words(tmp_path / "a.conllu"))


def test_a_word_without_a_token_has_no_span_and_joins_none() -> None:
    tags = ["NOUN", "O", "NOUN", "NOUN"]
    assert [(one.type, one.start) for one in entities(tags, ["NOUN", "VERB"])] == [("NOUN", 0), ("NOUN", 2), ("NOUN", 3)]
    example = {"words": ["a", "\u200b", "b", "c"], "tags": ["NOUN"] * 4, "predicted": tags}
    [panel] = TAGGING.panels({"tag": [example]})
    assert [len(text.marks) for text in panel.examples[0].texts if not isinstance(text, str)] == [3, 4]


def test_a_linear_tagger_of_one_tag_predicts_it() -> None:
    assert linear_tags([Words(("a", "b"))], [["O", "O"]], [Words(("c",)), Words(("a", "b"))]) == [["O"], ["O", "O"]]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    (
        ("a.conll", "好 O\n京\n", "a.conll line 2 has 1 column"),
        ("a.conll", "", "contains no words"),
        ("a.conll", "好 O\n京 I-LOC\n", r"a.conll line 2 \(word 2, '京'\) has the tag 'I-LOC' after 'O'.*impossible=repair"),
        ("a.conll", "好\tO\n京\t\n", r"a.conll line 2 \(word 2, '京'\) has no tag"),
        ("a.conll", "好 O\n京 O\n", "nothing to learn"),
        ("a.conll", "好 O\n京 B-LOC\n王 PER\n", r"line 3 \(word 3, '王'\) has the tag 'PER', .* not one of the scheme bio.*scheme=plain"),
        ("a.conll", "-DOCSTART- -X- O\n\n", "No row of .*a.conll can be used"),
        ("a.jsonl", '{"words": ["好"], "tags": ["O", "O"]}\n', "line 1 has 1 words but 2 tags"),
        ("a.jsonl", '{"words": ["好"], "tags": {"a": 1}}\n', "line 1 has an object in column 'tags'"),
        ("a.jsonl", '{"words": ["好"]}\n', "no column 'tags'"),
        ("a.tsv", "words\ttags\n好 京\tO\n", "line 2 has 2 words but 1 tags"),
    ),
)
def test_bad_files_are_refused(
    tmp_path: Path, workdir: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    arguments = [f"--config.finetune.checkpoint={workdir / 'finetune'}", f"--config.finetune.data.train={tmp_path / name}"]
    assert_fails(capsys, tmp_path, arguments, message)


def assert_fails(capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], message: str) -> None:
    config = Path(__file__).parents[1] / "configs" / "finetune_tag.py"
    found = failure(capsys, "train", f"--config={config}", f"--workdir={tmp_path / 'run'}", *arguments)
    assert re.search(message, found), found


def test_pairs_are_refused(tmp_path: Path, workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.conll").write_text("好 O\n京 B-LOC\n", encoding="utf-8")
    arguments = [f"--config.finetune.checkpoint={workdir / 'finetune'}", f"--config.finetune.data.train={tmp_path / 'train.conll'}"]
    assert_fails(capsys, tmp_path, [*arguments, "--config.finetune.data.text_pair=b"], "single texts, not pairs: leave .*text_pair empty")


def test_a_dev_tag_that_train_lacks_is_refused(tmp_path: Path, workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.conll").write_text("好 O\n京 B-LOC\n", encoding="utf-8")
    (tmp_path / "dev.conll").write_text("好 O\n\n王 B-PER\n", encoding="utf-8")
    arguments = [f"--config.finetune.checkpoint={workdir / 'finetune'}"]
    arguments += [f"--config.finetune.data.{split}={tmp_path / split}.conll" for split in ("train", "dev")]
    message = r"dev.conll line 3 \(word 1, '王'\) has the tag 'B-PER', which .*train.conll does not have"
    assert_fails(capsys, tmp_path, arguments, message)


def test_cross_validation_predicts_every_word_once(workdir: Path, tmp_path: Path) -> None:
    sentences = [sentence(random.Random(seed), 4 + seed % 9) for seed in range(12)]
    (tmp_path / "all.conll").write_text(conll(sentences), encoding="utf-8")
    overrides = ["pretrain=none", "finetune.task=tag", f"finetune.data.train={tmp_path / 'all.conll'}", "finetune.epochs=2"]
    overrides += ["finetune.data.folds=2", "finetune.from_scratch=false", f"finetune.checkpoint={workdir / 'finetune'}"]
    overrides += ["finetune.compare_linear=false", "finetune.length=32"]
    run(configured(str(workdir.parent / "config.py"), overrides), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["words"] for line in lines] == [[word for word, _ in one] for one in sentences]
    assert [line["tags"] for line in lines] == [[tag for _, tag in one] for one in sentences]
    right = [true == found for line in lines for true, found in zip(line["tags"], line["predicted"], strict=True)]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())["finetune"]
    assert summary["accuracy"] == pytest.approx(np.mean(right)) and np.mean(right) > 0.8  # words of other texts would be right by chance
    assert summary["test_words"] == len(right) and len(summary["repeats"]["scores"]["f1"]["values"]) == 2
