"""A training loop of your own around a pre-trained encoder: here, a regression of text length on the [CLS] vector.

    python -m examples.training_loop runs/demo/pretrain texts.txt --steps=20

`Bert.module` is the Flax module and `Bert.params` its parameters, so anything in JAX that takes a function and a tree of arrays can use
them. To train a new kind of task with packing, checkpoints and resumption instead, see the tasks in bert_jax/tasks.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import bert_jax

flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
flags.add_argument("model", help="the directory of a pre-trained model")
flags.add_argument("texts", type=Path, help="a file with one text per line")
flags.add_argument("--steps", type=int, default=200, help="training steps (default: %(default)s)")
flags.add_argument("--length", type=int, default=64, help="tokens per text, at which longer ones are truncated (default: %(default)s)")


def rows(bert: Any, texts: list[str], length: int) -> dict[str, np.ndarray]:
    """A row per text: [CLS] text [SEP] padding."""
    fields = {name: np.zeros((len(texts), length), np.int32) for name in ("tokens", "example_ids", "positions", "segments")}
    for row, text in enumerate(texts):
        ids = [bert.tokenizer.cls_id, *bert.tokenizer.encode(text).ids[: length - 2], bert.tokenizer.sep_id]
        fields["tokens"][row, : len(ids)] = ids
        fields["example_ids"][row, : len(ids)] = 1  # 0 is padding
        fields["positions"][row, : len(ids)] = np.arange(len(ids))
    return fields


if __name__ == "__main__":
    given = flags.parse_args()
    bert = bert_jax.load(given.model)
    texts = [line for line in given.texts.read_text(encoding="utf-8").splitlines() if line.strip()]
    batch, targets = rows(bert, texts, given.length), jnp.array([len(text) / 10 for text in texts], jnp.float32)
    params = {"encoder": bert.params, "head": jnp.zeros(bert.config.width, jnp.float32)}
    optimizer = optax.adamw(1e-4)

    def loss(params: Any) -> jax.Array:
        """The mean squared error."""
        hidden, _ = bert.module.apply({"params": params["encoder"]}, batch, method="encode")  # [B, L, D]
        return jnp.square(hidden[:, 0] @ params["head"] - targets).mean()

    @jax.jit
    def step(params: Any, state: Any) -> tuple[Any, Any, jax.Array]:
        """One update: the new parameters and optimizer state, and the loss before it."""
        value, gradients = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    state = optimizer.init(params)
    for number in range(given.steps):
        params, state, value = step(params, state)
        if number % 10 == 0 or number == given.steps - 1:
            print(f"step {number + 1}  loss {value:.4f}")
