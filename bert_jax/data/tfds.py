"""Access to the public data sets of TensorFlow Datasets."""

import importlib.util
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from bert_jax.errors import InputError


def prepared_tfds(name: str) -> Any:
    """Return the `tfds.core.DatasetBuilder` of a public data set, which is downloaded and prepared if necessary.

    Raises:
        InputError: the data set does not exist, or cannot be prepared on this machine; the message says what to install or do.
    """
    import tensorflow_datasets as tfds
    import tensorflow_datasets.text  # registers glue and similar data sets

    try:
        with quiet_tfds():
            builder = tfds.builder(name)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise InputError(f"TensorFlow Datasets has no data set {name!r}: see https://www.tensorflow.org/datasets/catalog.") from error
    if not builder.is_prepared():
        alternatives = f"or copy the prepared data set to {builder.data_dir}, or set TFDS_DATA_DIR to its location."
        # Without this check, TFDS would download everything and only then fail to unpack it.
        if not _has_tensorflow():
            raise InputError(
                f"The data set tfds:{name} is not prepared on this machine, and preparing it needs TensorFlow and the network: "
                f"pip install tensorflow apache-beam, then tfds build {name} --file_format=array_record; {alternatives}"
            )
        try:
            builder.download_and_prepare(file_format="array_record")
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"The data set tfds:{name} is not prepared on this machine and cannot be prepared now ({reason}): check the network and "
                f"the data set's own dependencies, then run tfds build {name} --file_format=array_record; {alternatives}"
            ) from error
    return builder


@contextmanager
def quiet_tfds() -> Iterator[None]:
    """Suppress the output and log messages of TFDS; real problems are raised as exceptions."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def tfds_examples(name: str, builder: Any, split: str) -> Iterator[dict[str, Any]]:
    """Yield the examples of a split of a prepared data set, as NumPy values and bytes.

    Raises:
        InputError: the data set was prepared as TFRecord, and TensorFlow is not installed.
    """
    try:
        yield from builder.as_data_source(split)
    except NotImplementedError:
        if not _has_tensorflow():
            raise InputError(
                f"The data set tfds:{name} was prepared as TFRecord ({builder.data_dir}), which needs TensorFlow: pip install tensorflow, "
                f"or prepare it again as ArrayRecord: tfds build {name} --file_format=array_record."
            ) from None
        import tensorflow_datasets as tfds

        yield from tfds.as_numpy(builder.as_dataset(split))


def _has_tensorflow() -> bool:
    return importlib.util.find_spec("tensorflow") is not None
