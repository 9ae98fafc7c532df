"""The vocabulary of images and audio: codes of units, learned by k-means.

The code of a unit is the nearest centroid (Hsu et al. 2021, section III.A, for speech; Bao et al. 2022 predict codes of image patches).
It is the unit's token id, and its label where it is masked.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from bert_jax.config.overrides import from_dict
from bert_jax.data.reader import Grid, Units
from bert_jax.data.records.encoding import cores
from bert_jax.errors import InputError, TextError
from bert_jax.modalities.media.extractor import Extractor, Unreadable
from bert_jax.modalities.media.items import Half, Item, Listed, Masked, as_item
from bert_jax.modalities.media.options import MOST_CODES, CodebookConfig
from bert_jax.storage.files import make_directory

FILE = "codebook.safetensors"
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

_ROWS_AT_ONCE = 1 << 14
_SMALLEST_DEVIATION = 1e-6
_LLOYD_STEPS = 3
"""They reduce the mean squared distance to the nearest centroid by 1% on CIFAR-10, in a quarter of the time of the mini-batches."""
_LARGEST = 1e12
"""Larger numbers in a file are refused: their squares could overflow."""


class EncodedInput(NamedTuple):
    """The units of one input.

    Attributes:
        ids: int32 [n], the codes as token ids; [MASK] where a query masks the unit.
        word_starts: bool [n], true where units begin that may be masked together.
        units: [n, U].
    """

    ids: NDArray[np.int32]
    word_starts: NDArray[np.bool_]
    units: NDArray[Any]


class EncodedInputs(NamedTuple):
    """The concatenated units of several inputs; fields as in `EncodedInput`, and the number of units of each input, int64 [inputs]."""

    ids: NDArray[np.int32]
    lengths: NDArray[np.int64]
    units: NDArray[Any]


class Codebook:
    """The codes of an extractor's units; a `bert_jax.data.reader.Reader`.

    Args:
        extractor: turns inputs into units.
        centroids: float32 [K, U], normalized as the units that are compared with them.
        mean: float32 [U], the mean of each number of the units over the corpus.
        deviation: float32 [U], its standard deviation.
        normalize: see `CodebookConfig`.
    """

    special_ids = tuple(range(len(SPECIAL_TOKENS)))
    pad_id, unk_id, cls_id, sep_id, mask_id = special_ids
    token_characters: None = None

    def __init__(
        self,
        extractor: Extractor,
        centroids: NDArray[np.float32],
        mean: NDArray[np.float32],
        deviation: NDArray[np.float32],
        normalize: str,
    ) -> None:
        self.extractor, self.centroids, self.mean, self.deviation = extractor, centroids, mean, deviation
        self.normalize = normalize
        self.vocab_size = len(SPECIAL_TOKENS) + len(centroids)
        self.ordinary_ids = np.arange(len(SPECIAL_TOKENS), self.vocab_size, dtype=np.int32)
        self.nouns = extractor.nouns()
        self.mask_hint = f"say what to mask at the end of its path, as in FILE#{extractor.fragment}"

    @property
    def units(self) -> Units:
        """The type and size of the units."""
        return self.extractor.units

    @property
    def grid(self) -> Grid | None:
        """The two-dimensional arrangement of the units, or None."""
        return self.extractor.grid

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of the settings and the centroids."""
        return self._hash(json.dumps(self._settings(), sort_keys=True).encode())

    @classmethod
    def learn(cls, extractor: Extractor, sample: NDArray[Any], config: CodebookConfig) -> Self:
        """Learn the codes from a sample of units [n, U], deterministically.

        Raises:
            InputError: there are more codes than distinct units.
        """
        from sklearn.cluster import MiniBatchKMeans

        mean = sample.mean(0, dtype=np.float64).astype(np.float32)
        deviation = np.maximum(sample.std(0, dtype=np.float64), _SMALLEST_DEVIATION).astype(np.float32)
        normalized = _normalized(sample, mean, deviation, config.normalize)
        # Units that differ only by rounding after normalization are one: with `units`, the same shape at another brightness.
        distinct = len(np.unique(normalized.round(4), axis=0))
        if distinct < config.size:
            raise InputError(
                f"The corpus has only {distinct:,} distinct units, too few for vocabulary.size={config.size} codes: set "
                f"--config.vocabulary.size to at most {distinct:,}, or add data."
            )
        initial = 3 * config.size + 4096
        kmeans = MiniBatchKMeans(config.size, random_state=config.seed, batch_size=4096, n_init=1, max_iter=30, init_size=initial)
        kmeans.fit(normalized)
        return cls(extractor, _refined(kmeans.cluster_centers_.astype(np.float32), normalized), mean, deviation, config.normalize)

    def codes(self, units: NDArray[Any]) -> NDArray[np.int32]:
        """Return the token id of each unit: [n, U] -> int32 [n]."""
        found = [np.zeros(0, np.int64)]
        for start in range(0, len(units), _ROWS_AT_ONCE):
            part = _normalized(units[start : start + _ROWS_AT_ONCE], self.mean, self.deviation, self.normalize)
            found.append(_nearest(part, self.centroids))
        return (np.concatenate(found) + len(SPECIAL_TOKENS)).astype(np.int32)

    def encode(self, query: Any) -> EncodedInput:
        """Return the units and codes of one input.

        Raises:
            Unreadable: the input cannot be read, or what it should be masked at is not in it.
        """
        noun = self.extractor.noun
        item, where, half = as_item(query, f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}")
        content = item.read()
        units = self.extractor.extract(content)
        ids, starts = self.codes(units), self.extractor.word_starts(len(units))
        if where is not None:
            region = self.extractor.region(content, where) if isinstance(where, str) else np.asarray(where, np.bool_)
            if region.shape != ids.shape:
                raise Unreadable(f"has {len(ids)} units, but its mask has the shape {list(region.shape)}")
            ids = np.where(region, self.mask_id, ids).astype(np.int32)
        if half is not None:
            part = self.half(len(units), half)
            ids, starts, units = ids[part], starts[part], units[part]
        return EncodedInput(ids, starts, units)

    def half(self, count: int, index: int) -> slice:
        """Return which of `count` units are the first (0) or second (1) half of an input."""
        parts = self.extractor.parts(count)
        middle = int(parts[len(parts) // 2]) or count // 2
        return slice(middle, None) if index else slice(middle)

    def encode_batch(self, queries: Sequence[Any]) -> list[EncodedInput]:
        """Encode several inputs, on all cores.

        Raises:
            TextError: an input cannot be read.
        """

        def attempt(query: Any) -> EncodedInput | Unreadable:
            try:
                return self.encode(query)
            except Unreadable as error:
                return error

        if len(queries) < 2:
            encoded = list(map(attempt, queries))
        else:
            with ThreadPoolExecutor(cores()) as pool:
                encoded = list(pool.map(attempt, queries))
        problems = {index: f"{found}." for index, found in enumerate(encoded) if isinstance(found, Unreadable)}
        if problems:
            first = min(problems)
            raise TextError(first, problems[first], self.extractor.noun, problems)
        return [found for found in encoded if not isinstance(found, Unreadable)]

    def encode_flat(self, queries: Sequence[Any]) -> EncodedInputs:
        """Encode several inputs and concatenate them; raises TextError as `encode_batch` does."""
        encoded = self.encode_batch(queries)
        ids = [np.zeros(0, np.int32), *(one.ids for one in encoded)]
        units = [np.zeros((0, self.units.size), self.units.dtype), *(one.units for one in encoded)]
        return EncodedInputs(np.concatenate(ids), np.array([len(one.ids) for one in encoded], np.int64), np.concatenate(units))

    def listed(self, typed: str, folder: Path) -> Listed:
        """Return the file that a line of a list or table in `folder` names."""
        return Listed(typed, folder)

    def is_one(self, queries: Any) -> bool:
        """Return whether this is one input rather than several."""
        if isinstance(queries, np.ndarray):
            return self.extractor.is_one(queries)
        if isinstance(queries, tuple):
            return len(queries) == 2 and isinstance(queries[0], np.ndarray) and isinstance(queries[1], int | np.integer)
        return isinstance(queries, str | Path | bytes | Item | Masked | Half)

    def first_half(self, query: Any) -> Any:
        """Return what is asked about as A in a question about what follows."""
        return Half(query, 0) if self.extractor.halves else query

    def second_half(self, query: Any) -> Any:
        """Return what is asked about as B."""
        return Half(query, 1) if self.extractor.halves else query

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Return the name of each id: a special token, or the number of a code."""
        return [SPECIAL_TOKENS[i] if i < len(SPECIAL_TOKENS) else str(i - len(SPECIAL_TOKENS)) for i in map(int, ids)]

    def id(self, token: str) -> int:
        """Return the id of a token's name.

        Raises:
            InputError: there is no such token.
        """
        if token in SPECIAL_TOKENS:
            return SPECIAL_TOKENS.index(token)
        is_number = token.isascii() and token.isdigit() and len(token) <= len(str(MOST_CODES))
        code = int(token) if is_number else -1
        if not 0 <= code < len(self.centroids):
            raise InputError(f"There is no code {token!r}: the codes are 0 to {len(self.centroids) - 1}.")
        return code + len(SPECIAL_TOKENS)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the names of the ids, separated by spaces."""
        return " ".join(self.tokens(ids))

    def prototypes(self, ids: NDArray[np.integer]) -> NDArray[np.float32]:
        """Return the units that codes stand for, float32 [n, U]; NaN for special tokens."""
        codes = np.asarray(ids) - len(SPECIAL_TOKENS)
        units: NDArray[np.float32] = self.centroids[np.maximum(codes, 0)] * self.deviation + self.mean
        units[codes < 0] = np.nan
        return units

    def save(self, directory: str | Path) -> None:
        """Write `codebook.safetensors`: the arrays, and the settings with a checksum of the arrays as metadata."""
        from safetensors.numpy import save

        directory = Path(directory) if isinstance(directory, str) else directory
        make_directory(directory)
        # One entry, because safetensors writes several in random order.
        metadata = {"settings": json.dumps(self._settings() | {"sha256": self._hash()}, sort_keys=True)}
        (directory / FILE).write_bytes(save(self._arrays(), metadata))

    @classmethod
    def load(cls, directory: Path, extractor: type[Extractor]) -> Self:
        """Load a codebook whose extractor is of the given class.

        Raises:
            InputError: the file is missing or damaged, or belongs to another medium.
        """
        path = directory / FILE
        if not path.is_file():
            raise InputError(f"There is no codebook in {directory}: it has no {FILE}. Name the directory of a model or a vocabulary.")
        arrays, metadata = _read(path)
        try:
            settings = json.loads(metadata["settings"])
            noun, normalize = settings["of"], settings["normalize"]
            if noun != extractor.noun:
                raise InputError(f"The codebook {path} is for {noun}s, not for {extractor.noun}s. Name another.")
            found = cls(from_dict(extractor, settings["extractor"]), arrays["centroids"], arrays["mean"], arrays["deviation"], normalize)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            if isinstance(error, InputError) and "codebook" in str(error):
                raise
            raise InputError(f"{path} is damaged or incomplete ({error}). Restore it.") from error
        found.check(path)
        # The first codebooks were written without a checksum.
        if settings.get("sha256", found._hash()) != found._hash():
            raise InputError(f"The codebook {path} does not match its checksum: it is damaged. Restore it.")
        return found

    def check(self, path: Path) -> None:
        """Raise InputError if the arrays do not fit each other, the units, or the limits."""
        size = self.units.size
        shapes = [self.centroids.ndim == 2 and self.centroids.shape[1] == size, self.mean.shape == self.deviation.shape == (size,)]
        if not all(shapes) or not 2 <= len(self.centroids) <= MOST_CODES or self.normalize not in ("dimensions", "units"):
            raise InputError(
                f"The codebook {path} has centroids of the shape {list(self.centroids.shape)}, but its units have {size} values: it is "
                "damaged, or was learned from other units. Restore it."
            )
        # NaN fails the comparison.
        if not all(array.dtype == np.float32 and (np.abs(array) < _LARGEST).all() for array in self._arrays().values()):
            raise InputError(f"The codebook {path} has values that are not finite float32, or are too large: it is damaged. Restore it.")
        if not (self.deviation > 0).all():
            raise InputError(f"The codebook {path} has a standard deviation that is not positive: it is damaged. Restore it.")

    def _arrays(self) -> dict[str, NDArray[np.float32]]:
        return {"centroids": self.centroids, "deviation": self.deviation, "mean": self.mean}

    def _settings(self) -> dict[str, Any]:
        return {"of": self.extractor.noun, "normalize": self.normalize, "extractor": dataclasses.asdict(self.extractor)}  # type: ignore[call-overload]

    def _hash(self, prefix: bytes = b"") -> str:
        """Return a hash of the arrays, after a prefix."""
        digest = hashlib.sha256(prefix)
        for array in self._arrays().values():
            digest.update(array.tobytes())
        return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118  # not a dict
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} is not a readable safetensors file ({error}). Restore it.") from error


def _normalized(units: NDArray[Any], mean: NDArray[np.float32], deviation: NDArray[np.float32], normalize: str) -> NDArray[np.float32]:
    """Return units as they are compared with centroids, float32 [n, U]."""
    scaled: NDArray[np.float32] = (units.astype(np.float32) - mean) / deviation
    if normalize == "units":
        scaled = scaled - scaled.mean(1, keepdims=True)
        scaled = scaled / np.maximum(np.sqrt((scaled**2).mean(1, keepdims=True)), _SMALLEST_DEVIATION)
    return scaled


def _nearest(normalized: NDArray[np.float32], centroids: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the index of the centroid nearest to each unit, int64 [n]."""
    nearest: NDArray[np.int64] = ((centroids**2).sum(1) - 2 * normalized @ centroids.T).argmin(1)
    return nearest


def _refined(centroids: NDArray[np.float32], normalized: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return centroids [K, U] after a few steps of Lloyd's algorithm over all units [n, U]; one that is nearest to none stays."""
    for _ in range(_LLOYD_STEPS):
        sums, counts = np.zeros(centroids.size), np.zeros(len(centroids), np.int64)
        for start in range(0, len(normalized), _ROWS_AT_ONCE):
            part = normalized[start : start + _ROWS_AT_ONCE]
            nearest = _nearest(part, centroids)
            cells = nearest[:, None] * part.shape[1] + np.arange(part.shape[1])
            sums += np.bincount(cells.ravel(), part.ravel(), centroids.size)
            counts += np.bincount(nearest, minlength=len(centroids))
        means = sums.reshape(centroids.shape) / np.maximum(counts, 1)[:, None]
        centroids = np.where(counts[:, None] > 0, means, centroids).astype(np.float32)
    return centroids
