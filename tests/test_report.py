"""The report: one file, everything that there is, nothing that runs out of the texts."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from bert_jax.config import EncoderConfig, RunConfig, to_dict
from bert_jax.errors import InputError
from bert_jax.report import write_report
from bert_jax.runtime.metrics import MetricsWriter
from bert_jax.tasks.classification.scores import score_classes

EVIL = '<script>alert("1")</script><img src=x onerror=alert(2)>\'"&'


class Page(HTMLParser):
    """Elements, attributes and visible text; fails on tags that are not closed in order."""

    VOID = ("meta", "br", "img", "line", "polyline", "polygon", "circle", "link")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag in self.VOID or self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text += data

    def of(self, tag, css=None):
        found = [attributes for name, attributes in self.elements if name == tag]
        return [attributes for attributes in found if css is None or css in (attributes.get("class") or "").split()]


def page(workdir) -> Page:
    path = write_report(workdir)
    assert path == workdir / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def dump(workdir, name, values):
    (workdir / f"{name}.json").write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")


@pytest.fixture
def workdir(tmp_path):
    dump(tmp_path, "config", to_dict(RunConfig(encoder=EncoderConfig.preset("tiny"))))
    dump(
        tmp_path,
        "summary",
        {
            "pretrain": {
                "steps": 2000, "real_tokens": 9_800_000, "mlm_loss": 4.0, "mlm_accuracy": 0.27, "mlm_accuracy_floor": 0.05,
                "nsp_accuracy": 0.68, "real_tokens_per_second": 21_000,
            },
            "finetune": {
                "train_examples": 1000, "test_examples": 1741, "accuracy": 0.791, "from_scratch_accuracy": 0.751, "macro_f1": 0.79,
                "confusion": [[712, 158], [206, 665]], "labels": ["negative", "positive"],
                "classes": [{"class": "negative", "precision": 0.776, "recall": 0.818, "f1": 0.797, "examples": 870}],
            },
        },
    )  # fmt: skip
    dump(
        tmp_path,
        "examples",
        {
            "fill_mask": [
                {"text": "服务很[MASK]。", "masks": [[{"token": "好", "probability": 0.61}, {"token": "差", "probability": 0.15}]]},
            ],
            "next_sentence": [{"a": "他打开门。", "b": "屋里没有人。", "probability": 0.2, "expected": True}],
            "classify": [{"text": "再也不来了", "label": "negative", "probability": 0.9, "expected": "negative"}],
        },
    )
    for stage in ("pretrain", "finetune", "finetune_from_scratch"):
        with MetricsWriter(tmp_path / stage) as writer:
            for step in (10, 20, 30):
                figures = {"loss": 9 - step / 10, "accuracy": step / 40, "mlm_accuracy": step / 100, "learning_rate": 1e-4, "padding": 0.03}
                writer.write(step, "train", figures)
                writer.write(step, "valid", {"loss": 9.1 - step / 10, "accuracy": step / 50})
    return tmp_path


def test_the_whole_run_is_shown(workdir):
    shown = page(workdir)
    for text in ["27.0%", "5.0% by always predicting the most frequent token", "68.0%", "9.8M", "2,000 steps"]:
        assert text in shown.text
    assert "F1 of each class" in shown.text and "negative77.6%81.8%79.7%870" in shown.text
    for text in ["79.1%", "+4.0 points", "75.1%", "1,741", "712", "81.8%", "encoder.layers"]:
        assert text in shown.text
    for text in ["服务很", "好", "61.0%", "屋里没有人。", "does not follow", "80.0%", "再也不来了", "negative"]:
        assert text in shown.text
    titles = re.findall(r'aria-label="([^;"]+);', (workdir / "report.html").read_text(encoding="utf-8"))
    how_it_ran = ["Learning rate", "Padding"]
    assert titles == ["Loss", "Masked-token accuracy", *how_it_ran, "Accuracy", "Loss", *how_it_ran]
    # Fine-tuning: training and held-out curves of both runs on one chart.
    accuracy = json.loads(next(figure["data-series"] for figure in shown.of("figure") if "from scratch" in figure["data-series"]))
    names = ["pre-trained, training", "pre-trained, held out", "from scratch, training", "from scratch, held out"]
    assert [name for name, *_ in accuracy] == names
    assert [point[2:] for point in accuracy[1][2]] == [[10, 0.2], [20, 0.4], [30, 0.6]]


def test_bars_are_as_long_as_the_probabilities(workdir):
    html = write_report(workdir).read_text(encoding="utf-8")
    assert re.findall(r'class="bar"><i style="width:([\d.]+)%', html) == ["61.0", "15.0", "80.0", "90.0", "79.7"]


def test_verdicts_hold_predictions_against_what_was_expected(workdir):
    shown = page(workdir)
    assert len(shown.of("span", "wrong")) == 1 and len(shown.of("span", "right")) == 1


def test_one_file_without_a_network(workdir):
    shown = page(workdir)
    for tag, attributes in shown.elements:
        assert tag not in ("link", "img", "iframe") and not {"src", "href", "xlink:href"} & set(attributes)
    html = (workdir / "report.html").read_text(encoding="utf-8")
    assert "http" not in html and "url(" not in html and "@import" not in html


@pytest.mark.parametrize("missing", ["config.json", "summary.json", "examples.json", "pretrain", "finetune", "finetune_from_scratch"])
def test_what_is_missing_is_left_out(workdir, missing):
    path = workdir / missing
    if path.is_dir():
        (path / "metrics.jsonl").unlink()
    else:
        path.unlink()
    shown = page(workdir)
    assert shown.of("svg") and "This run has no results yet" not in shown.text


def test_an_empty_workdir_says_so(tmp_path):
    assert "This run has no results yet" in page(tmp_path).text


def test_texts_are_inert(workdir):
    summary = json.loads((workdir / "summary.json").read_text())
    dump(workdir, "summary", {"finetune": {**summary["finetune"], "labels": [EVIL, EVIL]}})
    encoder = {"layers": EVIL, "width": EVIL}
    dump(workdir, "config", {"seed": EVIL, "corpus": {"source": EVIL}, EVIL: EVIL, "encoder": encoder, "pretrain": {"a": 1}})
    dump(
        workdir,
        "examples",
        {
            "fill_mask": [{"text": EVIL + "[MASK]", "masks": [[{"token": EVIL, "probability": 1}]]}],
            "next_sentence": [{"a": EVIL, "b": EVIL, "probability": 1.0, "expected": EVIL}],
            "classify": [{"text": EVIL, "label": EVIL, "probability": 1.0, "expected": EVIL + "2"}],
        },
    )
    shown = page(workdir)
    assert len(shown.of("script")) == 1 and not shown.of("img")
    assert not any(name.startswith("on") for _, attributes in shown.elements for name in attributes)
    assert shown.text.count(EVIL) >= 10


@pytest.mark.parametrize("stored_by", ["this version", "earlier ones"])
def test_of_many_classes_the_largest_confusions(workdir, stored_by):
    labels = [f"class {i}" for i in range(300)]
    matrix = np.diag(np.full(300, 8))
    matrix[7, 9], matrix[9, 7], matrix[3, 4] = 8, 2, 1
    if stored_by == "earlier ones":
        finetune = {"accuracy": 0.9, "labels": labels, "confusion": matrix.tolist()}
    else:
        true, predicted = np.nonzero(matrix)
        repeats = matrix[true, predicted]
        finetune = score_classes(np.repeat(true, repeats), np.repeat(predicted, repeats), labels)
    dump(workdir, "summary", {"finetune": finetune})
    shown = page(workdir)
    assert "Largest confusions of 300 classes" in shown.text
    table = shown.text[shown.text.index("Largest confusions") :]
    assert "class 7class 9850.0%" in table, "8 times, half of the class"
    assert ("The 40 classes with the most examples" in table) == (stored_by == "this version")
    assert table.index("class 7class 9") < table.index("class 9class 7") < table.index("class 3class 4")
    assert len((workdir / "report.html").read_text()) < 100_000, "a matrix of 300 classes takes megabytes"


def test_numbers_that_are_not_there(workdir):
    pretrain = {"mlm_accuracy": None, "mlm_loss": None, "nsp_accuracy": None, "real_tokens_per_second": None, "steps": 3}
    dump(workdir, "summary", {"pretrain": pretrain, "finetune": {"accuracy": 0.5, "confusion": [[0, 0], [1, 0]]}})
    dump(workdir, "examples", {"classify": [{"text": "a"}], "fill_mask": [{}], "next_sentence": [{"a": "x", "probability": None}]})
    shown = page(workdir)
    assert "50.0%" in shown.text and "nan" not in shown.text.lower() and "None" not in shown.text


def test_a_damaged_file_is_named(workdir):
    (workdir / "summary.json").write_text('{"pretrain": {"st')
    with pytest.raises(InputError, match=r"summary\.json is damaged"):
        write_report(workdir)
