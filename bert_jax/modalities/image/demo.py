"""The demo's images: the handwritten digits of scikit-learn, which are part of its package, so that nothing is downloaded.

They are the test set of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998, UCI): 1,797 images of 8 x 8 pixels by
13 writers.
"""

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "dev", "test")

_DEV_START, _TEST_START = 1257, 1437


def digits() -> list[tuple[str, NDArray[np.uint8], str]]:
    """Return the name, the pixels uint8 [8, 8] (0 is paper, 255 is ink) and the label ("0" to "9") of each image."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = np.rint(data.images * (255 / 16)).astype(np.uint8)
    return [(f"digits/{index:04}", image, str(label)) for index, (image, label) in enumerate(zip(pixels, data.target, strict=True))]


def split_of(index: int) -> str:
    """Return the split of the image at `index`: the last 20% are the test set, as is customary, and the 10% before it the dev set.

    The images are sorted by writer, about 130 each. Splitting at two places leaves at most two writers in more than one split; a
    random split would show the model every writer of the test set.
    """
    return "train" if index < _DEV_START else "dev" if index < _TEST_START else "test"
