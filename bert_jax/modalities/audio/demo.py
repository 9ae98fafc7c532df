"""The demo's recordings: English digits spoken by eSpeak NG. They are synthetic, since no package has real recordings of that kind.

The package `espeakng-loader` contains the synthesizer with its voices, so nothing is downloaded at run time. Fifty voices speak each
digit four times, each time with an accent, speed, pitch and intonation drawn at random, surrounded by pauses of random length and with
noise 5 to 25 dB below the speech. The draws do not depend on the digit.
"""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bert_jax.errors import InputError
from bert_jax.modalities.audio import espeak

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_ACCENTS = ("en", "en-us", "en-us-nyc", "en-029", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd")
_VOICES = {
    "train": (
        "m1", "m2", "m4", "m6", "m8", "f1", "f3", "klatt", "klatt2", "klatt4", "whisper", "croak", "Andy", "Andrea", "Alicia", "Denis",
        "Diogo", "Gene", "Jacky", "Lee", "Marco", "Michael", "aunty", "benjamin", "boris", "caleb", "david", "edward", "iven", "john",
        "max", "miguel", "pablo", "robert", "zac",
    ),
    "dev": ("m5", "f4", "Hugo", "linda", "paul"),
    "test": ("m3", "m7", "f2", "f5", "Annie", "Mario", "Reed", "belinda", "grandpa", "quincy"),
}  # fmt: skip
_SPLITS = {voice: split for split, voices in _VOICES.items() for voice in voices}
_TAKES = 4


class _Take(NamedTuple):
    """How a digit is spoken and recorded."""

    name: str
    digit: int
    accent: str
    voice: str
    speed: int
    pitch: int
    intonation: int
    pauses: tuple[float, float]
    decibels: float


def digits() -> Iterator[tuple[str, tuple[NDArray[np.int16], int], str]]:
    """Yield the name ("en-gb-scotland+m3/7/2": accent, voice, digit, take), (samples, rate in Hz) and label ("7") of 2,000 recordings.

    The samples are the same every time.

    Raises:
        InputError: the package `espeakng-loader` is not installed, or its synthesizer does not run here.
    """
    takes = list(_takes())
    noise = np.random.default_rng(0)
    for take, speech in zip(takes, _speak(takes), strict=True):
        before, after = (np.zeros(round(seconds * espeak.SAMPLE_RATE)) for seconds in take.pauses)
        samples = np.concatenate([before, speech, after])
        level = np.sqrt(np.mean(np.square(speech, dtype=np.float64))) * 10 ** (-take.decibels / 20)
        samples += level * noise.standard_normal(len(samples))
        yield take.name, (np.clip(np.round(samples), -32768, 32767).astype(np.int16), espeak.SAMPLE_RATE), str(take.digit)


def split_of(name: str) -> str:
    """Return the split (train, dev or test) of a recording with the given name; each voice is in one split."""
    return _SPLITS[name.partition("/")[0].partition("+")[2]]


def _takes() -> Iterator[_Take]:
    """Yield how each recording is made."""
    draw = random.Random(0)
    for voice in _SPLITS:
        for take in range(_TAKES):
            for digit in range(len(_WORDS)):
                accent = draw.choice(_ACCENTS)
                speed, pitch, intonation = draw.randint(100, 300), draw.randint(10, 90), draw.randint(10, 90)
                pauses = (draw.uniform(0.02, 0.2), draw.uniform(0.02, 0.2))
                name = f"{accent}+{voice}/{digit}/{take}"
                yield _Take(name, digit, accent, voice, speed, pitch, intonation, pauses, draw.uniform(5, 25))


def _speak(takes: list[_Take]) -> Iterator[NDArray[np.int16]]:
    """Yield the samples of what the synthesizer says, from a process of its own (see `espeak`)."""
    library, data = _synthesizer()
    lines = (json.dumps([f"{take.accent}+{take.voice}", take.speed, take.pitch, take.intonation, _WORDS[take.digit]]) for take in takes)
    command = [sys.executable, "-I", "-S", str(Path(espeak.__file__)), library, data]
    spoken = subprocess.run(command, input="\n".join(lines).encode(), capture_output=True, check=False)
    if spoken.returncode:
        problem = spoken.stderr.decode(errors="replace").strip().rpartition("\n")[2] or f"exit status {spoken.returncode}"
        raise InputError(f"The synthesizer of the package espeakng-loader does not run here: {problem}")
    content, position = spoken.stdout, 0
    while position < len(content):
        stop = position + 4 + 2 * int.from_bytes(content[position : position + 4], "little")
        yield np.frombuffer(content[position + 4 : stop], "<i2")
        position = stop


def _synthesizer() -> tuple[str, str]:
    """Return the paths of the synthesizer's library and of its data."""
    try:
        import espeakng_loader
    except ImportError:
        raise InputError("The demo needs the package espeakng-loader: pip install espeakng-loader") from None
    return espeakng_loader.get_library_path(), espeakng_loader.get_data_path()
