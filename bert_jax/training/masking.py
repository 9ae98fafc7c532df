"""Dynamic masking on the device: which tokens are covered, and with what.

The corruption is a pure function of a key, drawn inside the compiled step, so masks never repeat between epochs and a
resumed run draws the same ones.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bert_jax.config import MaskingConfig


class MaskedTokens(NamedTuple):
    """A corrupted batch of rows with M slots each for what must be restored."""

    tokens: jax.Array
    """int32 [B, L], corrupted."""
    positions: jax.Array
    """int32 [B, M], where a token was chosen."""
    labels: jax.Array
    """int32 [B, M], the token that stood there."""
    weights: jax.Array
    """float32 [B, M], 0 for an unused slot."""


# Tokens by which the last whole word of a row may overrun the share.
_WORD_OVERRUN = 8


def masked_slots(length: int, config: MaskingConfig) -> int:
    """M: the most tokens that a row of this length may have covered."""
    return min(length, math.ceil(length * config.rate) + (_WORD_OVERRUN if config.whole_words else 0))


def mask_tokens(
    key: jax.Array,
    tokens: jax.Array,
    word_starts: jax.Array,
    special_ids: tuple[int, ...],
    mask_id: int,
    ordinary_ids: jax.Array,
    config: MaskingConfig,
) -> MaskedTokens:
    """Chooses tokens of each row and covers them (Devlin et al. 2019, section 3.1).

    A share `rate` of a row's ordinary tokens is chosen, rounded, at least one; of these `mask_share` become [MASK],
    `random_share` a random ordinary token, and the rest stay. With whole words, words are taken in a random order, and
    the one on the border comes in with the probability that keeps the expected share; each token draws its own fate.

    Args:
        key: the only source of randomness.
        tokens, word_starts: int32 and bool [B, L].
        special_ids: tokens that are never chosen, padding among them.
        mask_id: the id of [MASK].
        ordinary_ids: int32 [O], the tokens that a random replacement is drawn from.
    """
    choose_key, kind_key, random_key = jax.random.split(key, 3)
    candidates = jnp.all(jnp.stack([tokens != jnp.int32(i) for i in special_ids]), axis=0)
    count = candidates.sum(-1, dtype=jnp.int32)
    wanted = jnp.maximum(jnp.round(count.astype(jnp.float32) * config.rate), 1).astype(jnp.int32)
    wanted = jnp.where(count > 0, wanted, 0)
    slots = masked_slots(tokens.shape[1], config)

    choose = _choose_words if config.whole_words else _choose_tokens
    positions, chosen = choose(choose_key, candidates, word_starts, wanted, slots)
    labels = jnp.take_along_axis(tokens, positions, axis=1)

    kind = jax.random.uniform(kind_key, positions.shape)
    random_tokens = ordinary_ids[jax.random.randint(random_key, positions.shape, 0, ordinary_ids.shape[0])]
    written = jnp.where(kind < config.mask_share, jnp.int32(mask_id), labels)
    is_random = (kind >= config.mask_share) & (kind < config.mask_share + config.random_share)
    written = jnp.where(is_random, random_tokens, written)
    # An unused slot points outside the row, where the scatter drops it.
    target = jnp.where(chosen, positions, tokens.shape[1])
    rows = jnp.arange(tokens.shape[0])[:, None]
    corrupted = tokens.at[rows, target].set(written, mode="drop")
    return MaskedTokens(corrupted, positions, labels, chosen.astype(jnp.float32))


def _choose_tokens(
    key: jax.Array, candidates: jax.Array, word_starts: jax.Array, wanted: jax.Array, slots: int
) -> tuple[jax.Array, jax.Array]:
    """Positions int32 [B, M] of the tokens with the largest random draws, and which of the slots are used."""
    del word_starts
    draws = jnp.where(candidates, jax.random.uniform(key, candidates.shape), -1.0)
    _, positions = jax.lax.top_k(draws, slots)
    return positions, jnp.arange(slots, dtype=jnp.int32)[None] < wanted[:, None]


def _choose_words(
    key: jax.Array, candidates: jax.Array, word_starts: jax.Array, wanted: jax.Array, slots: int
) -> tuple[jax.Array, jax.Array]:
    """The same by whole words: the tokens of a word are chosen together or not at all."""
    length = candidates.shape[1]
    draw_key, last_key = jax.random.split(key)
    place = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), candidates.shape)
    # A special token stands alone: it ends the word before it and is never chosen.
    starts = word_starts | ~candidates | jnp.pad(~candidates, ((0, 0), (1, 0)), constant_values=True)[:, :-1]
    word_start = jax.lax.cummax(jnp.where(starts, place, 0), axis=1)
    next_start = jax.lax.cummin(jnp.where(starts, place, length), axis=1, reverse=True)
    word_end = jnp.concatenate([next_start[:, 1:], jnp.full_like(place[:, :1], length)], axis=1)

    draws = jnp.take_along_axis(jax.random.uniform(draw_key, candidates.shape), word_start, axis=1)
    draws = jnp.where(candidates, draws, 2.0)
    # Sorting by the word's draw, ties by place, puts the words in random order with their tokens side by side.
    _, positions, word_start, word_end, real = jax.lax.sort(
        (draws, place, word_start, word_end, candidates.astype(jnp.int32)), dimension=1, num_keys=2
    )
    size = word_end - word_start
    rank = place - (positions - word_start)
    fits = rank + size <= wanted[:, None]
    # The word on the border comes in with the probability that keeps the expected share at the rate.
    room = (wanted[:, None] - rank).astype(jnp.float32) / size.astype(jnp.float32)
    lucky = jax.random.uniform(last_key, (candidates.shape[0], 1)) < room
    chosen = (fits | (lucky & (rank + size <= slots))) & (real > 0)
    return positions[:, :slots], chosen[:, :slots]
