"""Names and layouts of Hugging Face's `BertForPreTraining` <-> the parameters of `PretrainingModel`.

Linear weights are [out, in] there and [in, out] here; layers are separate there and stacked here. The next-sentence
classes are swapped: Hugging Face's class 0 is "B follows A", here class 1 is.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

_LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "feed_forward": "intermediate.dense",
    "feed_forward_output": "output.dense",
    "feed_forward_norm": "output.LayerNorm",
}


def _linear(tensors: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return {"kernel": tensors[f"{name}.weight"].T, "bias": tensors[f"{name}.bias"]}


def _norm(tensors: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return {"scale": tensors[f"{name}.weight"], "bias": tensors[f"{name}.bias"]}


def pretraining_parameters(tensors: Mapping[str, np.ndarray], layers: int) -> dict[str, Any]:
    """The parameter tree of a `PretrainingModel` from a `BertForPreTraining` state dict of numpy arrays.

    Raises:
        KeyError: a tensor is missing; the key is its name.
    """

    def layer(index: int) -> dict[str, Any]:
        prefix = f"bert.encoder.layer.{index}"
        return {ours: (_norm if ours.endswith("norm") else _linear)(tensors, f"{prefix}.{theirs}") for ours, theirs in _LAYER.items()}

    each = [layer(index) for index in range(layers)]
    stacked = {name: {leaf: np.stack([one[name][leaf] for one in each]) for leaf in each[0][name]} for name in _LAYER}
    next_sentence = _linear(tensors, "cls.seq_relationship")
    return {
        "embeddings": {
            "tokens": tensors["bert.embeddings.word_embeddings.weight"],
            "positions": tensors["bert.embeddings.position_embeddings.weight"],
            "segments": tensors["bert.embeddings.token_type_embeddings.weight"],
            "norm": _norm(tensors, "bert.embeddings.LayerNorm"),
        },
        "encoder": {"layers": stacked},
        "pooler": {"dense": _linear(tensors, "bert.pooler.dense")},
        "masked_token": {
            "dense": _linear(tensors, "cls.predictions.transform.dense"),
            "norm": _norm(tensors, "cls.predictions.transform.LayerNorm"),
            "bias": tensors["cls.predictions.bias"],
        },
        "next_sentence": {"dense": {name: value[..., ::-1] for name, value in next_sentence.items()}},
    }
