"""Speaks with eSpeak NG. A program of its own, which `bert_jax.modalities.audio.demo` starts, and which imports nothing of bert_jax.

    python espeak.py LIBRARY DATA < utterances.jsonl > samples

Each input line is a JSON list: the voice, words per minute, pitch (0 to 100), pitch range (0 to 100), the text. For each line, the
output has the number of samples, int32, and the samples, int16, both little-endian. The sample rate is 22,050 Hz.

The library keeps state that a new initialization does not clear, so a text sounds slightly different depending on what was spoken
before it. Only a new process gives the same samples every time; it also protects the caller from a crash of the library.
"""

import array
import ctypes
import json
import sys

SAMPLE_RATE = 22_050
# From espeak-ng/speak_lib.h.
_SYNCHRONOUS, _DO_NOT_EXIT, _UTF8 = 2, 0x8000, 1
_RATE, _PITCH, _RANGE = 1, 3, 4


def main(library_path: str, data_path: str) -> None:
    """Speak the utterances on standard input."""
    library = ctypes.CDLL(library_path)
    library.espeak_Synth.argtypes = [
        ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p,
    ]  # fmt: skip
    library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, data_path.encode(), _DO_NOT_EXIT)
    if rate != SAMPLE_RATE:
        sys.exit(f"eSpeak NG did not start with the data in {data_path} (result {rate})")
    samples = array.array("h")

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    def collect(wave: "ctypes._Pointer[ctypes.c_short]", count: int, events: int) -> int:
        if wave and count:
            samples.frombytes(ctypes.string_at(wave, 2 * count))
        return 0

    library.espeak_SetSynthCallback(collect)
    library.espeak_ng_SetRandSeed(1)
    for line in sys.stdin:
        voice, speed, pitch, pitch_range, text = json.loads(line)
        if library.espeak_SetVoiceByName(voice.encode()):
            sys.exit(f"eSpeak NG has no voice {voice}")
        for parameter, value in ((_RATE, speed), (_PITCH, pitch), (_RANGE, pitch_range)):
            library.espeak_SetParameter(parameter, value, 0)
        del samples[:]
        content = text.encode() + b"\0"
        library.espeak_Synth(content, len(content), 0, 0, 0, _UTF8, None, None)
        if sys.byteorder == "big":
            samples.byteswap()
        sys.stdout.buffer.write(len(samples).to_bytes(4, "little") + samples.tobytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
