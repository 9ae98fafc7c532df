"""What images and audio have in common as modalities: an item is a document, and a codebook is the vocabulary."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from bert_jax.config import VocabularyOptions
from bert_jax.data.data_sets import open_data_set
from bert_jax.data.reader import Reader
from bert_jax.data.tables import Row
from bert_jax.errors import InputError
from bert_jax.modalities.base import Expected, Filled, Modality
from bert_jax.modalities.inspection import Asked
from bert_jax.modalities.media import inspection, pictures
from bert_jax.modalities.media.codebook import SPECIAL_TOKENS, Codebook
from bert_jax.modalities.media.encoding import MediaEncoder
from bert_jax.modalities.media.extractor import Extractor, Unreadable
from bert_jax.modalities.media.items import Half, Item, Masked
from bert_jax.modalities.media.options import CodebookConfig, MediaOptions
from bert_jax.modalities.media.sources import Demo, Examples, Files, Source, labelled_rows, list_files
from bert_jax.runtime.progress import WorkProgress
from bert_jax.storage.files import on_disk

O = TypeVar("O", bound=MediaOptions)  # noqa: E741  # options

_SAMPLED_ITEMS, _UNITS_PER_ITEM = 8192, 32
"""A codebook is learned from a random sample of this many items, and this many units of each."""
_PARTS = 8
"""Number of parts of a recording whose mean units are the features of a linear model."""
_MASKED_SHARE = 0.5
"""Fraction of the units that are masked in the pictures at the end of a run."""


class Media(Modality[Item, O]):
    """A modality whose documents are files.

    Attributes:
        extractor: the class of its extractors.
        feature: the type of a data set's column of this medium.
        demo: the demo's data; `tables` has its rows.
    """

    embedding = "units"
    extractor: ClassVar[type[Extractor]]
    feature: ClassVar[str]
    demo: ClassVar[Demo]

    def open_source(self, name: str, config: O) -> Source:
        """Return the source for files, the demo, or a data set."""
        if name == "demo":
            return self.demo.unlabeled
        if data := open_data_set(name):
            return Examples(name, data, self.feature)
        return Files(on_disk(name, "The corpus"), self.extractor.suffixes)

    def content(self, document: Item) -> bytes:
        """Return a hash of the content."""
        return document.identity.encode()

    def learn(self, documents: Iterable[Item], config: O, vocabulary: VocabularyOptions) -> Codebook:
        """Learn a codebook from a random sample of the units."""
        codes, extractor = self._codes(vocabulary), config.extractor()
        return Codebook.learn(extractor, _sample(documents, extractor, codes.seed, config), codes)

    def expected(self, config: O, vocabulary: VocabularyOptions) -> Expected:
        """Return the size of the vocabulary, and the units."""
        extractor = config.extractor()
        return Expected(len(SPECIAL_TOKENS) + self._codes(vocabulary).size, extractor.units, extractor.grid)

    def _codes(self, vocabulary: VocabularyOptions) -> CodebookConfig:
        if not isinstance(vocabulary, CodebookConfig):
            raise InputError(
                f"A corpus of {self.extractor.noun}s needs a codebook, not a vocabulary of the kind {vocabulary.kind}: set "
                "--config.vocabulary=codebook, or vocabulary=CodebookConfig() in the configuration."
            )
        return vocabulary

    def load(self, directory: Path) -> Codebook:
        """Load a codebook."""
        return Codebook.load(directory, self.extractor)

    def encoder(self, reader: Reader, config: O) -> MediaEncoder:
        """Return the encoder of files.

        Raises:
            InputError: the codebook is of other units than the configuration says.
        """
        assert isinstance(reader, Codebook)
        if reader.extractor != config.extractor():
            raise InputError(
                f"The codebook was learned from units of {reader.extractor}, but the configuration asks for {config.extractor()}. Set the "
                "values of corpus to those of the codebook, or learn another one."
            )
        return MediaEncoder(reader, config)

    def read_rows(self, source: str, columns: Mapping[str, str], split: str) -> Iterator[Row]:
        """Yield labeled rows from a folder per class, a table with a column of paths, or a data set."""
        return labelled_rows(source, columns, split, self.extractor.suffixes, self.feature)

    def recognizes(self, source: str) -> bool:
        """Return whether a file, folder or glob has files of this medium."""
        try:
            return bool(list_files(on_disk(source, "The corpus"), self.extractor.suffixes))
        except InputError:
            return False

    def inspect(self, asked: Asked) -> inspection.MediaInspection:
        """Return the sizes and problems of files; the units are those of the given codebook or of the default options."""
        if asked.encoding_errors != "strict":
            raise InputError(f"--encoding-errors is for text, but this is a corpus of {self.extractor.noun}s. Leave it out.")
        config = self.options(source=asked.source)
        extractor = self.load(asked.vocabulary).extractor if asked.vocabulary else config.extractor()
        return inspection.inspect(asked, extractor, lambda name: self.open_source(name, config), 1 - config.valid_fraction)

    def queries(self, document: Item, config: O) -> list[Any]:
        """Return both halves of an item; nothing if it cannot be read or has only one unit."""
        try:
            units = config.extractor().extract(document.read())
        except Unreadable:
            return []
        return [Half(document, 0), Half(document, 1)] if len(units) > 1 else []

    def features(self, reader: Reader, train: Sequence[Any], test: Sequence[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return all units of each input if every input has as many, else the means of the units of equal parts."""
        assert isinstance(reader, Codebook)
        units = [encoded.units for encoded in reader.encode_batch([*train, *test])]
        equal = len({len(one) for one in units}) == 1
        rows = [(one if equal else _part_means(one)).ravel().astype(np.float32) for one in units]
        return np.array(rows[: len(train)]), np.array(rows[len(train) :])

    def with_mask(self, reader: Reader, query: Any) -> Masked:
        """Return the item of a query with about half of its units masked, in the groups that are masked together."""
        assert isinstance(reader, Codebook)
        item = query.input if isinstance(query, Half) else query
        starts = reader.encode(item).word_starts
        group = np.cumsum(starts)
        chosen = np.random.default_rng(0).permutation(group[-1])[: max(1, round(_MASKED_SHARE * group[-1]))] + 1
        return Masked(item, np.isin(group, chosen))

    def filled(self, reader: Reader, query: Any, masks: Sequence[Sequence[Any]]) -> Filled:
        """Return how many masked units were predicted, and pictures of the original, the masked and the completed item."""
        assert isinstance(reader, Codebook)
        encoded = reader.encode(query)
        original = reader.codes(encoded.units)
        places = np.flatnonzero(encoded.ids == reader.mask_id)
        best = np.array([mask[0].id for mask in masks], np.int64)
        probabilities = np.array([mask[0].probability for mask in masks])
        drawn = pictures.completion(reader, encoded, places, best, probabilities)
        right = int((best == original[places]).sum())
        note = f"{right} of {len(places)} masked units have the predicted code"
        captions = ("original", "masked", "completed")
        return {"text": str(_item(query)), "note": note, "pictures": drawn, "captions": captions}

    def pictures(self, reader: Reader, query: Any) -> list[str]:
        """Return the picture of an item, as a data URI."""
        assert isinstance(reader, Codebook)
        units = reader.encode(_item(query)).units.astype(np.float32)
        if isinstance(query, Half):
            units[reader.half(len(units), 1 - query.index)] = np.nan
        return [pictures.of_units(reader, units)]

    def sheet(self, reader: Reader) -> str:
        """Return a contact sheet of the codes, as a data URI."""
        assert isinstance(reader, Codebook)
        return pictures.contact_sheet(reader)


def _item(query: Any) -> Any:
    return _item(query.input) if isinstance(query, Masked | Half) else query


def _part_means(units: NDArray[Any]) -> NDArray[np.float32]:
    """Return the mean units of equal parts of a sequence, float32 [parts, U]."""
    edges = np.linspace(0, len(units), _PARTS + 1)
    bounds = [(int(start), max(int(np.ceil(end)), int(start) + 1)) for start, end in itertools.pairwise(edges)]
    means: NDArray[np.float32] = np.array([units[start:end].mean(0, dtype=np.float32) for start, end in bounds])
    return means


def _sample(documents: Iterable[Item], extractor: Extractor, seed: int, config: MediaOptions) -> NDArray[Any]:
    """Return units [n, U] of a uniform sample of the items (reservoir sampling, Vitter 1985)."""
    rng = np.random.default_rng(seed)
    kept: list[NDArray[Any]] = []
    with WorkProgress("codebook", "files") as progress:
        for index, item in zip(itertools.count(), documents, strict=False):
            progress.update(1)
            place = index if index < _SAMPLED_ITEMS else int(rng.integers(index + 1))
            if place >= _SAMPLED_ITEMS:
                continue
            try:
                units = extractor.extract(item.read())
            except Unreadable as error:
                if config.unreadable == "refuse":
                    raise InputError(
                        f"{item.name} {error}. Remove or repair the file, or set --config.corpus.unreadable=skip to leave out such files."
                    ) from None
                units = np.zeros((0, extractor.units.size), extractor.units.dtype)
            chosen = units[np.sort(rng.permutation(len(units))[:_UNITS_PER_ITEM])]
            if place < len(kept):
                kept[place] = chosen
            else:
                kept.append(chosen)
    if not any(map(len, kept)):
        raise InputError(f"The corpus {config.source} has no {extractor.noun} that can be read.")
    return np.concatenate(kept)
