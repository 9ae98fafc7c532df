from dataclasses import dataclass

from bert_jax.modalities.media.extractor import Extractor


@dataclass(frozen=True)
class Slices(Extractor):
    rate: int = 16000
    bands: int = 80
    frames: int = 3
    span: int = 4
    part_seconds: float = .5
    noun = "recording"; suffixes = (".wav",)
    units = extract = word_starts = parts = region = picture = measure = tile = None
