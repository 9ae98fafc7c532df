"""What is done with a run in a bucket: verified, loaded, exported, and all again when a byte of it is another."""

import json
import sys
from pathlib import Path
from typing import Any

import bert_jax
from bert_jax.convert.exports import export_model
from bert_jax.errors import InputError
from bert_jax.model import directory as model_directory
from bert_jax.stages.verify import verify
from bert_jax.storage.files import resolve_path, sizes_below
from bert_jax.training.checkpoints.saving import Checkpoints

RUN = "gs://bucket/run"


found: dict[str, Any] = {"whole": verify(resolve_path(RUN))}
found["predictions"] = [len(mask) for mask in bert_jax.load(f"{RUN}/pretrain").fill_mask("很[MASK]", top_k=3)]
found["labels"] = list(bert_jax.load("gs://bucket/classifier/finetune").classify("很好").probabilities)
stage = resolve_path(f"{RUN}/pretrain")
export_model(stage, Path(sys.argv[1]))

sizes = sizes_below(stage / "checkpoints" / "4" / "params")
largest = max(sizes, key=lambda path: sizes[path])
content = bytearray(largest.read_bytes())
content[-1] ^= 1
largest.write_bytes(bytes(content))
found |= {"flipped": str(largest), "damaged": verify(resolve_path(RUN))[0]}
try:
    bert_jax.load(stage)
except InputError as error:
    found["refused"] = str(error)
checkpoints = Checkpoints(stage / "checkpoints", keep=2, model=model_directory.identity(*model_directory.read(stage)))
found |= {"latest": checkpoints.latest, "aside": sorted({path.name for path in (stage / "checkpoints").iterdir()})}
checkpoints.close()
print(json.dumps(found))
