"""Stock data sets of TensorFlow Datasets."""

import importlib.util
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from bert_jax.errors import InputError


def prepared_tfds(name: str) -> Any:
    """The `tfds.core.DatasetBuilder` of a stock data set, prepared; it is downloaded and prepared when it is not yet there.

    Raises:
        InputError: there is no such data set, or it cannot be prepared here; says what to install or do.
    """
    import tensorflow_datasets as tfds
    import tensorflow_datasets.text  # registers glue and its like

    try:
        with quiet_tfds():
            builder = tfds.builder(name)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise InputError(f"TensorFlow Datasets has no data set {name!r}: see https://www.tensorflow.org/datasets/catalog.") from error
    if not builder.is_prepared():
        where = f"or copy it, prepared, to {builder.data_dir}, or set TFDS_DATA_DIR to where it is."
        # Without it TFDS would download everything first and then fail to unpack it.
        if not _has_tensorflow():
            raise InputError(
                f"The data set tfds:{name} is not prepared on this machine, and preparing it needs TensorFlow and the network: "
                f"pip install tensorflow apache-beam, then tfds build {name} --file_format=array_record; {where}"
            )
        try:
            builder.download_and_prepare(file_format="array_record")
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"The data set tfds:{name} is not prepared on this machine and cannot be prepared now ({reason}): see that the network is "
                f"there and that the data set's own needs are installed, then tfds build {name} --file_format=array_record; {where}"
            ) from error
    return builder


@contextmanager
def quiet_tfds() -> Iterator[None]:
    """TFDS prints and logs much about every data set; what matters it raises."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def tfds_examples(name: str, builder: Any, split: str) -> Iterator[dict[str, Any]]:
    """The examples of a split of a prepared data set, as NumPy values and bytes.

    Raises:
        InputError: it was prepared as TFRecord, and TensorFlow is not installed.
    """
    try:
        yield from builder.as_data_source(split)
    except NotImplementedError:
        if not _has_tensorflow():
            raise InputError(
                f"The data set tfds:{name} was prepared as TFRecord ({builder.data_dir}), which needs TensorFlow: pip install tensorflow, "
                f"or prepare it once more as ArrayRecord: tfds build {name} --file_format=array_record."
            ) from None
        import tensorflow_datasets as tfds

        yield from tfds.as_numpy(builder.as_dataset(split))


def _has_tensorflow() -> bool:
    return importlib.util.find_spec("tensorflow") is not None
