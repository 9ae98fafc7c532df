"""Augmentation of images and recordings on the device, as a pure function of a key: units in, units out.

Tokens, positions and labels stay, so it suits fine-tuning, where nothing reads the codes.
"""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import AugmentationConfig
from bert_jax.data.reader import Grid, Units
from bert_jax.errors import InputError
from bert_jax.model.bert import Batch

Augment: TypeAlias = Callable[[Batch, jax.Array], Batch]


def make_augmentation(config: AugmentationConfig, units: Units | None, grid: Grid | None) -> Augment | None:
    """Return a function (batch, key) -> batch, or None if nothing is augmented.

    Args:
        config: what to do.
        units: the units of the model's input, or None.
        grid: their two-dimensional arrangement; None for a sequence.

    Raises:
        InputError: the configuration augments another kind of input.
    """
    of_images, of_sequences = config.flip or config.shift > 0, config.time_mask > 0 or config.band_mask > 0
    if of_images and (units is None or grid is None):
        raise InputError("finetune.augmentation.flip and .shift are for images, which this model does not read. Set them to false and 0.")
    if of_sequences and (units is None or grid is not None):
        raise InputError("finetune.augmentation.time_mask and band_mask are for recordings, which this model does not read: set them to 0.")
    if units is not None and grid is not None and of_images:
        return _Moved(config, units, grid)
    if units is not None and of_sequences:
        bands = units.size // units.frames
        return lambda batch, key: _mask_spectrogram(batch, key, config, units.frames, bands)
    return None


class _Moved:
    """Mirrors images and shifts them by whole pixels, repeating those at the edge.

    The picture is never assembled: every value of a patch is gathered from its new place among the values of all patches. Both images of
    a pair move alike. An image that was truncated stays, since patches are missing.
    """

    def __init__(self, config: AugmentationConfig, units: Units, grid: Grid) -> None:
        self._config, self._size, self._columns = config, units.size, grid.columns
        channels = next(channels for channels in (1, 3) if round((units.size / channels) ** 0.5) ** 2 * channels == units.size)
        self._channels, self._patch = channels, round((units.size / channels) ** 0.5)
        cells = grid.cells()
        inside = np.arange(units.size)
        # The row and column, in pixels, of every value of every patch: int32 [n, U].
        self._rows = cells[:, :1] * self._patch + inside // (self._patch * channels)
        self._pixel_columns = cells[:, 1:] * self._patch + inside // channels % self._patch
        self._channel = (inside % channels).astype(np.int32)
        # The index of the patch in each cell.
        self._index = np.zeros((grid.columns, grid.columns), np.int32)
        self._index[cells[:, 0], cells[:, 1]] = np.arange(len(cells))

    def __call__(self, batch: Batch, key: jax.Array) -> Batch:
        config, examples = self._config, batch["cls_positions"].shape
        flip_key, *shift_keys = jax.random.split(key, 3)
        flip = jax.random.bernoulli(flip_key, 0.5, examples) & config.flip
        down, right = (jax.random.randint(shift_key, examples, -config.shift, config.shift + 1) for shift_key in shift_keys)
        example = jnp.maximum(batch["example_ids"] - 1, 0)
        flip, down, right = (jnp.take_along_axis(drawn, example, axis=1)[:, :, None] for drawn in (flip, down, right))

        patches, last = len(self._rows), self._columns * self._patch - 1
        place, count = _places(batch)
        is_patch = (count == patches) & (place >= 0) & (place < patches)
        patch = jnp.clip(place, 0, patches - 1)
        row = jnp.clip(jnp.asarray(self._rows, jnp.int32)[patch] - down, 0, last)
        column = jnp.asarray(self._pixel_columns, jnp.int32)[patch]
        column = jnp.clip(jnp.where(flip, last - column, column) - right, 0, last)
        source = jnp.asarray(self._index)[row // self._patch, column // self._patch]
        value = (row % self._patch * self._patch + column % self._patch) * self._channels + self._channel
        at = jnp.arange(place.shape[1], dtype=jnp.int32)[None, :, None]
        own = jnp.arange(self._size, dtype=jnp.int32)
        index = jnp.where(is_patch[:, :, None], (at - patch[:, :, None] + source) * self._size + value, at * self._size + own)
        flat = batch["units"].reshape(place.shape[0], -1)
        moved = jnp.take_along_axis(flat, index.reshape(flat.shape), axis=1)
        return {**batch, "units": moved.reshape(batch["units"].shape)}


def _places(batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Return the index of each unit within its input, which is one of a pair or the only one, and the number of these units: [B, L].

    The index of [CLS] is -1, and that of [SEP] is the number of units. Padding has no units.
    """
    segments, inputs = batch["segments"], 2 * batch["cls_positions"].shape[1]
    own = jnp.where(batch["example_ids"] > 0, 2 * (batch["example_ids"] - 1) + segments, inputs)
    sizes = jnp.sum(own[:, :, None] == jnp.arange(inputs, dtype=jnp.int32), axis=1, dtype=jnp.int32)
    # The first input is between [CLS] and [SEP]; the second is before another [SEP].
    size, first = (jnp.take_along_axis(sizes, index, axis=1, mode="fill", fill_value=0) for index in (own, own - segments))
    place = batch["positions"] - jnp.where(segments > 0, first, 1)
    return place, size - (2 - segments)


def _mask_spectrogram(batch: Batch, key: jax.Array, config: AugmentationConfig, frames: int, bands: int) -> Batch:
    """Set a stretch of time and a range of bands of each example to the mean, 0 (SpecAugment, Park et al. 2019, section 2)."""
    examples = batch["cls_positions"].shape
    draws = jax.random.uniform(key, (4, *examples))
    example = jnp.maximum(batch["example_ids"] - 1, 0)
    length = jnp.sum(batch["example_ids"][:, :, None] == jnp.arange(1, examples[1] + 1, dtype=jnp.int32), axis=1).astype(jnp.float32)

    def hidden(places: jax.Array, size: jax.Array, share: float, width: jax.Array, start: jax.Array) -> jax.Array:
        # Both are uniform over whole numbers, as published: the width over 0, ..., share * size, and the first place over all that fit.
        whole = jnp.floor(width * (jnp.floor(share * size) + 1))
        first = jnp.floor(start * (size - whole + 1))
        return (places >= first) & (places < first + whole)

    def of_example(values: jax.Array) -> jax.Array:
        return jnp.take_along_axis(values, example, axis=1)[:, :, None]

    time_width, time_start, band_width, band_start = map(of_example, draws)
    in_time = hidden(batch["positions"][:, :, None].astype(jnp.float32), of_example(length), config.time_mask, time_width, time_start)
    band = jnp.tile(jnp.arange(bands, dtype=jnp.float32), frames)
    in_band = hidden(band, jnp.float32(bands), config.band_mask, band_width, band_start)
    units = batch["units"]
    return {**batch, "units": jnp.where(in_time | in_band, jnp.zeros((), units.dtype), units)}
