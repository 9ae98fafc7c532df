import io
from dataclasses import dataclass
import numpy as np
from bert_jax.data.reader import Grid, Units
from bert_jax.modalities.media.extractor import Extractor, Unreadable
@dataclass(frozen=True)
class Patches(Extractor):
    size: int = 32
    patch: int = 4
    color: bool = True
    block: int = 2
    noun = "image"; suffixes = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"); halves = True; dimensions = 3
    @property
    def units(self): return Units(np.uint8, self.patch**2 * (3 if self.color else 1))
    @property
    def grid(self): return Grid(self.size // self.patch, self.block)
    def extract(self, content):
        if isinstance(content, bytes):
            from PIL import Image
            try: content = np.asarray(Image.open(io.BytesIO(content)).convert("RGB" if self.color else "L"))
            except Exception as e: raise Unreadable(f"is not an image ({e})")
        x = content if content.ndim == 3 else content[:, :, None]
        p = self.patch; g = self.size // p
        x = x.reshape(g, p, g, p, -1).swapaxes(1, 2).reshape(g, g, -1)
        c = self.grid.cells()
        return np.ascontiguousarray(x[c[:, 0], c[:, 1]])
    def word_starts(self, count): return np.arange(count) % self.block**2 == 0
    def parts(self, count): return np.array([0, count // 2], np.int32)
    def region(self, content, fragment): raise Unreadable("no")
    def picture(self, units, tint=None):
        p = self.patch; g = self.size // p
        u = np.nan_to_num(units.astype(np.float32), nan=128).clip(0, 255).astype(np.uint8)
        out = np.zeros((g, g, p, p, 3), np.uint8); c = self.grid.cells()
        out[c[:, 0], c[:, 1]] = np.broadcast_to(u.reshape(len(u), p, p, -1), (len(u), p, p, 3))
        return out.swapaxes(1, 2).reshape(g * p, g * p, 3)
    def tile(self, unit):
        return np.broadcast_to(np.nan_to_num(unit).clip(0,255).astype(np.uint8).reshape(self.patch, self.patch, -1), (self.patch, self.patch, 3))
    def measure(self, content): return {}
