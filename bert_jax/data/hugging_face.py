"""Data sets of the Hugging Face Hub, folders that `datasets` saved, and Parquet files. None of them can run code."""

import functools
import glob
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from bert_jax.errors import InputError
from bert_jax.storage.files import file_versions, on_disk
from bert_jax.storage.small_files import read_json

_PART = 10_000
"""Examples in a part."""
_BATCH = 64
"""Examples in memory at once."""
_READERS = ("arrow", "cache", "csv", "json", "parquet", "text")
"""The readers of `datasets` that are used for files of the Hub. Others unpack archives, follow paths or load further libraries."""

_STATE, _INFO, _DICT = "state.json", "dataset_info.json", "dataset_dict.json"
_SAVE_AGAIN = "Save it again with save_to_disk."
_HUB_NAME = re.compile(
    r"(?P<name>[\w.-]+/[\w.-]+)(?:/(?P<config>[^@\[#]+))?(?:@(?P<revision>[^\[#]+))?(?:\[(?P<split>.+)\])?(?:#(?P<column>.+))?"
)
_PATH = re.compile(r"(?P<path>(?:/|\.\.?/|~/).*?)(?:\[(?P<split>[^/]+)\])?(?:#(?P<column>[^/]+))?", re.DOTALL)


def is_saved(source: str) -> bool:
    """Return whether a path is that of a folder written by `save_to_disk`, completely or not, or of Parquet files."""
    if source.endswith(".parquet"):
        return True
    try:
        folder = Path(source).expanduser()
        has = {name: (folder / name).is_file() for name in (_DICT, _STATE, _INFO)}
        return bool(source) and (has[_DICT] or (has[_STATE] and has[_INFO]) or any(folder.glob("data-*-of-*.arrow")))
    except (OSError, ValueError, RuntimeError):  # not a path
        return False


class _Place(NamedTuple):
    """Where examples are: on disk, or on the Hub under a name."""

    path: Path | None
    name: str = ""
    config: str = ""
    revision: str = ""
    split: str = ""
    column: str = ""


class _Opened(NamedTuple):
    """The splits of a data set (`datasets.Dataset`), and what identifies its version: JSON values, or the contents of files.

    A single table, which has no splits, is called `train`.
    """

    splits: Mapping[str, Any]
    version: Mapping[str, str]
    files: Sequence[Path]
    single: bool


@dataclass(frozen=True)
class HuggingFace:
    """A data set of the Hub or on disk; implements `bert_jax.data.data_sets.DataSet`. Its examples stay on disk, as memory-mapped Arrow.

    Attributes:
        source: `hf:OWNER/NAME`, which may continue with `/CONFIG`, `@REVISION`, `[SPLIT]` and `#COLUMN`; or a path, which may begin with
            `hf:` and then continue with `[SPLIT]` and `#COLUMN`. Splits are written as for `datasets`: `train[:1000]+validation`.
        default_split: the split to read if `source` does not name one.
        first: index of the first of the selected examples.
        last: index after the last one; None for all.
    """

    source: str
    default_split: str = "train"
    first: int = 0
    last: int | None = None

    def identity(self) -> dict[str, Any]:
        opened = self._open()
        found = {"hugging_face": opened.version or file_versions(opened.files), "examples": self._slices(opened)}
        return found | ({"column": self._place.column} if self._place.column else {})

    def columns(self) -> Sequence[str]:
        return [*self._features()]

    def text_columns(self) -> Sequence[str]:
        features = self._features()
        chosen = [self._place.column] if self._place.column else [name for name in ("title", "text") if name in features or name == "text"]
        for column in chosen:
            if _kind(self._feature(column)) not in ("string", "large_string"):
                raise InputError(f"The column {column!r} of {self.source} holds {_kind(features[column])}, not text. {self._name_one()}")
        return chosen

    def examples(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        return (values for _, values in self._examples("", columns))

    def media(self, feature: str, columns: Sequence[str]) -> Iterator[tuple[Any, dict[str, Any]]]:
        of_kind = [name for name, one in self._features().items() if _kind(one) == feature]
        chosen = self._place.column or (of_kind[0] if len(of_kind) == 1 else "")
        if chosen not in of_kind:
            what = f"The column {chosen!r} of {self.source} has no {feature} but {_kind(self._feature(chosen))}." if chosen else (
                f"{self.source} has {len(of_kind) or 'no'} columns of type {feature}."
            )  # fmt: skip
            raise InputError(f"{what} {self._name_one()}")
        return self._examples(chosen, columns)

    def parts(self) -> "Sequence[HuggingFace]":
        count = sum(stop - start for _, start, stop in self._slices(self._open()))
        return [replace(self, first=first, last=min(first + _PART, count)) for first in range(0, count, _PART)]

    def _examples(self, medium: str, columns: Sequence[str]) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """Yield the bytes in the column `medium`, if there is one, and the values of other columns."""
        features = {column: self._feature(column) for column in columns}
        for number, row in enumerate(self._rows([*({medium} - {""}), *columns]), self.first):
            content = (row[medium] or {}).get("bytes") if medium else b""
            if content is None:
                raise InputError(f"{self.source} line {number} has no bytes in the column {medium!r}: remove the row, or add its file.")
            try:
                yield content, {column: _value(row[column], feature) for column, feature in features.items()}
            except _Unreadable as error:
                raise InputError(f"{self.source} line {number} has {error}: leave this column out, or convert it to text.") from None

    def _rows(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        import pyarrow

        opened = self._open()
        before = 0
        for split, start, stop in self._slices(opened):
            first, last = max(start, start + self.first - before), stop if self.last is None else min(stop, start + self.last - before)
            before += stop - start
            if first >= last:
                continue
            rows = opened.splits[split].select_columns([*dict.fromkeys(columns)]).with_format("arrow").select(range(first, last))
            try:
                for batch in rows.iter(_BATCH):
                    # Arrow trusts the offsets in a file, which lead anywhere in memory if it is damaged.
                    batch.validate(full=True)
                    yield from batch.to_pylist()
            except (pyarrow.ArrowException, OSError) as error:
                raise InputError(f"{self.source} is damaged ({_first_line(error)}). {_SAVE_AGAIN}") from error

    def _features(self) -> Mapping[str, Any]:
        opened = self._open()
        self._slices(opened)
        found: Mapping[str, Any] = next(iter(opened.splits.values())).features
        return found

    def _feature(self, column: str) -> Any:
        features = self._features()
        if column not in features:
            raise InputError(f"{self.source} has no column {column!r}. {self._name_one()}")
        return features[column]

    def _name_one(self) -> str:
        return f"Its columns are {', '.join(self._features())}: name one, as in {self._base}#COLUMN."

    def _slices(self, opened: _Opened) -> list[tuple[str, int, int]]:
        """Return the selected ranges of examples of the splits."""
        import datasets

        asked = self._place.split or ("train" if opened.single else self.default_split)
        counts = {name: len(split) for name, split in opened.splits.items()}
        try:
            found = datasets.ReadInstruction.from_spec(asked).to_absolute(counts)
        except (ValueError, AssertionError) as error:
            raise InputError(
                f"{self.source} has no split {asked!r}; it has {', '.join(counts)}. Name one: {self._base}[SPLIT]."
            ) from error
        return [(one.splitname, one.from_, one.to) for one in found]

    @property
    def _base(self) -> str:
        """The source without split and column."""
        place = self._place
        if place.path:
            return f"hf:{place.path}"
        return f"hf:{place.name}" + (f"/{place.config}" if place.config else "") + (f"@{place.revision}" if place.revision else "")

    @property
    def _place(self) -> _Place:
        if not self.source.startswith("hf:"):
            return _Place(on_disk(self.source, "The data set"))
        typed = self.source.removeprefix("hf:")
        if found := _PATH.fullmatch(typed):
            return _Place(on_disk(found["path"], "The data set"), split=found["split"] or "", column=found["column"] or "")
        if found := _HUB_NAME.fullmatch(typed):
            return _Place(None, **{name: value or "" for name, value in found.groupdict().items()})
        raise InputError(
            f"{self.source} is not hf:OWNER/NAME, as in the address of the data set's page, which may continue with /CONFIG, @REVISION, "
            "[SPLIT] and #COLUMN. A path begins with /, ./ or ~/."
        )

    def _open(self) -> _Opened:
        try:
            import datasets
        except ImportError:
            raise InputError(
                f"{self.source} is read by the package datasets, which is not installed: pip install 'bert_jax[datasets]' "
                "(or pip install datasets)."
            ) from None
        if not sys.stderr.isatty():
            datasets.disable_progress_bars()
        place = self._place
        verbosity = datasets.logging.get_verbosity()
        datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # real problems are raised as exceptions
        try:
            if place.path is None:
                return _of_hub(place.name, place.config, place.revision)
            return _parquet(place.path) if place.path.suffix == ".parquet" else _saved(place.path)
        finally:
            datasets.logging.set_verbosity(verbosity)


class _Unreadable(Exception):
    """A value has no text; the message says what it is."""


def _value(value: Any, feature: Any) -> Any:
    """Return a value as `DataSet.examples` does; None for class -1, as in test sets without labels."""
    if value is None or isinstance(value, str):
        return value
    if hasattr(feature, "int2str"):
        if value >= feature.num_classes:
            raise _Unreadable(f"class {value}, but only {feature.num_classes} classes,")
        return feature.int2str(value) if value >= 0 else None
    if isinstance(value, list):
        return [_value(one, getattr(feature, "feature", None)) for one in value]
    if isinstance(value, dict):
        return {name: _value(one, feature.get(name) if isinstance(feature, Mapping) else None) for name, one in value.items()}
    if isinstance(value, bytes):
        raise _Unreadable("bytes instead of text")
    return value if isinstance(value, bool | int | float) else str(value)


def _kind(feature: Any) -> str:
    """Return the type of a column: `string`, `image`, `list`."""
    name = type(feature).__name__.lower()
    return str(feature.dtype) if name == "value" else "object" if name == "dict" else name


def _saved(folder: Path) -> _Opened:
    """Open a folder that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote."""
    if not is_saved(str(folder)):
        raise InputError(f"{folder} was not written by save_to_disk and is not a .parquet file: name one of these, or a Hub data set.")
    if not (folder / _DICT).is_file():
        table = _table(folder)
        return _Opened({"train": table}, {}, _files(table), single=True)
    names = read_json(folder / _DICT, _SAVE_AGAIN)
    names = names.get("splits") if isinstance(names, dict) else None
    if not isinstance(names, list) or not names or not all(map(_is_name, names)):
        raise InputError(f"{folder / _DICT} does not list the names of splits. {_SAVE_AGAIN}")
    splits = {name: _table(folder / name) for name in names}
    return _Opened(splits, {}, [file for table in splits.values() for file in _files(table)], single=False)


def _table(folder: Path) -> Any:
    """Open a folder that `Dataset.save_to_disk` wrote, after checking that it names only its own files."""
    import datasets

    for name in (_STATE, _INFO):
        if not (folder / name).is_file():
            raise InputError(f"The data set in {folder} was not saved completely: it has no {name}. {_SAVE_AGAIN}")
    state, _ = (read_json(folder / name, _SAVE_AGAIN) for name in (_STATE, _INFO))
    files = state.get("_data_files") if isinstance(state, dict) else None
    if not isinstance(files, list) or not all(isinstance(one, dict) and _is_name(one.get("filename")) for one in files):
        raise InputError(f"{folder / _STATE} does not list files of its own folder. {_SAVE_AGAIN}")
    try:
        if not files:  # which load_from_disk does not open
            features = datasets.DatasetInfo.from_directory(str(folder)).features
            return datasets.Dataset.from_dict({name: [] for name in features}, features=features)
        return datasets.Dataset.load_from_disk(str(folder), keep_in_memory=False)
    except Exception as error:
        raise InputError(f"The data set in {folder} is damaged ({_first_line(error)}). {_SAVE_AGAIN}") from error


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and re.fullmatch(r"[\w.-]+", name) is not None and name not in (".", "..")


def _files(table: Any) -> list[Path]:
    return [Path(file["filename"]) for file in table.cache_files]


def _parquet(path: Path) -> _Opened:
    """Open a Parquet file, or those that a glob refers to, in the order of their names."""
    import datasets

    files = [path] if path.is_file() else sorted(Path(one) for one in glob.glob(str(path)))  # noqa: PTH207  # absolute
    if not files:
        raise InputError(f"The data set {path} does not exist: check the path.")
    try:
        builder = datasets.load_dataset_builder("parquet", data_files={"train": [glob.escape(str(file)) for file in files]})
        builder.download_and_prepare()
        return _Opened(builder.as_dataset(), {}, files, single=True)
    except Exception as error:
        raise InputError(f"{path} cannot be read as Parquet ({_first_line(error.__cause__ or error)}). Check or write it again.") from error


@functools.lru_cache(maxsize=8)
def _of_hub(name: str, config: str, revision: str) -> _Opened:
    """Open a data set of the Hub, or of the cache of `datasets` if the Hub cannot be reached; downloads it if necessary."""
    import datasets
    from huggingface_hub.errors import HfHubHTTPError

    source = f"hf:{name}" + (f"/{config}" if config else "") + (f"@{revision}" if revision else "")
    parquet = f"The Hub may have a copy in Parquet: try hf:{name}{f'/{config}' if config else ''}@refs/convert/parquet."
    try:
        # With this prefix, a folder of the same name in the working directory is not read instead.
        builder = datasets.load_dataset_builder(f"hf://datasets/{name}", config or None, revision=revision or None)
        reader = type(builder).__module__.rpartition(".")[2]
        if reader not in _READERS:
            raise InputError(f"The files of {source} are of a kind ({reader}) that bert_jax does not read. {parquet}")
        # The cache is asked if the Hub cannot be reached, and takes any revision.
        if reader == "cache" and not builder.hash.startswith(revision):
            raise InputError(
                f"{source} cannot be downloaded, and the copy in the cache of datasets may be of another commit: name that copy as "
                f"hf:{name}@{builder.hash}, or make the Hub reachable."
            )
        builder.download_and_prepare()
        version = {"name": name, "config": builder.config.name, "commit": builder.hash}
        return _Opened(builder.as_dataset(), version, [], single=False)
    except datasets.exceptions.DatasetNotFoundError as error:
        raise InputError(
            f"Cannot read {source}: {_first_line(error)} Check the name on https://huggingface.co/datasets. If the data set is gated or "
            "private, accept its terms on its page, and set HF_TOKEN or log in with `hf auth login`."
        ) from error
    except (ConnectionError, HfHubHTTPError) as error:
        raise InputError(
            f"{source} is not in the cache of datasets, and cannot be downloaded: there is no network, or the Hub is not responding "
            f"({_first_line(error)}). On a machine with network access, run load_dataset({name!r}).save_to_disk(FOLDER) in Python, copy "
            "the folder here, and name it instead."
        ) from error
    except InputError:
        raise
    except ValueError as error:
        # It says which configurations there are in its second line.
        reason = " ".join(str(error).splitlines()[:2])
        raise InputError(f"Cannot read {source} ({reason}). Name a configuration as in hf:{name}/CONFIG.") from error
    except (datasets.exceptions.DatasetsError, OSError, RuntimeError) as error:
        raise InputError(f"Cannot read {source} ({_first_line(error.__cause__ or error)}). {parquet}") from error


def _first_line(error: BaseException) -> str:
    return textwrap.shorten((str(error).strip().splitlines() or [type(error).__name__])[0], 200)
