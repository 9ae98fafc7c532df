"""Models from anybody: nothing in their files runs, nothing is waited for, and no size that they claim is believed."""

import json
import os
import pickle
import shutil
import struct
from pathlib import Path
from typing import Any

import foreign
import numpy as np
import pytest

from bert_jax.convert.imports import import_model, read_source
from bert_jax.convert.tensor_files import PICKLES
from bert_jax.errors import InputError
from bert_jax.modalities.text.tokenizer import SPECIAL_TOKENS, Tokenizer
from bert_jax.model import directory as model_directory
from bert_jax.storage import small_files

# Nothing here takes a second, and what waits for a pipe waits for ever.
pytestmark = pytest.mark.timeout(60)

TENSOR = "bert.embeddings.word_embeddings.weight"
BOMBS = {
    "deep list": "[" * 100_000 + "]" * 100_000,
    "deep object": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "huge number": '{"hidden_size": ' + "9" * 100_000 + "}",
    "list": "[1]",
    "text": '"x"',
    "half": '{"model_type": ',
    "nothing": "",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("hugging_face")
    foreign.write(directory)
    return directory


@pytest.fixture
def directory(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "model"))


@pytest.fixture
def sentinel(tmp_path: Path) -> Path:
    return tmp_path / "sentinel"


def payload(sentinel: Path) -> bytes:
    class Payload:
        def __reduce__(self) -> Any:
            return Path.touch, (sentinel,)

    return pickle.dumps(Payload())


@pytest.mark.parametrize("name", [pattern.replace("*", "weights") for pattern in (*PICKLES, "*.npy", "*.npz")])
def test_weights_that_are_programs_are_not_opened(directory: Path, sentinel: Path, name: str) -> None:
    (directory / "model.safetensors").unlink()
    (directory / name).write_bytes(payload(sentinel))
    with pytest.raises(InputError, match=name):
        read_source(directory)
    assert not sentinel.exists()


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "modules.json"]
)
def test_a_program_under_the_name_of_data_is_not_run(directory: Path, sentinel: Path, name: str) -> None:
    if name == "vocab.txt":
        (directory / "tokenizer.json").unlink()
    (directory / name).write_bytes(payload(sentinel))
    with pytest.raises(InputError, match=name):
        read_source(directory)
    assert not sentinel.exists()


@pytest.mark.parametrize("kind", ["pipe", "device", "loop", "folder"])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "vocab.txt"])
def test_what_is_no_file_is_refused_at_once(directory: Path, name: str, kind: str) -> None:
    if name == "vocab.txt":
        (directory / "tokenizer.json").unlink()
    (directory / name).unlink()
    if kind == "pipe":
        os.mkfifo(directory / name)
    elif kind == "folder":
        (directory / name).mkdir()
    else:
        (directory / name).symlink_to("/dev/zero" if kind == "device" else name)
    with pytest.raises(InputError, match=name):
        read_source(directory)


def test_links_to_files_are_read_as_in_the_cache_of_the_hub(directory: Path, tmp_path: Path) -> None:
    """There every file of a snapshot is a link."""
    blobs = Path(shutil.move(directory, tmp_path / "blobs"))
    directory.mkdir()
    for file in blobs.iterdir():
        (directory / file.name).symlink_to(file)
    assert read_source(directory).unused == ()


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("name", [
    "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "modules.json",
    "model.safetensors.index.json",
])  # fmt: skip
def test_json_that_is_none_is_refused(directory: Path, name: str, bomb: str) -> None:
    if name.startswith("model."):
        (directory / "model.safetensors").unlink()
    (directory / name).write_text(BOMBS[bomb])
    with pytest.raises(InputError, match=name.replace(".", r"\.")) as error:
        read_source(directory)
    assert len(str(error.value)) < 1000


def test_files_larger_than_any_are_not_read(directory: Path) -> None:
    with (directory / "config.json").open("wb") as file:
        file.truncate(1 << 40)  # takes no space
    with pytest.raises(InputError, match=r"config\.json has 1,099,511,627,776 bytes"):
        read_source(directory)


@pytest.mark.parametrize("value", ["yes", 1, [], {}])
@pytest.mark.parametrize("name", ["do_lower_case", "strip_accents", "tokenize_chinese_chars"])
def test_settings_of_a_tokenizer_are_checked(directory: Path, name: str, value: Any) -> None:
    (directory / "tokenizer_config.json").write_text(json.dumps({name: value}))
    with pytest.raises(InputError, match=rf"tokenizer_config\.json has {name}="):
        read_source(directory)


@pytest.mark.parametrize("value", [1, "Bert" * 9999, {"BertModel": 1}])
def test_a_list_of_classes_that_is_none_is_refused(directory: Path, value: Any) -> None:
    values = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(values | {"architectures": value}))
    with pytest.raises(InputError, match=r"config\.json has architectures that are not a list") as error:
        read_source(directory)
    assert len(str(error.value)) < 1000
    (directory / "config.json").write_text(json.dumps(values | {"architectures": [["BertModel"], 1]}))
    assert read_source(directory).params


def test_ids_are_not_believed(directory: Path) -> None:
    content = json.loads((directory / "tokenizer.json").read_text())
    content["model"]["vocab"]["很"] = 2**32 - 2
    (directory / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"tokenizer\.json has the id 4,294,967,294"):
        Tokenizer.load(directory)


def tensors(header: Any, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


SAFETENSORS = {
    "a header of 2^60 bytes": struct.pack("<Q", 2**60) + b"{}",
    "a header of 2^64 - 1 bytes": struct.pack("<Q", 2**64 - 1) + b"{}",
    "a product that overflows": tensors({TENSOR: entry([2**33, 2**33], 0, 4)}, b"\0" * 4),
    "a product that overflows to 0": tensors({TENSOR: entry([2**62, 4], 0, 0)}),
    "a negative shape": tensors({TENSOR: entry([-1], 0, 4)}, b"\0" * 4),
    "offsets that overlap": tensors({TENSOR: entry([2], 0, 8), "b": entry([2], 4, 12)}, b"\0" * 12),
    "offsets backwards": tensors({TENSOR: entry([2], 8, 0)}, b"\0" * 8),
    "offsets beyond the end": tensors({TENSOR: entry([2], 2**60, 2**60 + 8)}, b"\0" * 8),
    "a gap": tensors({TENSOR: entry([2], 4, 12)}, b"\0" * 12),
    "bytes behind the tensors": tensors({TENSOR: entry([2], 0, 8)}, b"\0" * 9),
    "a deep header": tensors(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "a name twice": tensors(
        f'{{"{TENSOR}": {json.dumps(entry([1], 0, 4))}, "{TENSOR}": {json.dumps(entry([1], 4, 8))}}}'.encode(), b"\0" * 8
    ),
    "nothing": tensors({}),
    "an empty tensor of a huge shape": tensors({TENSOR: entry([0, 2**60], 0, 0)}),
    "a type of four bits": tensors({TENSOR: entry([2], 0, 1, "F4")}, b"\0"),
}


@pytest.mark.parametrize("what", SAFETENSORS)
def test_a_header_of_tensors_is_not_believed(directory: Path, what: str) -> None:
    (directory / "model.safetensors").write_bytes(SAFETENSORS[what])
    with pytest.raises(InputError, match=r"not a complete safetensors file|lack"):
        read_source(directory)


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "/etc/model.safetensors", "..", "a/../b.safetensors", "weights.bin", "\0.safetensors"]
)
def test_an_index_names_files_beside_it_alone(directory: Path, name: str) -> None:
    (directory / "model.safetensors").unlink()
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {TENSOR: name}}))
    with pytest.raises(InputError, match=r"rejected|missing"):
        read_source(directory)


@pytest.fixture
def ours(tiny_pretrained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_pretrained, tmp_path / "ours"))


@pytest.mark.parametrize("kind", ["pipe", "link", "link to a folder", "device"])
def test_a_checkpoint_is_files_and_folders(ours: Path, kind: str) -> None:
    file = sorted(path for path in (ours / "checkpoints").rglob("*") if path.is_file())[0]
    if kind == "link to a folder":
        file = file.parent / "elsewhere"
    else:
        file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to({"link": "/etc/passwd", "link to a folder": "/etc", "device": "/dev/zero"}[kind])
    with pytest.raises(InputError, match=f"{file} is a link, a pipe or a device.*not allowed"):
        model_directory.read(ours)


def test_the_folder_of_checkpoints_may_be_elsewhere(ours: Path, tmp_path: Path) -> None:
    """On a larger disk, say."""
    (ours / "checkpoints").rename(tmp_path / "large")
    (ours / "checkpoints").symlink_to(tmp_path / "large")
    os.link(ours / "model.json", tmp_path / "a hard link is a file")
    model_directory.read(ours)


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_description_that_is_none_is_refused(ours: Path, bomb: str) -> None:
    (ours / "model.json").write_text(BOMBS[bomb])
    with pytest.raises(InputError):
        model_directory.read(ours)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 10**9}, "layers=1000000000.*at most 1,024"),
        ({"width": 10**12, "heads": 1}, "width=1000000000000.*at most 131,072"),
        ({"max_positions": 2**63}, "max_positions=.*at most 1,048,576"),
        ({"segment_types": 10**12}, "segment_types"),
        ({"layers": -1}, "greater than zero"),
        ({"heads": 2.0}, "an integer"),
    ],
)
def test_a_description_of_a_model_that_fits_nowhere_is_refused(ours: Path, change: dict[str, Any], message: str) -> None:
    values = json.loads((ours / "model.json").read_text())
    values["encoder"] |= change
    (ours / "model.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=message):
        model_directory.read(ours)


def test_a_description_without_what_it_must_say_is_refused(ours: Path) -> None:
    (ours / "model.json").write_text("{}")
    with pytest.raises(InputError, match=r"model\.json is incomplete"):
        model_directory.read(ours)


def test_an_import_that_is_refused_leaves_nothing(directory: Path, tmp_path: Path) -> None:
    (directory / "model.safetensors").write_bytes(SAFETENSORS["offsets that overlap"])
    with pytest.raises(InputError):
        import_model(directory, tmp_path / "imported")
    assert not (tmp_path / "imported").exists()


def test_a_vocabulary_of_odd_lines_is_read(tmp_path: Path) -> None:
    """Published ones hold stranger tokens than NUL."""
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, "a", "\0", "\u2028", "##b", "a"]), encoding="utf-8")
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.vocab_size == 10
    np.testing.assert_array_equal(tokenizer.encode("ab").ids, [9, 8])


def test_small_files_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"a\xff")
    for name, problem in (("x", r"is not UTF-8 \(byte 1\)"), ("y", "is missing"), ("", "is not a regular file")):
        with pytest.raises(InputError, match=rf"{problem}\. Mend it\."):
            small_files.read_text(tmp_path / name, "Mend it.")
