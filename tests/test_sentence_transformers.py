"""Sentence-embedding models in every form that `sentence-transformers` writes: the vectors are its own, there and back."""

import json
import shutil
from pathlib import Path
from typing import Any

import foreign
import numpy as np
import pytest

import bert_jax
from bert_jax.cli import main
from bert_jax.convert.exports import export_model
from bert_jax.convert.imports import import_model, read_source
from bert_jax.errors import InputError
from bert_jax.inference import Bert
from bert_jax.model.directory import EmbeddingConfig

TEXTS = ["这家酒店的服务很好", "cat", "The cat sat on the mat, good", "Café"]
OLD = ["cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"]
MODES = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("encoder")
    foreign.write(directory, "BertModel", rename=lambda name: name.removeprefix("bert."))
    return directory


@pytest.fixture
def directory(encoder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(encoder, tmp_path / "model"))


def write(directory: Path, pooling: dict[str, Any], *more: str, path: str = "1_Pooling", first: str = "", **files: Any) -> None:
    """The files of `sentence-transformers`; `files` are others by their names without .json."""
    kinds = {first: "base.modules.transformer.Transformer", path: "sentence_transformer.modules.pooling.Pooling"}
    kinds |= {f"{2 + i}_{kind}": f"models.{kind}" for i, kind in enumerate(more)}
    modules = [{"name": str(i), "path": at, "type": f"sentence_transformers.{kind}"} for i, (at, kind) in enumerate(kinds.items())]
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / path).mkdir(exist_ok=True)
    (directory / path / "config.json").write_text(json.dumps({"embedding_dimension": 32} | pooling))
    for name, content in files.items():
        (directory / f"{name}.json").write_text(json.dumps(content))


def settings(directory: Path, **values: Any) -> None:
    file = directory / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def theirs(directory: Path) -> Any:
    library = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    return library.SentenceTransformer(str(directory), device="cpu", local_files_only=True)


def vectors(bert: Bert, texts: Any = TEXTS, **options: Any) -> np.ndarray:
    import warnings

    with warnings.catch_warnings(action="ignore", category=bert_jax.inference.TruncationWarning):
        return bert.embed(texts, **options)


def assert_their_vectors(directory: Path, texts: list[str] = TEXTS, **options: Any) -> np.ndarray:
    """Ours are those of `sentence-transformers`, and so are those of what is imported and exported again."""
    wanted = theirs(directory).encode(texts, **options)
    np.testing.assert_allclose(vectors(bert_jax.load(directory), texts, **options), wanted, atol=2e-5)
    ours, back = directory.with_name("ours"), directory.with_name("back")
    for old in (ours, back):
        shutil.rmtree(old, ignore_errors=True)
    import_model(directory, ours)
    np.testing.assert_allclose(vectors(bert_jax.load(ours), texts, **options), wanted, atol=2e-5)
    export_model(ours, back)
    np.testing.assert_allclose(theirs(back).encode(texts, **options), wanted, atol=2e-5)
    assert read_source(back).description.embedding == read_source(directory).description.embedding
    return np.asarray(wanted)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_in_both_forms(directory: Path, mode: str) -> None:
    write(directory, {"pooling_mode": mode, "include_prompt": True})
    new = assert_their_vectors(directory)
    write(directory, {f"pooling_mode_{old}": own == mode for old, own in zip(OLD, MODES, strict=True)}, "Normalize")
    old = vectors(bert_jax.load(directory))
    np.testing.assert_allclose(old, new / np.linalg.norm(new, axis=1, keepdims=True), atol=2e-5)
    np.testing.assert_allclose(theirs(directory).encode(TEXTS), old, atol=2e-5)


@pytest.mark.parametrize(
    ("pooling", "wanted"),
    [
        ({"pooling_mode": ["mean", "cls"]}, "mean+cls"),
        ({"pooling_mode": ["lasttoken"]}, "lasttoken"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True, "pooling_mode_max_tokens": False}, "cls+mean"),
        ({"pooling_mode_mean_tokens": False}, "mean"),
        ({"pooling_mode": "max", "pooling_mode_cls_token": True}, "max"),
        ({}, "mean"),
    ],
)
def test_joined_modes_and_those_that_are_not_said(directory: Path, pooling: dict[str, Any], wanted: str) -> None:
    write(directory, pooling, path="pool")
    assert read_source(directory).description.embedding == EmbeddingConfig(wanted)
    assert assert_their_vectors(directory).shape == (4, 32 * len(wanted.split("+")))


def test_joined_modes_by_hand(encoder: Path) -> None:
    bert = bert_jax.load(encoder)
    joined = bert.embed(TEXTS, "max+mean+cls")
    np.testing.assert_array_equal(joined, np.concatenate([bert.embed(TEXTS, mode) for mode in ("max", "mean", "cls")], axis=1))
    assert bert.vector_size("max+mean+cls") == 96 and bert.vector_size() == 32
    length = len(bert.tokenizer.encode("cat")) + 2
    np.testing.assert_allclose(bert.embed("cat", "mean_sqrt_len_tokens"), bert.embed("cat") * np.sqrt(length), rtol=1e-5)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"pooling": {"pooling_mode": "attention"}}, "unsupported pooling attention; supported are cls, max"),
    ({"pooling": {"pooling_mode_attention": True}}, "unsupported pooling pooling_mode_attention"),
    ({"pooling": {"pooling_mode": [["mean"]]}}, "unsupported pooling"),
    ({"more": ["Dense"]}, "Transformer, Pooling, Dense"),
    ({"config_sentence_transformers": {"prompts": [1]}}, "prompts that are not a mapping from names to strings"),
    ({"config_sentence_transformers": {"default_prompt_name": "passage"}}, "default_prompt_name='passage', but its prompts are none"),
    ({"config_sentence_transformers": {"truncate_dim": 0}}, "truncate_dim=0"),
    ({"sentence_bert_config": {"max_seq_length": 1}}, "max_seq_length=1"),
    ({"sentence_bert_config": {"processing_kwargs": {"text": {"max_length": 8}}}}, "processing_kwargs"),
    ({"sentence_bert_config": {"transformer_task": "fill-mask"}}, "transformer_task='fill-mask'"),
    ({"sentence_bert_config": {"tokenizer_args": {"strip_accents": False}}}, "tokenizer's strip_accents"),
    ({"path": "../1_Pooling"}, "rejected"),
    ({"first": "0_Transformer"}, "keeps its encoder in .*0_Transformer, which does not exist"),
]


@pytest.mark.parametrize(("files", "message"), REFUSED)
def test_what_is_not_supported_is_refused_by_name(directory: Path, files: dict[str, Any], message: str) -> None:
    files = dict(files)
    write(directory, files.pop("pooling", {}), *files.pop("more", ()), **files)
    with pytest.raises(InputError, match=message):
        read_source(directory)


def test_modules_of_an_author_are_not_run(directory: Path) -> None:
    write(directory, {})
    modules = json.loads((directory / "modules.json").read_text())
    modules[1]["type"] = "modeling.Pooling"
    (directory / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InputError, match=r"modeling\.Pooling, which is custom code and is not executed"):
        read_source(directory)


def test_an_encoder_in_its_own_folder(directory: Path, encoder: Path) -> None:
    shutil.copytree(encoder, directory / "0_Transformer")
    for file in directory.iterdir():
        if file.is_file():
            file.unlink()
    write(directory, {"pooling_mode_max_tokens": True}, first="0_Transformer")
    (directory / "0_Transformer" / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 5, "do_lower_case": False}))
    assert_their_vectors(directory)


@pytest.mark.parametrize(("do_lower_case", "strip_accents"), [(False, None), (False, True), (True, None), (True, False)])
def test_text_in_lower_case(directory: Path, do_lower_case: bool, strip_accents: bool | None) -> None:
    write(directory, {}, sentence_bert_config={"do_lower_case": True})
    settings(directory, do_lower_case=do_lower_case, strip_accents=strip_accents)
    found = assert_their_vectors(directory, ["The CAT sat", "the cat sat", "À Cafe\u0301 İ ẞ", "[MASK] [mask]"])
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_lower_case_of_a_directory_without_modules_is_not_read(directory: Path) -> None:
    (directory / "sentence_bert_config.json").write_text(json.dumps({"do_lower_case": True}))
    settings(directory, do_lower_case=False)
    assert not read_source(directory).tokenizer.lowercase


PROMPTS = {"prompts": {"query": "the mat: ", "passage": "服务 ", "empty": "", "none": None}, "default_prompt_name": "query"}


@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize("mode", ["mean", "cls", "weightedmean", "max", "lasttoken"])
def test_prompts_stand_before_texts(directory: Path, mode: str, include_prompt: bool) -> None:
    write(directory, {"pooling_mode": mode, "include_prompt": include_prompt}, config_sentence_transformers=PROMPTS)
    assert_their_vectors(directory)
    reference, bert = theirs(directory), bert_jax.load(directory)
    given = [{"prompt_name": "passage"}, {"prompt_name": "empty"}, *({"prompt": text} for text in ("", "cat ", " ", "很" * 60))]
    for options in given:
        wanted = reference.encode(TEXTS, **options)
        np.testing.assert_allclose(vectors(bert, **options), wanted, atol=2e-5, err_msg=str(options))
        np.testing.assert_allclose(vectors(bert, TEXTS[0], **options), wanted[0], atol=2e-5, err_msg=str(options))
    assert bert.prompts == {"query": "the mat: ", "passage": "服务 ", "empty": "", "none": ""}


def test_prompts_that_are_not_there(encoder: Path) -> None:
    bert = bert_jax.load(encoder)
    with pytest.raises(InputError, match="prompt_name='query' is not one of this model's prompts, which are: none"):
        bert.embed("cat", prompt_name="query")
    with pytest.raises(InputError, match="both given"):
        bert.embed("cat", prompt="a", prompt_name="query")
    np.testing.assert_array_equal(bert.embed("mat", prompt="the "), bert.embed("the mat"))
    with pytest.raises(InputError, match=r"Text 1 .*NoneType"):
        bert.embed(["cat", None], prompt="the ")  # type: ignore[list-item]


def test_prompts_and_sizes_on_the_command_line(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(directory, {"pooling_mode": ["mean", "cls"]}, config_sentence_transformers=PROMPTS | {"truncate_dim": 40})
    bert = bert_jax.load(directory)
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    for flags, options in ((["--prompt-name", "passage"], {"prompt_name": "passage"}), (["--prompt", ""], {"prompt": ""})):
        assert main(["embed", str(directory), str(tmp_path / "texts.txt"), "--output", str(tmp_path / "v.npy"), *flags]) == 0
        found = np.load(tmp_path / "v.npy")
        assert found.shape == (4, 40)
        np.testing.assert_allclose(found, bert.embed(TEXTS, **options), atol=1e-5)
    assert main(["embed", str(directory), "cat", "--prompt-name", "no"]) == 2
    assert "'no' is not one of this model's prompts, which are: query, passage" in capsys.readouterr().err


@pytest.mark.parametrize("normalize", [(), ("Normalize",)])
def test_kept_dimensions(directory: Path, normalize: tuple[str, ...]) -> None:
    write(directory, {"pooling_mode": "mean"}, *normalize, config_sentence_transformers={"truncate_dim": 7})
    assert assert_their_vectors(directory).shape == (4, 7)
    scaled = theirs(directory).encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(bert_jax.load(directory).embed(TEXTS, normalize=True), scaled, atol=2e-5)


LONG = ["这家酒店的服务很好。房间也很干净", "cat", "很" * 200]


@pytest.mark.parametrize(
    ("limit", "files", "cut"),
    [
        ({"model_max_length": 8}, {}, 8),
        ({"max_len": 8}, {}, 8),
        ({"model_max_length": 8}, {"sentence_bert_config": {"max_seq_length": 12, "do_lower_case": False}}, 12),
        ({"model_max_length": 8}, {"sentence_bert_config": {"max_seq_length": None}}, 8),
        ({"model_max_length": int(1e30)}, {}, 48),
        ({"model_max_length": 512}, {}, 48),
        ({"model_max_length": 20}, {"sentence_bert_config": {"processor_kwargs": {"model_max_length": 9}, "max_seq_length": 5}}, 9),
    ],
)
def test_texts_are_cut_where_they_cut_them(directory: Path, limit: dict[str, Any], files: dict[str, Any], cut: int) -> None:
    write(directory, {}, **files)
    settings(directory, **limit)
    assert bert_jax.load(directory).embedding_length == cut
    assert_their_vectors(directory, LONG)
    (directory / "modules.json").unlink()
    assert_their_vectors_without_modules(directory)


def assert_their_vectors_without_modules(directory: Path) -> None:
    np.testing.assert_allclose(vectors(bert_jax.load(directory), LONG), theirs(directory).encode(LONG), atol=2e-5)


@pytest.mark.parametrize("do_lower_case", [False, True])
def test_what_the_library_saves_itself(directory: Path, do_lower_case: bool) -> None:
    """It saves a lower-casing in front of the normalizer into tokenizer.json, which a BertTokenizer does not read."""
    files = {"sentence_bert_config": {"do_lower_case": do_lower_case}, "config_sentence_transformers": PROMPTS}
    write(directory, {"pooling_mode": "weightedmean"}, **files)
    settings(directory, do_lower_case=False)
    saved = directory.with_name("saved")
    theirs(directory).save(str(saved))
    assert_their_vectors(saved, ["The CAT sat", "Café"])
