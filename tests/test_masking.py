"""What the masked language model covers: shares, places, words, and nothing else."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from scipy import stats
from tiny import CLS, MASK, ORDINARY_IDS, PAD, SEP, SPECIAL_IDS, UNK

from bert_jax.config import MaskingConfig
from bert_jax.training.losses import classification_metrics
from bert_jax.training.masking import MaskedTokens, mask_tokens, masked_slots

ROWS, LENGTH = 1200, 128  # for nearly all, since every shape is compiled
Mask = Callable[..., MaskedTokens]


@partial(jax.jit, static_argnames="config")
def _mask(seed: jax.Array, tokens: jax.Array, word_starts: jax.Array, config: MaskingConfig) -> MaskedTokens:
    key = jax.random.key(seed)
    return mask_tokens(key, tokens, word_starts, SPECIAL_IDS, MASK, jnp.array(ORDINARY_IDS, jnp.int32), config)


def mask(tokens: np.ndarray, word_starts: np.ndarray | None = None, config: MaskingConfig = tiny.MASKING, seed: int = 0) -> MaskedTokens:
    starts = np.ones(tokens.shape, bool) if word_starts is None else word_starts
    return MaskedTokens(*map(np.asarray, _mask(np.int32(seed), tokens, starts, config)))


def chosen(masked: MaskedTokens) -> np.ndarray:
    """bool [B, L]: which tokens were chosen; also checks that no token was chosen twice and that the rest is as it was."""
    where = np.zeros(masked.tokens.shape, np.int32)
    np.add.at(where, (np.arange(len(where))[:, None], masked.positions), masked.weights.astype(np.int32))
    assert where.max() <= 1
    return where.astype(bool)


def packed_rows(rows: int, seed: int = 0) -> np.ndarray:
    """Rows of two examples, with padding behind them."""
    rng = np.random.default_rng(seed)
    tokens = rng.choice(ORDINARY_IDS, (rows, LENGTH)).astype(np.int32)
    ends = rng.integers(LENGTH // 2, LENGTH + 1, rows)
    for row, end in zip(tokens, ends, strict=True):
        middle = int(rng.integers(4, end - 4))
        row[[0, middle]] = CLS
        row[[2, middle - 1, end - 1]] = SEP
        row[rng.integers(4, middle - 1) if middle > 5 else 1] = UNK
        row[end:] = PAD
    return tokens


@pytest.fixture(scope="module")
def text() -> tuple[np.ndarray, MaskedTokens]:
    """More than 100,000 tokens and what was covered of them."""
    tokens = packed_rows(ROWS)
    assert np.isin(tokens, ORDINARY_IDS).sum() > 100_000
    return tokens, mask(tokens)


def test_fifteen_percent_are_chosen(text: tuple[np.ndarray, MaskedTokens]) -> None:
    tokens, masked = text
    ordinary = np.isin(tokens, ORDINARY_IDS).sum(1)
    assert (masked.weights.sum(1) == np.maximum(1, np.round(ordinary * 0.15))).all()
    assert masked.weights.sum() / ordinary.sum() == pytest.approx(0.15, abs=5e-4)


def test_of_the_chosen_eighty_ten_ten(text: tuple[np.ndarray, MaskedTokens]) -> None:
    tokens, masked = text
    there = chosen(masked)
    written, original = masked.tokens[there], tokens[there]
    counts = [(written == MASK).sum(), ((written != MASK) & (written != original)).sum(), (written == original).sum()]
    same = 0.1 / len(ORDINARY_IDS)  # a random token may be the one that stood there
    assert stats.chisquare(counts, len(written) * np.array([0.8, 0.1 - same, 0.1 + same])).pvalue > 1e-3


def test_special_tokens_and_padding_are_never_chosen_or_written(text: tuple[np.ndarray, MaskedTokens]) -> None:
    tokens, masked = text
    there = chosen(masked)
    assert not there[np.isin(tokens, SPECIAL_IDS)].any()
    assert np.isin(masked.tokens[there], (*ORDINARY_IDS, MASK)).all()
    assert (masked.tokens[~there] == tokens[~there]).all()


def test_labels_are_the_original_tokens(text: tuple[np.ndarray, MaskedTokens]) -> None:
    tokens, masked = text
    used = masked.weights > 0
    assert (masked.labels == np.take_along_axis(tokens, masked.positions, 1))[used].all()
    assert set(np.unique(masked.weights)) == {0.0, 1.0}
    assert ((masked.positions >= 0) & (masked.positions < LENGTH)).all(), "an unused slot still points into the row"


def test_random_tokens_are_uniform_over_the_ordinary_ones() -> None:
    ordinary = np.array(ORDINARY_IDS)
    tokens = np.full((ROWS, LENGTH), ordinary[0], np.int32)
    masked = mask(tokens, config=MaskingConfig(mask_share=0.0, random_share=1.0))
    counts = np.bincount(masked.tokens[chosen(masked)], minlength=tiny.VOCABULARY)
    assert counts[: ordinary[0]].sum() == 0
    assert stats.chisquare(counts[ordinary]).pvalue > 1e-3


def uniform_places(counts: np.ndarray, rows: int, share: float) -> float:
    """p-value of counts per place, of draws without replacement within each of the rows."""
    places = len(counts)
    variance = rows * share * (1 - share) * places / (places - 1)
    return float(stats.chi2.sf(((counts - rows * share) ** 2).sum() / variance, places - 1))


@pytest.mark.parametrize("whole_words", [False, True])
def test_positions_are_uniform(whole_words: bool) -> None:
    tokens = np.random.default_rng(0).choice(ORDINARY_IDS, (ROWS, LENGTH)).astype(np.int32)
    masked = mask(tokens, config=MaskingConfig(whole_words=whole_words))
    assert 1e-3 < uniform_places(chosen(masked).sum(0), ROWS, 19 / LENGTH) < 1 - 1e-3
    # The order of the slots says nothing of the place either.
    first = np.bincount(masked.positions[:, 0], minlength=LENGTH)
    assert stats.chisquare(first).pvalue > 1e-3


def test_kinds_do_not_depend_on_the_place() -> None:
    tokens = np.random.default_rng(0).choice(ORDINARY_IDS, (ROWS, LENGTH)).astype(np.int32)
    masked = mask(tokens)
    there = chosen(masked)
    covered = (masked.tokens == MASK) & there
    halves = [[covered[:, half].sum(), (there & ~covered)[:, half].sum()] for half in (slice(0, 64), slice(64, None))]
    assert stats.chi2_contingency(halves).pvalue > 1e-3


@pytest.mark.parametrize("whole_words", [False, True])
def test_the_key_decides(whole_words: bool) -> None:
    tokens, config = packed_rows(ROWS), MaskingConfig(whole_words=whole_words)
    one, same, other = (mask(tokens, config=config, seed=seed) for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(one, same, strict=True))
    # Two draws of 15% meet by chance only.
    both = (chosen(one) & chosen(other)).sum() / chosen(one).sum()
    assert 0.1 < both < 0.2


def test_shares_other_than_the_published_ones() -> None:
    tokens = np.random.default_rng(0).choice(ORDINARY_IDS, (ROWS, LENGTH)).astype(np.int32)
    config = MaskingConfig(rate=0.4, mask_share=1.0, random_share=0.0)
    masked = mask(tokens, config=config)
    assert masked.weights.shape[1] == masked_slots(LENGTH, config) == 52
    assert (masked.weights.sum(1) == 51).all()
    assert (masked.tokens[chosen(masked)] == MASK).all()


# Whole words.

WHOLE = MaskingConfig(whole_words=True)


def words_of(tokens: np.ndarray, word_starts: np.ndarray) -> list[list[np.ndarray]]:
    """For each row, the positions of each of its words; the plain way, token by token."""
    rows = []
    for row, starts in zip(tokens, word_starts, strict=True):
        words: list[list[int]] = []
        open_word = False
        for place, (token, start) in enumerate(zip(row.tolist(), starts.tolist(), strict=True)):
            if token in SPECIAL_IDS:
                open_word = False
            elif open_word and not start:
                words[-1].append(place)
            else:
                words.append([place])
                open_word = True
        rows.append([np.array(word) for word in words])
    return rows


def worded_rows(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Packed rows of words of one to four tokens; special tokens start no word of their own in `word_starts`."""
    tokens = packed_rows(rows, seed)
    rng = np.random.default_rng(seed + 1)
    starts = np.zeros(tokens.shape, bool)
    for row in starts:
        sizes = rng.choice([1, 2, 3, 4], LENGTH, p=[0.4, 0.35, 0.15, 0.1])
        ends = np.cumsum(sizes)
        row[0] = True
        row[ends[ends < LENGTH]] = True
    return tokens, starts & np.isin(tokens, ORDINARY_IDS)


@pytest.fixture(scope="module")
def worded() -> tuple[np.ndarray, np.ndarray, MaskedTokens]:
    tokens, starts = worded_rows(ROWS)
    return tokens, starts, mask(tokens, starts, WHOLE)


def test_words_are_chosen_whole(worded: tuple[np.ndarray, np.ndarray, MaskedTokens]) -> None:
    tokens, starts, masked = worded
    there = chosen(masked)
    sizes = set()
    for row, words in zip(there, words_of(tokens, starts), strict=True):
        for word in words:
            assert row[word].all() or not row[word].any()
            if row[word[0]]:
                sizes.add(len(word))
    assert sizes >= {1, 2, 3, 4}
    assert not there[np.isin(tokens, SPECIAL_IDS)].any()
    assert (masked.labels == np.take_along_axis(tokens, masked.positions, 1))[masked.weights > 0].all()
    assert (masked.tokens[~there] == tokens[~there]).all()


def test_whole_words_keep_the_share(worded: tuple[np.ndarray, np.ndarray, MaskedTokens]) -> None:
    tokens, _, masked = worded
    ordinary = np.isin(tokens, ORDINARY_IDS).sum(1)
    assert masked.weights.sum() / ordinary.sum() == pytest.approx(0.15, abs=2e-3)
    # The last word makes a row miss its number by less than that word.
    assert np.abs(masked.weights.sum(1) - np.round(ordinary * 0.15)).max() <= 3


def test_long_words_are_chosen_about_as_often_as_short_ones(worded: tuple[np.ndarray, np.ndarray, MaskedTokens]) -> None:
    tokens, starts, masked = worded
    there = chosen(masked)
    picked = np.zeros(5)
    total = np.zeros(5)
    for row, words in zip(there, words_of(tokens, starts), strict=True):
        for word in words:
            if len(word) <= 4:
                total[len(word)] += 1
                picked[len(word)] += row[word[0]]
    assert (np.abs(picked / np.maximum(total, 1) - 0.15)[1:] < 0.02).all()


def test_each_token_of_a_word_draws_its_own_fate(worded: tuple[np.ndarray, np.ndarray, MaskedTokens]) -> None:
    masked = worded[2]
    written = masked.tokens[chosen(masked)]
    assert stats.binomtest(int((written == MASK).sum()), len(written), 0.8).pvalue > 1e-3


def repeated(example: list[int], starts: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of one example again and again behind some padding, its word starts, and the column at which each begins."""
    count = LENGTH // len(example)
    first = LENGTH - count * len(example)
    rows = [np.concatenate([np.zeros(first, int), np.tile(values, count)]) for values in (example, starts)]
    tokens, word_starts = (np.tile(row, (ROWS, 1)) for row in rows)
    return tokens.astype(np.int32), word_starts.astype(bool), first + len(example) * np.arange(count)


def test_a_chinese_word_of_several_characters_is_one_word() -> None:
    # 我 喜欢 自然 语言处理 。 as a segmenter gives it: one start for each word, whatever its characters.
    lengths = np.array([1, 2, 2, 4, 1])
    begins = 1 + np.cumsum(lengths) - lengths
    sentence = [CLS, *range(ORDINARY_IDS[0], ORDINARY_IDS[0] + 10), SEP]
    tokens, starts, columns = repeated(sentence, np.isin(np.arange(12), begins).tolist())
    there = chosen(mask(tokens, starts, WHOLE))
    examples = np.stack([there[:, column : column + 12] for column in columns])
    for begin, size in zip(begins, lengths, strict=True):
        word = examples[..., begin : begin + size]
        assert (word.all(-1) == word.any(-1)).all()
        assert 0.12 < word.all(-1).mean() < 0.18
    assert not examples[..., [0, -1]].any()
    assert (examples[..., begins].sum(-1) == 1).mean() > 0.3, "neighbours do not come together"


def test_words_end_at_the_row_and_at_special_tokens() -> None:
    # The token behind [SEP] starts a word though nothing says so, and the last word reaches the end of the row.
    tokens, starts, columns = repeated([CLS, 5, 6, 7, SEP, 8, 9, UNK, 10, 11], [0, 1, 0, 0, 0, 0, 0, 0, 0, 0])
    there = chosen(mask(tokens, starts, WHOLE))
    assert columns[-1] + 10 == LENGTH
    for column in columns:
        example = there[:, column : column + 10]
        for word in ([1, 2, 3], [5, 6], [8, 9]):
            assert (example[:, word].all(1) == example[:, word].any(1)).all()
            assert 0.1 < example[:, word[0]].mean() < 0.2
        assert {row[[1, 5, 8]].tobytes() for row in example} >= {bytes([1, 0, 0]), bytes([0, 1, 0]), bytes([0, 0, 1])}
        assert not example[:, [0, 4, 7]].any()


def test_a_word_longer_than_all_slots_is_left_alone() -> None:
    tokens = np.full((ROWS, LENGTH), 9, np.int32)
    starts = np.zeros(tokens.shape, bool)
    starts[:, 0] = True
    masked = mask(tokens, starts, WHOLE)
    assert masked.weights.sum() == 0
    assert (masked.tokens == tokens).all()


# Nothing to choose from.


@pytest.mark.parametrize("whole_words", [False, True])
def test_rows_without_candidates_are_harmless(whole_words: bool) -> None:
    tokens = np.full((ROWS, LENGTH), PAD, np.int32)
    tokens[1, :2] = CLS, SEP
    tokens[2, :3] = CLS, 7, SEP
    masked = mask(tokens, config=MaskingConfig(whole_words=whole_words))
    assert masked.weights.sum(1)[:4].tolist() == [0, 0, 1, 0]
    assert (masked.tokens[[0, 1, 3]] == tokens[[0, 1, 3]]).all()
    scores = np.random.default_rng(0).standard_normal((*masked.labels.shape, tiny.VOCABULARY)).astype(np.float32)
    empty = classification_metrics("mlm", jnp.asarray(scores[:2]), jnp.asarray(masked.labels[:2]), jnp.asarray(masked.weights[:2]))
    assert float(empty["mlm_loss"].total) == 0 and float(empty["mlm_loss"].count) == 0
