"""PyTorch loops that pre-train on images by masked prediction, over transformers' ViT; prints their speed as JSON.

    pip install -r benchmarks/requirements.txt
    python benchmarks/torch_images.py --images=cifar10/train --loop=plain

`plain` is the loop of most tutorials over `ViTForMaskedImageModeling`: a DataLoader over decoded images, a random mask per image, and
normalization in the loop. Its decoder predicts the pixels at every position, and the loss is the mean absolute error at the masked
ones. bert_jax predicts codes at the masked positions only. `codes` does that too, as fast as PyTorch can: equal work is the same number of
patches, of masked patches and of codes, one pass of an encoder of the same size over every patch and [CLS], and the same optimizer. Its
batches lie in memory, masked beforehand, and torch.compile and AdamW's fused kernel may be used. What still differs does not change the
work much: ViT normalizes before its layers and BERT after them, and bert_jax adds one or two [SEP] per image. The codes are random,
because the time of a step does not depend on them.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import checkout  # noqa: F401
import numpy as np
import torch
from PIL import Image
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from torch_pretraining import DEVICE, Loop
from transformers import ViTConfig, ViTForMaskedImageModeling

from bert_jax.config import OptimizerConfig
from bert_jax.training.host_memory import tune_malloc

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the channels in ImageNet, with which ViT's image processors normalize."""
Batch = dict[str, torch.Tensor]


class Images(Dataset[torch.Tensor]):
    """The images of a folder, decoded, resized and kept in memory: uint8 [3, size, size] each."""

    def __init__(self, folder: Path, size: int, limit: int) -> None:
        found = islice((path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES), limit or None)
        pixels = [np.asarray(Image.open(path).convert("RGB").resize((size, size))) for path in found]
        if not pixels:
            raise SystemExit(f"{folder} contains no images.")
        self.pixels = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.pixels[index]


class ImageLoop(Loop):
    """What the two loops share: the model, normalization and masks."""

    def __init__(self, config: ViTConfig, optimizer: OptimizerConfig, dtype: str, mask_share: float, fused: bool) -> None:
        torch.manual_seed(0)
        super().__init__(self.build(config), optimizer, dtype, fused)
        self.patches = (config.image_size // config.patch_size) ** 2
        self.masked = round(mask_share * self.patches)
        self.mean, self.deviation = (torch.tensor(each, device=DEVICE)[:, None, None] for each in (MEAN, DEVIATION))

    def build(self, config: ViTConfig) -> torch.nn.Module:
        return ViTForMaskedImageModeling(config)

    def normalized(self, pixels: torch.Tensor) -> torch.Tensor:
        """Images uint8 [B, 3, H, W] as the model reads them, float32."""
        return (pixels.float() / 255 - self.mean) / self.deviation

    def positions(self, images: int) -> torch.Tensor:
        """Which patches to mask, the same number in each image: int64 [B, M]."""
        return torch.rand(images, self.patches).topk(self.masked).indices

    def mask(self, positions: torch.Tensor) -> torch.Tensor:
        """The same as bool [B, patches]."""
        return torch.zeros(len(positions), self.patches, dtype=torch.bool).scatter_(1, positions, True)


class PlainLoop(ImageLoop):
    """Pixels predicted at all positions, batches from a DataLoader, masked when they are read, AdamW."""

    def __init__(self, config: ViTConfig, optimizer: OptimizerConfig, dtype: str, mask_share: float) -> None:
        super().__init__(config, optimizer, dtype, mask_share, fused=False)

    def batches(self, images: Images, batch_size: int, workers: int) -> Iterator[torch.Tensor]:
        """Shuffled batches without end."""
        loader = DataLoader(images, batch_size, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0)
        while True:
            yield from loader

    def step(self, pixels: torch.Tensor) -> float:
        """One step on images uint8 [B, 3, H, W]."""
        mask = self.mask(self.positions(len(pixels))).to(DEVICE)
        with self.precision:
            output = self.model(self.normalized(pixels.to(DEVICE)), bool_masked_pos=mask)
        return self.update(output.loss).item()


class CodeLoop(ImageLoop):
    """Codes predicted at masked positions, masked batches in memory, fused AdamW."""

    def __init__(self, config: ViTConfig, optimizer: OptimizerConfig, dtype: str, mask_share: float, codes: int, compiled: bool) -> None:
        self.codes = codes
        super().__init__(config, optimizer, dtype, mask_share, fused=True)
        self._loss = torch.compile(self._compute) if compiled else self._compute

    def build(self, config: ViTConfig) -> torch.nn.Module:
        """ViT with BERT's head for masked tokens, without its tie to a token table."""
        model, width = ViTForMaskedImageModeling(config), config.hidden_size
        norm = torch.nn.LayerNorm(width, config.layer_norm_eps)
        model.decoder = torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.GELU(), norm, torch.nn.Linear(width, self.codes))
        return model

    def batches(self, images: Images, batch_size: int, workers: int) -> Iterator[Batch]:
        """A few masked batches, over and over."""
        order = torch.randperm(len(images))[: 8 * batch_size].split(batch_size)
        return cycle([self._masked(images.pixels[chosen]) for chosen in order if len(chosen) == batch_size])

    def _masked(self, pixels: torch.Tensor) -> Batch:
        positions = self.positions(len(pixels))
        return {
            "pixels": pixels,
            "positions": positions,
            "mask": self.mask(positions),
            "labels": torch.randint(self.codes, positions.shape),
        }

    def step(self, batch: Batch) -> float:
        """One step on a masked batch."""
        with self.precision:
            loss = self._loss({name: field.to(DEVICE) for name, field in batch.items()})
        return self.update(loss).item()

    def _compute(self, batch: Batch) -> torch.Tensor:
        pixels = self.normalized(batch["pixels"])
        hidden = self.model.vit(pixels, bool_masked_pos=batch["mask"]).last_hidden_state[:, 1:]  # without [CLS]
        rows = torch.arange(len(pixels), device=pixels.device)[:, None]
        scores = self.model.decoder(hidden[rows, batch["positions"]])
        return cross_entropy(scores.flatten(0, 1), batch["labels"].flatten())


def main() -> None:
    """Measure one loop, and print its patches/s as JSON: a list with one rate for each `--log-every` steps."""
    flags = parse()
    tune_malloc()
    optimizer = OptimizerConfig(learning_rate=flags.learning_rate)
    images = Images(flags.images, flags.size, flags.limit)
    loop: PlainLoop | CodeLoop
    if flags.loop == "plain":
        loop = PlainLoop(vit_config(flags), optimizer, flags.dtype, flags.mask_share)
    else:
        loop = CodeLoop(vit_config(flags), optimizer, flags.dtype, flags.mask_share, flags.codes, flags.compile)
    if len(images) < flags.batch_size:
        raise SystemExit(f"{flags.images} has {len(images)} images, fewer than the {flags.batch_size} of a batch.")
    batches = loop.batches(images, flags.batch_size, flags.workers)
    run(loop, batches, flags.warmup)
    rates, losses = [], []
    for _ in range(flags.steps // flags.log_every):
        begun = time.perf_counter()
        losses.append(run(loop, batches, flags.log_every))
        rates.append(flags.log_every * flags.batch_size * loop.patches / (time.perf_counter() - begun))
    json.dump({"patches_per_second": rates, "losses": losses, "threads": torch.get_num_threads(), "workers": flags.workers}, sys.stdout)


def run(loop: PlainLoop | CodeLoop, batches: Iterator[torch.Tensor] | Iterator[Batch], steps: int) -> float | None:
    """Run a number of steps; return the mean loss."""
    losses = [loop.step(batch) for batch in islice(batches, steps)]  # type: ignore[arg-type]
    return sum(losses) / steps if steps else None


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="a folder of images, of any depth")
    parser.add_argument("--limit", type=int, default=10_000, help="images to decode, the first by path; 0 for all")
    parser.add_argument("--loop", default="plain", choices=["plain", "codes"])
    parser.add_argument("--size", type=int, default=32, help="pixels of a side of an image")
    parser.add_argument("--patch", type=int, default=4, help="pixels of a side of a patch")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--width", type=int, default=160)
    parser.add_argument("--heads", type=int, default=5)
    parser.add_argument("--feed-forward", type=int, default=640)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--mask-share", type=float, default=0.5)
    parser.add_argument("--codes", type=int, default=512)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--batch-size", type=int, default=64, help="images per step")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="bfloat16 is autocast")
    parser.add_argument("--workers", type=int, default=0, help="processes of the DataLoader")
    parser.add_argument("--compile", action="store_true", help="torch.compile, for --loop=codes; needs a C++ compiler")
    parser.add_argument("--warmup", type=int, default=20, help="steps before the first timed one")
    parser.add_argument("--steps", type=int, default=200, help="timed steps")
    parser.add_argument("--log-every", type=int, default=20, help="steps per rate")
    return parser.parse_args()


def vit_config(flags: argparse.Namespace) -> ViTConfig:
    return ViTConfig(
        image_size=flags.size,
        patch_size=flags.patch,
        encoder_stride=flags.patch,
        num_hidden_layers=flags.layers,
        hidden_size=flags.width,
        num_attention_heads=flags.heads,
        intermediate_size=flags.feed_forward,
        hidden_dropout_prob=flags.dropout,
        attention_probs_dropout_prob=flags.dropout,
        attn_implementation="sdpa",
    )


if __name__ == "__main__":
    main()
