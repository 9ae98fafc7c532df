"""Batches for examples that belong together: the texts of a pair are examples of their own, but always in the same batch.

Every batch of an epoch has the same number of groups, give or take one, and about the same lengths, so that a fixed number of rows holds
each of them and no group lacks others to be compared with.
"""

from collections.abc import Sequence

import numpy as np

from bert_jax.data.packing import Placement, pack
from bert_jax.errors import InputError


def fewest_batches(lengths: np.ndarray, together: int, length: int, per_row: int, batch_size: int, seeds: Sequence[Sequence[int]]) -> int:
    """Return the smallest number of batches per epoch that `place` can fill, whichever of the seeds it gets.

    Args:
        lengths: [n] number of tokens in each example, at most `length`.
        together: how many consecutive examples belong together.
        length: tokens per row.
        per_row: maximum number of examples per row.
        batch_size: rows per batch.
        seeds: of the epochs.

    Raises:
        InputError: a batch would hold one group only, which leaves nothing to compare it with.
    """
    groups = len(lengths) // together
    batches = -(-pack(lengths, length, per_row).count // batch_size)
    while 2 * batches <= groups:
        if all(place(lengths, together, length, per_row, batch_size, batches, seed) is not None for seed in seeds):
            return batches
        batches += 1
    if groups < 2:
        what = "a split has only one: add examples, or raise finetune.data.dev_fraction if dev is held out"
    else:
        rows = f"{batch_size} row{'s' * (batch_size != 1)}"
        what = f"a batch of {rows} holds only one: raise finetune.batch_size, or for short texts finetune.examples_per_row"
    raise InputError(f"Each example is compared with the others in its batch, but {what}.")


def place(
    lengths: np.ndarray, together: int, length: int, per_row: int, batch_size: int, batches: int, seed: Sequence[int]
) -> Placement | None:
    """Return a place for every example, a group's in the rows of one batch; None if a batch would need more rows than `batch_size`.

    Batch i has the rows from i * batch_size. Arguments as in `fewest_batches`.
    """
    rng = np.random.default_rng(seed)
    batch_of = np.repeat(_deal(lengths.reshape(-1, together).sum(1), batches, rng), together)
    rows, slots, offsets = (np.zeros(len(lengths), np.int64) for _ in range(3))
    by_batch = np.split(np.argsort(batch_of, kind="stable"), np.cumsum(np.bincount(batch_of, minlength=batches))[:-1])
    for batch, members in enumerate(by_batch):
        packed = pack(lengths[members], length, per_row)
        if packed.count > batch_size:
            return None
        rows[members] = batch * batch_size + rng.permutation(batch_size)[packed.rows]
        slots[members], offsets[members] = packed.slots, packed.offsets
    return Placement(rows, slots, offsets, batches * batch_size)


def _deal(sizes: np.ndarray, batches: int, rng: np.random.Generator) -> np.ndarray:
    """Return the batch of each group, int64 [n]: like cards sorted by size, one to every batch in each round."""
    order = rng.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    # Groups of the same round never meet. Shifted rounds let neighbors in size meet in another epoch.
    order = np.roll(order, rng.integers(batches))
    rounds = [rng.permutation(batches) for _ in range(-(-len(sizes) // batches))]
    found = np.empty(len(sizes), np.int64)
    found[order] = np.concatenate(rounds)[: len(sizes)]
    return found
