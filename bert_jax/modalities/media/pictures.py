"""Pictures of units and codes for the report, as data URIs."""

import math

import numpy as np
from numpy.typing import NDArray

from bert_jax.modalities.media.codebook import SPECIAL_TOKENS, Codebook, EncodedInput
from bert_jax.modalities.media.png import data_uri

_GAP = 1
_MOST_CODES = 1024
_SHEET_SHAPE = 4.0
"""About how many times wider than high a contact sheet is, whatever the shape of a unit."""
_STRONGEST_TINT = 0.6
"""So that improbable codes can still be seen."""


def of_units(reader: Codebook, units: NDArray[np.generic]) -> str:
    """Draw units [n, U]."""
    return data_uri(reader.extractor.picture(units))


def completion(
    reader: Codebook, encoded: EncodedInput, places: NDArray[np.integer], best: NDArray[np.integer], probabilities: NDArray[np.floating]
) -> list[str]:
    """Draw the original, the masked and the completed input.

    Args:
        reader: the codebook.
        encoded: the input.
        places: int [m], the masked units.
        best: int [m], the predicted ids. They are drawn by what their codes stand for.
        probabilities: float [m]; the less probable a code, the more its unit is tinted.
    """
    original = encoded.units.astype(np.float32)
    masked, completed = original.copy(), original.copy()
    masked[places] = np.nan
    completed[places] = reader.prototypes(best)
    tint = np.zeros(len(original), np.float32)
    tint[places] = _STRONGEST_TINT * (1 - probabilities)
    draw = reader.extractor.picture
    return [data_uri(draw(original)), data_uri(draw(masked)), data_uri(draw(completed, tint))]


def contact_sheet(reader: Codebook) -> str:
    """Draw the first codes in rows, each as what it stands for."""
    count = min(len(reader.centroids), _MOST_CODES)
    cells = [reader.extractor.tile(unit) for unit in reader.prototypes(np.arange(count) + len(SPECIAL_TOKENS))]
    height, width = cells[0].shape[:2]
    columns = min(count, math.ceil(math.sqrt(_SHEET_SHAPE * count * (height + _GAP) / (width + _GAP))))
    rows = -(-count // columns)
    sheet = np.full((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 3), 255, np.uint8)
    for index, cell in enumerate(cells):
        top, left = (index // columns) * (height + _GAP), (index % columns) * (width + _GAP)
        sheet[top : top + height, left : left + width] = cell
    return data_uri(sheet)
