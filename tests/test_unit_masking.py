"""How units are masked: as tokens are, except that a random token brings the unit that it stands for."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from test_masking import chosen, packed_rows, words_of
from tiny import CLS, MASK, ORDINARY_IDS, PAD, SEP, SPECIAL_IDS

from bert_jax.config import MaskingConfig
from bert_jax.training.masking import MaskedTokens, mask_tokens, masked_slots

ROWS, LENGTH = 256, 128
PUBLISHED = MaskingConfig()
RANDOM = MaskingConfig(rate=0.3, mask_share=0.0, random_share=1.0)


def units_of(shape: tuple[int, ...]) -> np.ndarray:
    """uint8 [B, L, 2]: the row and the column that a unit comes from."""
    return np.stack(np.indices(shape), -1).astype(np.uint8)


@partial(jax.jit, static_argnames="config")
def _mask(seed: jax.Array, tokens: jax.Array, word_starts: jax.Array, units: jax.Array, config: MaskingConfig) -> MaskedTokens:
    ordinary = jnp.array(ORDINARY_IDS, jnp.int32)
    return mask_tokens(jax.random.key(seed), tokens, word_starts, SPECIAL_IDS, MASK, ordinary, config, units)


def mask(tokens: np.ndarray, starts: np.ndarray | None = None, config: MaskingConfig = PUBLISHED, seed: int = 0) -> MaskedTokens:
    starts = np.ones(tokens.shape, bool) if starts is None else starts
    masked = _mask(np.int32(seed), tokens, starts, units_of(tokens.shape), config)
    return MaskedTokens(*map(np.asarray, masked))


def sources(masked: MaskedTokens) -> tuple[np.ndarray, np.ndarray]:
    """The row and the column that each unit comes from, [B, L] each."""
    assert masked.units is not None and masked.units.dtype == np.uint8
    return masked.units[..., 0].astype(int), masked.units[..., 1].astype(int)


def foreign(masked: MaskedTokens) -> np.ndarray:
    """bool [B, L]: which units come from another place."""
    rows, columns = sources(masked)
    here = np.indices(rows.shape)
    return (rows != here[0]) | (columns != here[1])


def check_exchange(tokens: np.ndarray, masked: MaskedTokens) -> np.ndarray:
    """What holds for any batch; returns which units come from another place."""
    rows, columns = sources(masked)
    moved, there = foreign(masked), chosen(masked)
    assert not (moved & ~there).any(), "only chosen units change"
    assert not moved[masked.tokens == MASK].any()
    assert np.isin(tokens[rows, columns][moved], ORDINARY_IDS).all()
    assert (masked.tokens[moved] == tokens[rows, columns][moved]).all(), "a unit brings its own code"
    assert (masked.tokens[~there] == tokens[~there]).all()
    assert not there[np.isin(tokens, SPECIAL_IDS)].any()
    used = masked.weights > 0
    assert (masked.labels == np.take_along_axis(tokens, masked.positions, 1))[used].all()
    return moved


@pytest.fixture(scope="module")
def packed() -> tuple[np.ndarray, MaskedTokens]:
    tokens = packed_rows(ROWS)
    return tokens, mask(tokens)


def test_shares_are_those_of_text(packed: tuple[np.ndarray, MaskedTokens]) -> None:
    tokens, masked = packed
    moved, there = check_exchange(tokens, masked), chosen(masked)
    ordinary = np.isin(tokens, ORDINARY_IDS).sum(1)
    assert (masked.weights.sum(1) == np.maximum(1, np.round(ordinary * 0.15))).all()
    kept = there & ~moved & (masked.tokens != MASK)
    counts = [int(kind.sum()) for kind in (there & (masked.tokens == MASK), moved, kept)]
    assert sum(counts) == there.sum() > 3000
    assert stats.chisquare(counts, there.sum() * np.array([0.8, 0.1, 0.1])).pvalue > 1e-3
    assert (masked.tokens[kept] == tokens[kept]).all()


def test_the_same_tokens_are_chosen_and_masked_as_without_units(packed: tuple[np.ndarray, MaskedTokens]) -> None:
    tokens, masked = packed
    ordinary = jnp.array(ORDINARY_IDS, jnp.int32)
    plain = mask_tokens(jax.random.key(0), jnp.asarray(tokens), jnp.ones(tokens.shape, bool), SPECIAL_IDS, MASK, ordinary, PUBLISHED)
    assert plain.units is None
    assert all((np.asarray(getattr(plain, name)) == getattr(masked, name)).all() for name in ("positions", "labels", "weights"))
    assert ((np.asarray(plain.tokens) == MASK) == (masked.tokens == MASK)).all()


def test_two_steps_differ_and_a_step_repeats() -> None:
    tokens = packed_rows(ROWS)
    one, same, other = (mask(tokens, config=RANDOM, seed=seed) for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(one, same, strict=True))
    assert 0.2 < (chosen(one) & chosen(other)).sum() / chosen(one).sum() < 0.4
    both = chosen(one) & chosen(other)
    assert (sources(one)[1][both] == sources(other)[1][both]).mean() < 0.05


def test_random_units_come_from_anywhere_in_the_other_rows_of_a_group() -> None:
    tokens = np.random.default_rng(0).choice(ORDINARY_IDS, (ROWS, LENGTH)).astype(np.int32)
    masked = mask(tokens, config=RANDOM)
    moved = check_exchange(tokens, masked)
    assert (moved == chosen(masked)).all(), "all are random"
    rows, columns = sources(masked)
    own = np.indices(rows.shape)[0]
    assert (rows // 8 == own // 8).all()
    distance = ((rows - own) % 8)[moved]
    assert stats.chisquare(np.bincount(distance, minlength=8)[1:]).pvalue > 1e-3 and not (distance == 0).any()
    assert stats.chisquare(np.bincount(columns[moved], minlength=LENGTH)).pvalue > 1e-3


def test_each_group_and_each_slot_draws_its_own() -> None:
    masked = mask(np.full((ROWS, LENGTH), ORDINARY_IDS[0], np.int32), config=RANDOM)
    drawn = np.take_along_axis(sources(masked)[1], masked.positions, 1)[masked.weights > 0].reshape(ROWS // 8, 8, -1)
    assert (drawn[:1] == drawn[1:]).mean() < 0.02
    assert (drawn[:, :1] == drawn[:, 1:]).mean() < 0.02
    assert (drawn[..., :1] == drawn[..., 1:]).mean() < 0.02


def test_blocks_are_masked_together() -> None:
    tokens = np.random.default_rng(0).choice(ORDINARY_IDS, (ROWS, LENGTH)).astype(np.int32)
    tokens[:, 0], tokens[:, 65], tokens[:, 66:] = CLS, SEP, PAD
    starts = np.zeros(tokens.shape, bool)
    starts[:, 1:65:4] = True
    masked = mask(tokens, starts, MaskingConfig(rate=0.4, whole_words=True))
    check_exchange(tokens, masked)
    blocks = chosen(masked)[:, 1:65].reshape(ROWS, 16, 4)
    assert (blocks.all(-1) == blocks.any(-1)).all()
    assert blocks.mean() == pytest.approx(0.4, abs=0.01)
    assert all(len(words) == 16 for words in words_of(tokens, starts))
    # Each unit of a block draws its own kind.
    covered = (masked.tokens == MASK)[:, 1:65].reshape(ROWS, 16, 4)[blocks.any(-1)]
    assert stats.binomtest(int(covered.sum()), covered.size, 0.8).pvalue > 1e-3


def test_rows_without_ordinary_units() -> None:
    """They choose nothing and give nothing: a unit that would come from them stays where it is, with its code."""
    tokens = np.full((ROWS, LENGTH), PAD, np.int32)
    full = np.random.default_rng(0).choice(ORDINARY_IDS, (ROWS, LENGTH)).astype(np.int32)
    tokens[::8] = full[::8]  # one row of each group has units
    tokens[1::8, :2] = CLS, SEP
    tokens[2::16, :3] = CLS, 7, SEP  # and in half of the groups, another row has one
    masked = mask(tokens, config=RANDOM)
    moved = check_exchange(tokens, masked)
    assert masked.weights.sum(1)[:4].tolist() == [round(LENGTH * 0.3), 0, 1, 0]
    alone = np.arange(ROWS) % 16 == 8
    assert not moved[alone].any()
    rows, columns = sources(masked)
    given = moved[::16]
    assert given.any() and not given.all()
    assert (rows[::16] == np.arange(0, ROWS, 16)[:, None] + 2)[given].all() and (columns[::16][given] == 1).all()


@pytest.mark.parametrize("rows", [1, 3, 6, 16])
def test_batches_of_any_size(rows: int) -> None:
    tokens = packed_rows(rows)
    masked = mask(tokens, config=RANDOM)
    moved = check_exchange(tokens, masked)
    assert masked.weights.shape == (rows, masked_slots(LENGTH, RANDOM))
    assert moved.any()
    own, group = np.indices(tokens.shape)[0], {1: 1, 3: 1, 6: 2, 16: 8}[rows]
    source = sources(masked)[0]
    assert (source // group == own // group)[moved].all()
    assert group == 1 or (source != own)[moved].all(), "another row, where there is one"


def test_units_keep_their_type() -> None:
    tokens = packed_rows(8)
    units = np.random.default_rng(0).standard_normal((*tokens.shape, 3)).astype(np.float16)
    masked = _mask(np.int32(0), tokens, np.ones(tokens.shape, bool), units, RANDOM)
    assert masked.units is not None and masked.units.dtype == jnp.float16
    there = chosen(MaskedTokens(*map(np.asarray, masked)))
    found = np.asarray(masked.units)
    assert (found[~there] == units[~there]).all() and (found[there] != units[there]).any(-1).mean() > 0.9
