"""Reads recordings: from the content of a file, or from an array, to mono samples at one rate."""

import contextlib
import ctypes
import io
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bert_jax.errors import InputError
from bert_jax.modalities.media.extractor import Content, Unreadable

MOST_SECONDS = 6 * 3600
"""Longer recordings are refused: at 16 kHz, the samples of six hours take 1.4 GB."""
_RATES = (1_000, 768_000)
"""The sample rates that files may have, in Hz. Other values come from damaged headers and would exhaust memory on resampling."""
_MOST_CHANNELS = 1024
"""As many as libsndfile reads. An array with more is transposed."""
_BLOCK = 1 << 18
"""How many samples of all channels are decoded at once."""
_MP3_FRAME = 1152
"""Without a Xing header, the length of an MP3 file is an estimate, which is too long by up to one frame."""
_UNKNOWN = 1 << 62
"""FLAC files written to a pipe do not state their length; libsndfile reports the largest 64-bit integer."""
_STREAMED = 0x7FFF0000
"""WAV files written to a pipe state this length of their data or more."""
_mpg123 = threading.Lock()


def read_recording(content: Content, rate: int, most_seconds: float = MOST_SECONDS) -> NDArray[np.float32]:
    """Return the samples of a recording, float32 [n], averaged over the channels and resampled to `rate` Hz.

    The bytes of a WAV, FLAC, OGG or MP3 file are decoded to [-1, 1]. Integer arrays are scaled by their full scale, unsigned ones about
    their middle. Floating-point arrays stay as they are. An array without a rate is taken to be sampled at `rate`. Decoding, mixing and
    resampling are done in blocks, so the memory used is twice the result.

    Args:
        content: the bytes of a file, samples [n] or [n, channels], or samples and their rate in Hz.
        rate: the rate of the result in Hz; n is the duration in seconds x `rate`, rounded.
        most_seconds: longer recordings are refused before they are decoded.

    Raises:
        Unreadable: the content is damaged, incomplete, empty, silent, too long, or has samples that are not finite.
        InputError: the package soundfile or soxr is missing.
    """
    if isinstance(content, bytes):
        if not content:
            raise Unreadable("is empty")
        with _quiet(content):
            samples = _read_file(content, rate, most_seconds)
    else:
        array, own_rate = content if isinstance(content, tuple) else (content, rate)
        samples = _read_array(array, own_rate, rate, most_seconds)
    if len(samples) < 2:
        raise Unreadable("has only one sample" if len(samples) else "has no samples")
    if samples.min() == samples.max():
        raise Unreadable("is silent (all its samples are equal)")
    return samples


def _read_file(content: bytes, rate: int, most_seconds: float) -> NDArray[np.float32]:
    """Decode a file and resample it."""
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: libsndfile is missing
        raise InputError(f"{_missing('soundfile')} ({error})") from None
    missing = _missing_bytes(content)
    if missing > 0:
        raise Unreadable(f"is truncated ({missing:,} bytes of its samples are missing)")
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            promised, own_rate = file.frames, file.samplerate
            if promised == 0:
                raise Unreadable("has no samples; it is empty or damaged")
            known = promised < _UNKNOWN
            _check(promised if known else 0, own_rate, file.channels, most_seconds)
            # Otherwise soundfile seeks after each block, and an MP3 decoder that seeks loses the frames that the next ones build on.
            file.seekable = lambda: False
            read = 0

            def blocks() -> Iterator[NDArray[np.float32]]:
                nonlocal read
                size = max(_BLOCK // file.channels, 1)
                while len(block := file.read(size, dtype="float32", always_2d=True)):
                    read += len(block)
                    _check(read, own_rate, file.channels, most_seconds)
                    yield block

            samples = _resample(blocks(), own_rate, rate)
            spare = _MP3_FRAME if file.format in ("MP3", "MPEG") else 0
    except soundfile.LibsndfileError as error:
        problem = error.error_string.rstrip(". ")
        # libsndfile's words for an MP3 file that ends within its first frames; the file does exist.
        problem = "damaged or truncated" if "does not exist" in problem else problem
        raise Unreadable(f"is not a recording that libsndfile can read ({problem})") from None
    if known and read + spare < promised:
        raise Unreadable(f"is truncated or damaged ({read:,} of {promised:,} samples are readable)")
    return samples


def _read_array(array: Any, own_rate: Any, rate: int, most_seconds: float) -> NDArray[np.float32]:
    """Check an array, scale it and resample it."""
    array = np.asarray(array)
    if array.ndim not in (1, 2) or array.dtype.kind not in "iuf":
        raise Unreadable(f"is an array of {array.dtype} {list(array.shape)} instead of samples [n] or [n, channels]")
    if not isinstance(own_rate, int | np.integer):
        raise Unreadable(f"has the sample rate {own_rate!r}, which is not a whole number of Hz")
    array = array if array.ndim == 2 else array[:, None]
    if not array.size:
        raise Unreadable("has no samples")
    _check(len(array), int(own_rate), array.shape[1], most_seconds)
    size = max(_BLOCK // array.shape[1], 1)
    return _resample((_scaled(array[start : start + size]) for start in range(0, len(array), size)), int(own_rate), rate)


def _scaled(samples: NDArray[Any]) -> NDArray[np.floating]:
    """Return samples as floating-point numbers, the integer ones in [-1, 1]."""
    if samples.dtype.kind == "f":
        return samples
    half = 2.0 ** (8 * samples.dtype.itemsize - 1)
    middle = half if samples.dtype.kind == "u" else 0.0
    return (samples - middle) / half


def _resample(blocks: Iterable[NDArray[np.floating]], own_rate: int, rate: int) -> NDArray[np.float32]:
    """Return blocks [n, channels] as one sequence of mono samples at `rate` Hz.

    Each recording has a resampler of its own, so nothing of one recording, neither rate nor samples, reaches the next.
    """
    resampler = None
    if own_rate != rate:
        try:
            import soxr
        except ImportError:
            raise InputError(_missing("soxr")) from None
        resampler = soxr.ResampleStream(own_rate, rate, 1, dtype="float32", quality="HQ")
    mono, count = [np.zeros(0, np.float32)], 0
    for block in blocks:
        with np.errstate(over="ignore", invalid="ignore"):  # what does not fit float32 becomes infinite
            samples = block.mean(axis=1, dtype=block.dtype if block.shape[1] == 1 else np.float64).astype(np.float32)
        if not np.isfinite(samples).all():
            raise Unreadable("has samples that are not finite (NaN or infinite)")
        count += len(samples)
        mono.append(resampler.resample_chunk(samples) if resampler else samples)
    if resampler is None:
        return np.concatenate(mono)
    mono.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    # The last sample may be missing, or one too many: the resampler rounds differently.
    length = round(count * rate / own_rate)
    samples = np.concatenate(mono)[:length]
    return np.pad(samples, (0, length - len(samples)))


def _check(frames: int, rate: int, channels: int, most_seconds: float) -> None:
    """Refuse a recording that would take too much memory, or whose header is damaged."""
    if not _RATES[0] <= rate <= _RATES[1]:
        raise Unreadable(f"has a sample rate of {rate:,} Hz; it must be between {_RATES[0]:,} and {_RATES[1]:,} Hz")
    if channels > _MOST_CHANNELS:
        raise Unreadable(f"has {channels:,} channels; an array must be [samples, channels]")
    if frames > most_seconds * rate:
        raise Unreadable(f"lasts longer than {most_seconds / 3600:g} hours; cut it into shorter recordings")


def _missing(package: str) -> str:
    """Return the message about a package that is not installed."""
    return f"Reading recordings needs the package {package}: pip install {package}"


def _missing_bytes(content: bytes) -> int:
    """Return how many bytes a WAV file lacks of the samples that its header states: libsndfile reads a truncated one without an error."""
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return 0
    position = 12
    while position + 8 <= len(content):
        size = int.from_bytes(content[position + 4 : position + 8], "little")
        if content[position : position + 4] == b"data":
            return position + 8 + size - len(content) if size < _STREAMED else 0
        position += 8 + size + size % 2
    return 0


@contextlib.contextmanager
def _quiet(content: bytes) -> Iterator[None]:
    """Discard what mpg123, the MP3 decoder in libsndfile, prints about damaged files to the standard error of C.

    It offers no setting for that. Python's own standard error stays as it is, so nothing that other threads report is lost.
    """
    if content[:4] in (b"RIFF", b"RF64", b"fLaC", b"OggS"):
        yield
        return
    try:
        c = ctypes.CDLL(None)
        stream = ctypes.c_void_p.in_dll(c, "stderr")
    except (OSError, TypeError, ValueError):  # the C library of another system
        yield
        return
    c.fopen.restype, c.fclose.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    with _mpg123:
        original, sink = stream.value, c.fopen(b"/dev/null", b"w")
        stream.value = sink or original
        try:
            yield
        finally:
            stream.value = original
            if sink:
                c.fclose(sink)
