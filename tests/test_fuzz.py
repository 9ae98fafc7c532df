"""Readers of what anybody may write, under made-up input: every answer is a value or an InputError, and values keep their promises.

A longer search: `FUZZ_EXAMPLES=20000 pytest tests/test_fuzz.py`, with other examples at every run.
"""

import json
import os
import shutil
import struct
from pathlib import Path

import foreign
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bert_jax.config import FinetuneConfig, PretrainConfig, RunConfig, VocabularyConfig, to_dict
from bert_jax.config.overrides import apply_overrides, from_dict
from bert_jax.convert.imports import read_source
from bert_jax.data.tables import BadRow, Row, count_rows, scan_rows
from bert_jax.errors import InputError
from bert_jax.modalities.text.files import read_documents
from bert_jax.modalities.text.tokenizer import SPECIAL_TOKENS, Tokenizer

LONG = "FUZZ_EXAMPLES" in os.environ
fuzz = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "100")),
    derandomize=not LONG,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
pytestmark = pytest.mark.timeout(0 if LONG else 120)

BOTH = RunConfig(pretrain=PretrainConfig(), finetune=FinetuneConfig())
ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=10,
)


def paths(values: dict, at: str = "") -> list[str]:
    below = [(name, value if isinstance(value, dict) else {}) for name, value in values.items()]
    return [path for name, value in below for path in (at + name, *paths(value, f"{at}{name}."))]


KEYS = st.sampled_from(paths(to_dict(BOTH)))
ODD = st.sampled_from(["none", "true", "tiny", "", "1e400", "-0", "٣", "1_0", "0x1"])
VALUES = ANY_TEXT | st.integers().map(str) | st.floats().map(str) | ODD


@fuzz
@given(st.lists(st.tuples(KEYS | ANY_TEXT, st.sampled_from(["=", "", "=="]), VALUES).map("".join), max_size=4))
def test_overrides(overrides: list[str]) -> None:
    try:
        config = apply_overrides(BOTH, overrides)
    except InputError as error:
        assert str(error)
        return
    assert from_dict(RunConfig, json.loads(json.dumps(to_dict(config)))) == config


@st.composite
def changed(draw: st.DrawFn) -> object:
    """A configuration as JSON with some values replaced."""
    values = to_dict(BOTH)
    for _ in range(draw(st.integers(0, 3))):
        *groups, last = draw(KEYS | ANY_TEXT).split(".")
        node = values
        for group in groups:
            node = node.get(group) if isinstance(node.get(group), dict) else node
        node[last] = draw(JSON)
    return values


@fuzz
@given(changed() | JSON)
def test_configurations_as_json(values: object) -> None:
    try:
        config = from_dict(RunConfig, values)  # type: ignore[arg-type]
    except InputError:
        return
    assert from_dict(RunConfig, json.loads(json.dumps(to_dict(config)))) == config


TOKENIZERS = [
    Tokenizer.train(["天地玄黄 abc abcd 宇宙。" * 3, "Café naïve 12,5"], VocabularyConfig(kind=kind, size=80, min_frequency=1), False)
    for kind in ("wordpiece", "characters")
]


@fuzz
@given(st.sampled_from(TOKENIZERS), st.lists(ANY_TEXT | st.text("天地abcdé \n\t\0\u200b#[MASK]ＡB1,.\u0301", max_size=40), max_size=4))
def test_texts_become_tokens(tokenizer: Tokenizer, texts: list[str]) -> None:
    encodings = tokenizer.encode_batch(texts)
    flat, characters = tokenizer.encode_characters(texts)
    assert len(encodings) == len(texts) == len(flat.lengths)
    np.testing.assert_array_equal(flat.ids, np.concatenate([[], *(encoding.ids for encoding in encodings)]))
    np.testing.assert_array_equal(flat.word_starts, np.concatenate([[], *(encoding.word_starts for encoding in encodings)]))
    assert len(characters) == len(flat.ids) and (characters < sum(map(len, texts))).all()
    for text, encoding in zip(texts, encodings, strict=True):
        assert ((encoding.ids >= 0) & (encoding.ids < tokenizer.vocab_size)).all()
        begins, ends = encoding.offsets.T
        assert (begins >= 0).all() and (begins <= ends).all() and (ends <= len(text)).all()
        assert not len(encoding) or encoding.word_starts[0]
        tokenizer.decode(encoding.ids.tolist())


LINES = st.sampled_from([*SPECIAL_TOKENS, "a", "##b", "", " ", "##", "[unused1]", "\r"]) | ANY_TEXT


@fuzz
@given(st.lists(LINES, max_size=12), st.booleans(), st.dictionaries(st.sampled_from(["do_lower_case", "strip_accents"]), JSON) | JSON)
def test_vocabularies(tmp_path_factory: pytest.TempPathFactory, lines: list[str], special: bool, tokenizer_settings: object) -> None:
    folder = tmp_path_factory.getbasetemp()
    tokens = [*SPECIAL_TOKENS, *lines] if special else lines
    (folder / "vocab.txt").write_bytes("\n".join(tokens).encode(errors="surrogatepass"))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_settings))
    try:
        tokenizer = Tokenizer.load(folder / "vocab.txt")
    except InputError:
        return
    tokenizer.encode("a ab 天[MASK]")


FIELDS = st.binary(max_size=8) | st.sampled_from([b"text", b"label", b'"', b"\t", b",", b"\n", b"\r", b'""', b"{", b'"text":', b"0"])
TABLE = st.sampled_from([b"text\tlabel\n", b"text,label\n", b'{"text": "a", "label": 1}\n', b'"text","label"\r\n', b"\xef\xbb\xbf", b""])


@fuzz
@given(st.sampled_from([".tsv", ".csv", ".jsonl", ".tsv.gz", ".csv.xz"]), TABLE, st.lists(FIELDS, max_size=30))
def test_tables(tmp_path_factory: pytest.TempPathFactory, ending: str, begin: bytes, rest: list[bytes]) -> None:
    path = tmp_path_factory.getbasetemp() / f"table{ending}"
    path.write_bytes(begin + b"".join(rest))
    try:
        rows = list(scan_rows(path, {"text": "text", "label": "label"}))
    except InputError:
        return
    assert len(rows) == count_rows(path)
    lines = [row.line for row in rows]
    assert lines == sorted(set(lines))
    for row in rows:
        assert isinstance(row, Row | BadRow) and (isinstance(row, Row) or "\n" not in row.problem)
        for value in row.values if isinstance(row, Row) else ():
            value.encode()


@fuzz
@given(st.sampled_from([".txt", ".txt.gz", ".txt.xz"]), st.sampled_from(["strict", "replace"]), st.binary(max_size=60))
def test_documents(tmp_path_factory: pytest.TempPathFactory, ending: str, errors: str, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / f"text{ending}"
    path.write_bytes(content)
    try:
        documents = list(read_documents([path], errors))  # type: ignore[arg-type]
    except InputError:
        return
    assert all(document and all(paragraph.strip() == paragraph != "" for paragraph in document) for document in documents)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("hugging_face")
    foreign.write(directory, "BertModel")
    for name in ("model.safetensors", "config.json"):
        shutil.copy(directory / name, directory / f"{name}.whole")
    return directory


@st.composite
def damages(draw: st.DrawFn) -> tuple[int, bytes, int | None]:
    """Where bytes are replaced, most often in the header, by what, and where the file is cut."""
    return draw(st.integers(0, 3000)), draw(st.binary(min_size=1, max_size=9)), draw(st.none() | st.integers(0, 4000))


@fuzz
@given(damages(), st.booleans())
def test_damaged_safetensors(model: Path, damage: tuple[int, bytes, int | None], header_alone: bool) -> None:
    whole = (model / "model.safetensors.whole").read_bytes()
    at, new, cut = damage
    size = struct.unpack("<Q", whole[:8])[0]
    content = bytearray(whole)
    place = 8 + at % size if header_alone else at
    content[place : place + len(new)] = new
    (model / "model.safetensors").write_bytes(bytes(content[:cut]))
    try:
        imported = read_source(model)
    except InputError:
        return
    assert imported.params["embeddings"]["tokens"].shape[1] == foreign.ENCODER.width


FIELDS_OF_MODELS = ["hidden_size", "num_hidden_layers", "vocab_size", "id2label", "problem_type", "architectures", "model_type"]


@fuzz
@given(st.dictionaries(st.sampled_from([*FIELDS_OF_MODELS, "hidden_act", "layer_norm_eps", "pruned_heads"]), JSON, max_size=3))
def test_configurations_of_models(model: Path, change: dict[str, object]) -> None:
    shutil.copy(model / "model.safetensors.whole", model / "model.safetensors")
    values = json.loads((model / "config.json.whole").read_text()) | change
    (model / "config.json").write_text(json.dumps(values))
    try:
        read_source(model)
    except InputError as error:
        assert str(model) in str(error)  # whoever reads it knows which file to mend
    finally:
        shutil.copy(model / "config.json.whole", model / "config.json")
