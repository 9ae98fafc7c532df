"""The page with models inside, in a real browser: it answers as the models do, and splits texts as their tokenizers do."""

import json
import random
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import _ENCODER, write_model

import bert_jax
from bert_jax.cli import main
from bert_jax.config import VocabularyConfig
from bert_jax.errors import InputError
from bert_jax.inference import Bert
from bert_jax.modalities.text.portable import portable
from bert_jax.modalities.text.tokenizer import Tokenizer
from bert_jax.model.directory import EmbeddingConfig, ModelDescription
from bert_jax.serving.failures import Failure
from bert_jax.serving.page import sharing
from bert_jax.serving.page.routes import routes
from bert_jax.serving.page.sharing import share

TEXTS = ["这家酒店的服务很好", "👍 good", "The CAT sat on the mat, good", "很", "cat " * 60]
PAIRS = ["再也不来了", "the mat", "良い cat " * 30, "good", "sat"]


@pytest.fixture(scope="module")
def models(tiny_pretrained: Path, tiny_classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bert]:
    folder = tmp_path_factory.mktemp("shared")
    prompted = EmbeddingConfig("cls+max+mean_sqrt_len_tokens+weightedmean+lasttoken", True, 24, {"q": "the cat: "}, "q", False, 100)
    paths = {
        "pretrain": tiny_pretrained,
        "moods": tiny_classifier,
        "labels": write_model(folder / "labels", ModelDescription("multilabel", _ENCODER, 32, labels=("a", "b", "c"), pooling="cls")),
        "rating": write_model(folder / "rating", ModelDescription("regression", _ENCODER, 32, embedding=prompted, spare_rows=3)),
    }
    return {name: bert_jax.load(path) for name, path in paths.items()}


@pytest.fixture(scope="module")
def page(browser: Any, models: dict[str, Bert], tmp_path_factory: pytest.TempPathFactory) -> Any:
    file = tmp_path_factory.mktemp("page") / "shared.html"
    file.write_bytes(share(models))
    page = browser.new_page(offline=True)
    page.goto(file.as_uri())
    return page


def ask(page: Any, route: str, **body: Any) -> Any:
    return page.evaluate("([route, body]) => bert.ask(route, JSON.parse(body))", [route, json.dumps(body)])


def near(found: Any, expected: Any) -> None:
    """Equal, and numbers within 1e-4."""
    if isinstance(expected, Mapping):
        assert found.keys() == expected.keys()
        found, expected = list(found.values()), list(expected.values())
    if isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            near(one, other)
    else:
        assert found == (pytest.approx(expected, abs=1e-4) if isinstance(expected, float) else expected)


@pytest.mark.filterwarnings("ignore::bert_jax.inference.TruncationWarning")
@pytest.mark.parametrize(
    ("name", "question", "paired", "options"),
    [
        ("pretrain", "fill_mask", False, {"top_k": 7}), ("pretrain", "score", False, {"tokens": True}),
        ("pretrain", "next_sentence", True, {}), ("moods", "classify", False, {}), ("moods", "classify", True, {}),
        ("labels", "classify", False, {}), ("labels", "classify", True, {}), ("rating", "regress", True, {}),
        ("pretrain", "attention", False, {"layer": 1}), ("labels", "attention", True, {"layer": -1}),
    ],
)  # fmt: skip
def test_its_answers_are_those_of_the_models(
    page: Any, models: dict[str, Bert], name: str, question: str, paired: bool, options: dict[str, Any]
) -> None:
    texts = [f"{text} [MASK] cat[MASK]" for text in TEXTS] if question == "fill_mask" else TEXTS
    pairs = {"pairs": PAIRS} if paired else {}
    asked = models[name].questions[question]
    expected = [asked.record(answer) for answer in models[name].ask(question, texts, PAIRS if paired else None, **options)]
    found = ask(page, question.replace("_", "-"), model=name, texts=texts, **pairs, **options)
    assert found["model"] == name
    near(found["answers"], json.loads(json.dumps(expected)))


@pytest.mark.filterwarnings("ignore::bert_jax.inference.TruncationWarning")
@pytest.mark.parametrize("name", ["pretrain", "rating"])
def test_its_vectors_are_those_of_the_models(page: Any, models: dict[str, Bert], name: str) -> None:
    found = ask(page, "v1/embeddings", model=name, input=TEXTS)["data"]
    near([one["embedding"] for one in found], models[name].embed(TEXTS).tolist())


def _texts() -> list[str]:
    """Real texts in both languages, and those at which tokenizers differ."""
    root, rng = Path(__file__).parents[1], random.Random(0)
    files = [root / name for name in ("README.md", "CHANGELOG.md", "docs/serving.md")]
    real = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    chosen = [
        "这家酒店的服务很好，房间也很干净。再也不来了！", "👍🏿 good 👩‍👩‍👧, 很好", "cafe\u0301 Ångström İstanbul ǅ ΌΣΟΣ ẞßŉ",
        "한국어 텍스트입니다 ㄱ", "x\ud800y\udfff", "a\0b\x7f\u200b\u00ad\ufeff\u2028c\x0b\x85\xa0\u3000d",
        "w" * 150 + " " + "w" * 100 + " w", "[MASK][CLS] [mask] [UNK]x[SEP] [a-b/c][a-b", "豈更\U0002f800𠀀", "１２３ＡＢ ﬁ ½ Ⅷ",
        "\u302ea\u0301\u0327\u0323 q\u0307\u0323", "\U000e0001\U000f0000\U000fffff\U0010ffff\U00050000x",
        "किताब ภาษาไทย עִבְרִית العَرَبِيَّة", "'’“”…—·~`^$+<=>| 0 10 1,000.5", "", "   ",
    ]  # fmt: skip
    ranges = [(0, 0x110000), (0, 0x3000), (0, 0x250), (0x4E00, 0xA000), (0xAC00, 0xD7A4)]
    chosen += ["".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(rng.randrange(1, 40))) for _ in range(200)]
    return chosen + real


@pytest.mark.parametrize("kind", ["uncased", "cased", "characters"])
def test_its_tokens_are_those_of_the_tokenizer(page: Any, kind: str) -> None:
    texts = _texts()
    settings: dict[str, Any] = {
        "uncased": {"casing": "uncased", "strip_accents": "true"}, "cased": {"casing": "cased", "strip_accents": "false"},
        "characters": {"kind": "characters", "casing": "uncased", "strip_accents": "false"},
    }[kind]  # fmt: skip
    config = VocabularyConfig(size=2000, min_frequency=1, **settings)
    tokenizer = Tokenizer.train([text.encode(errors="replace").decode() for text in texts], config, show_progress=False)
    tokenizer.backend.add_special_tokens(["[a-b/c]", "[a-b"])  # as imported models may have
    tokenizer = Tokenizer(tokenizer.backend, "with more tokens")
    found = page.evaluate(
        """async ([values, texts]) => {
            const tokenizer = bert.tokenizer(JSON.parse(values));
            return JSON.parse(texts).map((text) => tokenizer.encode(text).map(({ id, start, stop }) => [id, start, stop]));
        }""",
        [json.dumps(portable(tokenizer)), json.dumps(texts)],
    )
    for text, own, encoded in zip(texts, found, tokenizer.encode_batch(texts), strict=True):
        assert own == [[one, *place] for one, place in zip(encoded.ids.tolist(), encoded.offsets.tolist(), strict=True)], ascii(text)


def test_what_does_not_fit_is_refused(
    tiny_pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "page.html"
    monkeypatch.setattr(sharing, "MOST_BYTES", 10_000)
    assert main(["explore", str(tiny_pretrained), "--share", str(file)]) == 2
    assert "share a smaller model." in capsys.readouterr().err and not file.exists()
    served: Any = SimpleNamespace(by_name={"demo": SimpleNamespace(name="demo", model=bert_jax.load(tiny_pretrained))})
    (shared,) = (route for route in routes(served, locked=False).routes if route.path == "/shared.html")  # type: ignore[attr-defined]
    with pytest.raises(Failure, match="share a smaller model"):
        shared.endpoint()  # type: ignore[attr-defined]
    monkeypatch.undo()
    assert main(["explore", str(tiny_pretrained), "--share", str(file)]) == 0
    assert "without a network" in capsys.readouterr().out and file.stat().st_size > 100_000
    assert main(["explore", str(tiny_pretrained), "--share", str(file)]) == 2
    assert "already exists" in capsys.readouterr().err


def test_a_vocabulary_that_a_page_cannot_match_is_refused() -> None:
    from tokenizers import AddedToken

    tokenizer = Tokenizer.train(["the cat"], VocabularyConfig(size=100, min_frequency=1), show_progress=False)
    tokenizer.backend.add_tokens([AddedToken("cat", single_word=True)])
    with pytest.raises(InputError, match="'cat', which is matched in a way"):
        portable(tokenizer)


@pytest.mark.parametrize("kind", ["words", "bytes"])
def test_vocabularies_that_a_page_cannot_read_are_refused(kind: Any) -> None:
    tokenizer = Tokenizer.train(["a word"] * 3, VocabularyConfig(kind=kind, size=300, min_frequency=1), show_progress=False)
    with pytest.raises(InputError, match=f"cannot read a vocabulary of {kind}"):
        portable(tokenizer)
