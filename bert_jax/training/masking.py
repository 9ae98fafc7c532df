"""Dynamic masking on the device.

Masking is a pure function of a random key inside the compiled step, so masks differ between epochs, and a resumed run draws the same
masks.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bert_jax.config import MaskingConfig


class MaskedTokens(NamedTuple):
    """A masked batch with M slots per row for the tokens to predict."""

    tokens: jax.Array
    """int32 [B, L], after masking."""
    positions: jax.Array
    """int32 [B, M], the positions of the chosen tokens."""
    labels: jax.Array
    """int32 [B, M], the original tokens."""
    weights: jax.Array
    """float32 [B, M], 0 for an unused slot."""
    units: jax.Array | None = None
    """[B, L, U], after masking, if the tokens have units."""


# Maximum number of tokens by which the last whole word of a row may exceed the masking rate.
_WORD_OVERRUN = 8
# Random units come from other rows of the same group of rows, so that they need not cross devices.
_GROUP = 8


def masked_slots(length: int, config: MaskingConfig) -> int:
    """Return M, the maximum number of masked tokens in a row of this length."""
    return min(length, math.ceil(length * config.rate) + (_WORD_OVERRUN if config.whole_words else 0))


def mask_tokens(
    key: jax.Array,
    tokens: jax.Array,
    word_starts: jax.Array,
    special_ids: tuple[int, ...],
    mask_id: int,
    ordinary_ids: jax.Array,
    config: MaskingConfig,
    units: jax.Array | None = None,
) -> MaskedTokens:
    """Choose tokens of each row and mask them (Devlin et al. 2019, section 3.1).

    A fraction `rate` of the ordinary tokens in a row is chosen, rounded to a number of at least one. Of these, `mask_share` become
    [MASK], `random_share` become a random ordinary token, and the rest are unchanged, drawn independently for each token. With
    `whole_words`, words are chosen in random order, and the word that would exceed the target is included with the probability that
    preserves the expected rate.

    Tokens with units get the unit and the token of another place of the batch instead of a random token. A unit at [MASK] stays: the
    embedding hides it.

    Args:
        key: the only source of randomness.
        tokens, word_starts: int32 and bool [B, L].
        special_ids: tokens that are never chosen, including padding.
        mask_id: the id of [MASK].
        ordinary_ids: int32 [O], the tokens from which random replacements are drawn.
        units: [B, L, U], the unit of each token, if there are any.
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

    # Unused slots point outside the row, so that the scatters drop them.
    target = jnp.where(chosen, positions, tokens.shape[1])
    rows = jnp.arange(tokens.shape[0])[:, None]

    kind = jax.random.uniform(kind_key, positions.shape)
    is_random = (kind >= config.mask_share) & (kind < config.mask_share + config.random_share)
    if units is None:
        random_tokens = ordinary_ids[jax.random.randint(random_key, positions.shape, 0, ordinary_ids.shape[0])]
    else:
        moved = jnp.where(is_random, target, tokens.shape[1])
        random_tokens, units = _exchange(random_key, tokens, units, candidates, positions, moved)
    written = jnp.where(kind < config.mask_share, jnp.int32(mask_id), labels)
    written = jnp.where(is_random, random_tokens, written)
    corrupted = tokens.at[rows, target].set(written, mode="drop")
    return MaskedTokens(corrupted, positions, labels, chosen.astype(jnp.float32), units)


def _exchange(
    key: jax.Array, tokens: jax.Array, units: jax.Array, candidates: jax.Array, positions: jax.Array, target: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Draw a token of another row for each slot: int32 [B, M]; and move the units of these tokens to `target`: [B, L, U].

    Args:
        candidates: bool [B, L], the tokens that may be drawn. Where the other row has none, a slot keeps its own token.
        positions: int32 [B, M], the token of each slot.
        target: int32 [B, M], where the drawn units go; L discards them.
    """
    count = math.gcd(tokens.shape[0], _GROUP)

    def of_group(key: jax.Array, tokens: jax.Array, units: jax.Array, *others: jax.Array) -> tuple[jax.Array, jax.Array]:
        candidates, positions, target = others
        row_key, column_key = jax.random.split(key)
        own = jnp.arange(count, dtype=jnp.int32)[:, None]
        row = (own + jax.random.randint(row_key, positions.shape, 1, max(2, count))) % count
        available = candidates.sum(-1, dtype=jnp.int32)[row]
        rank = jax.random.uniform(column_key, positions.shape) * available.astype(jnp.float32)
        column = jnp.argsort(~candidates, axis=1, stable=True)[row, rank.astype(jnp.int32)]
        row, column = jnp.where(available > 0, row, own), jnp.where(available > 0, column, positions)
        from_row, from_column = (jnp.broadcast_to(x, tokens.shape) for x in (own, jnp.arange(tokens.shape[1], dtype=jnp.int32)))
        from_row = from_row.at[own, target].set(row, mode="drop")
        from_column = from_column.at[own, target].set(column, mode="drop")
        return tokens[row, column], units[from_row, from_column]

    groups = tokens.shape[0] // count
    arrays = [x.reshape(groups, count, *x.shape[1:]) for x in (tokens, units, candidates, positions, target)]
    drawn, moved = jax.vmap(of_group)(jax.random.split(key, groups), *arrays)
    return drawn.reshape(positions.shape), moved.reshape(units.shape)


def _choose_tokens(
    key: jax.Array, candidates: jax.Array, word_starts: jax.Array, wanted: jax.Array, slots: int
) -> tuple[jax.Array, jax.Array]:
    """Return the positions int32 [B, M] of the tokens with the largest random draws, and a bool [B, M] of used slots."""
    del word_starts
    draws = jnp.where(candidates, jax.random.uniform(key, candidates.shape), -1.0)
    _, positions = jax.lax.top_k(draws, slots)
    return positions, jnp.arange(slots, dtype=jnp.int32)[None] < wanted[:, None]


def _choose_words(
    key: jax.Array, candidates: jax.Array, word_starts: jax.Array, wanted: jax.Array, slots: int
) -> tuple[jax.Array, jax.Array]:
    """Like `_choose_tokens`, but the tokens of a word are chosen together or not at all."""
    length = candidates.shape[1]
    draw_key, last_key = jax.random.split(key)
    index = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), candidates.shape)
    # A special token is a word of its own: it ends the preceding word and is never chosen.
    starts = word_starts | ~candidates | jnp.pad(~candidates, ((0, 0), (1, 0)), constant_values=True)[:, :-1]
    word_start = jax.lax.cummax(jnp.where(starts, index, 0), axis=1)
    next_start = jax.lax.cummin(jnp.where(starts, index, length), axis=1, reverse=True)
    word_end = jnp.concatenate([next_start[:, 1:], jnp.full_like(index[:, :1], length)], axis=1)

    draws = jnp.take_along_axis(jax.random.uniform(draw_key, candidates.shape), word_start, axis=1)
    draws = jnp.where(candidates, draws, 2.0)
    # Sorting by the draw of the word, then by position, puts words in random order and keeps their tokens adjacent.
    _, positions, word_start, word_end, real = jax.lax.sort(
        (draws, index, word_start, word_end, candidates.astype(jnp.int32)), dimension=1, num_keys=2
    )
    size = word_end - word_start
    rank = index - (positions - word_start)
    fits = rank + size <= wanted[:, None]
    # The word that would exceed the target is included with the probability that preserves the expected rate.
    probability = (wanted[:, None] - rank).astype(jnp.float32) / size.astype(jnp.float32)
    included = jax.random.uniform(last_key, (candidates.shape[0], 1)) < probability
    chosen = (fits | (included & (rank + size <= slots))) & (real > 0)
    return positions[:, :slots], chosen[:, :slots]
