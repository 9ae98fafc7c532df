"""Exact match and F1 as the official scripts compute them, and the threshold for no answer."""

import numpy as np
import pytest

from bert_jax.tasks.answering.metrics import Matches, best_threshold, chinese, english, match, match_all, scoring_of

# Found, true, and what compute_exact and compute_f1 of transformers 4.57 (from SQuAD 2.0's script) return.
ENGLISH = [
    ("Denver Broncos", "the Denver Broncos!", 1, 1.0),
    ("The U.S. Navy", "us navy", 1, 1.0),
    ("a cat and a dog", "cat and dog", 1, 1.0),
    ("in the year 1066", "1066", 0, 0.5),
    ("the the cat cat", "cat", 0, 2 / 3),
    ("cat dog cat", "cat cat bird", 0, 2 / 3),
    ("well-known", "well known", 0, 0.0),
    ("24–10", "24 – 10", 0, 0.0),
    ("THEATER", "theater a", 1, 1.0),
    ("Beyoncé", "beyonce", 0, 0.0),
    ("the", "a", 1, 1.0),
    ("the", "cat", 0, 0.0),
    ("", "cat", 0, 0.0),
    ("", "", 1, 1.0),
]


@pytest.mark.parametrize("found, true, exact, f1", ENGLISH)
def test_english_answers_match_as_in_squad(found: str, true: str, exact: float, f1: float) -> None:
    assert english(found, true) == pytest.approx((exact, f1))


def test_the_best_of_several_answers_counts() -> None:
    assert match("the Norman king", ["king", "Norman king", "duke"], "english") == (1, 1)
    assert match("Norman king", ["king", "duke"], "english") == pytest.approx((0, 2 / 3))


def test_without_answers_only_no_answer_is_right() -> None:
    # As in SQuAD 2.0's script, answers without a word count as none.
    assert [match(found, answers, "english")[0] for found in ("", "king") for answers in ([], ["the"])] == [1, 1, 0, 0]
    assert [match(found, [], "chinese") for found in ("", "国王")] == [(1, 1), (0, 0)]
    assert match("", ["国王"], "chinese") == (0, 0)


@pytest.mark.parametrize(
    "found, true, exact, f1",
    [
        ("光荣和ω-force", "光荣和ω-Force。", 1, 1.0),  # punctuation and case do not count, within words either
        ("村雨城", "《村雨城》", 1, 1.0),
        ("战国三杰", "三杰", 0, 2 * 2 / (4 + 2)),
        ("在北京大学", "北京的大学", 0, 2 * 2 / (5 + 5)),  # the longest shared sequence: 北京 or 大学, not both
        ("韩国nexon开发", "韩国Nexon公司", 0, 2 * 3 / (5 + 5)),  # a word is one token
        ("kart rider game", "the kart rider", 0, 2 * 2 / (3 + 3)),
        ("1,000人", "1,000 人", 0, 1.0),  # a comma within a number belongs to it, and only F1 ignores spaces
        ("40%", "40", 0, 2 * 1 / (2 + 1)),
        ("(2010)", "2010", 0, 2 * 1 / (3 + 1)),
        ("U.S.", "u.s", 0, 2 * 1 / (2 + 1)),  # the last period is a token
        ("it's a.b.", "it a.b", 0, 2 * 1 / (4 + 2)),
        ("甲乙", "丙丁", 0, 0.0),
        ("。", "、", 1, 0.0),  # as in the script: equal without punctuation, and nothing in common
    ],
)
def test_chinese_answers_match_as_in_cmrc(found: str, true: str, exact: float, f1: float) -> None:
    assert chinese(found, true) == pytest.approx((exact, f1))


def test_the_scoring_follows_the_letters_of_the_passages() -> None:
    assert scoring_of(["1066 came the Normans", "北京"]) == "english"
    assert scoring_of(["光荣和ω-force开发的战国无双系列", "2010"]) == "chinese"
    assert scoring_of([]) == "english"


def test_scores_are_also_those_of_questions_with_and_without_answers() -> None:
    matches = match_all(["king", "the king died", "x"], [["king"], ["king"], []], "english")
    none_scores = np.array([-1.0, 0.5, 2.0])
    always = matches.of(none_scores < np.inf)
    assert always == pytest.approx(
        {
            "exact_match": 1 / 3, "has_answer_exact_match": 1 / 2, "no_answer_exact_match": 0,
            "f1": (1 + 2 / 3) / 3, "has_answer_f1": (1 + 2 / 3) / 2, "no_answer_f1": 0,
        }
    )  # fmt: skip
    assert matches.of(none_scores <= 1)["no_answer_f1"] == 1
    assert matches.of(none_scores <= 0) == pytest.approx(matches.of(none_scores <= 0.4))
    assert matches.of(none_scores <= 0)["has_answer_f1"] == pytest.approx(1 / 2)


def test_only_one_score_is_given_if_all_questions_have_answers() -> None:
    assert [*match_all(["king"], [["king"]], "english").of(np.ones(1, np.bool_))] == ["exact_match", "f1"]


@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_leads_to_a_higher_f1(seed: int) -> None:
    rng = np.random.default_rng(seed)
    answerable = rng.random(200) < 0.6
    f1 = np.where(answerable, rng.choice([0, 0.5, 1], 200), 0)
    matches = Matches(f1, f1, answerable)
    none_scores = np.round(rng.normal(np.where(answerable, -1, 1), 1), 1).astype(np.float32)  # with equal scores
    best = max(matches.of(none_scores <= threshold)["f1"] for threshold in np.arange(-6, 6, 0.05))
    threshold = best_threshold(matches, none_scores)
    assert matches.of(none_scores <= threshold)["f1"] == pytest.approx(best)
    assert not np.isin(np.float32(threshold), none_scores)


def test_a_model_without_right_answers_gives_none() -> None:
    wrong = Matches(np.zeros(3), np.zeros(3), np.array([True, False, False]))
    threshold = best_threshold(wrong, np.array([-2.0, 1.0, 3.0]))
    assert wrong.of(np.array([-2.0, 1.0, 3.0]) <= threshold)["f1"] == pytest.approx(2 / 3)
    right = Matches(np.ones(2), np.ones(2), np.ones(2, np.bool_))
    assert right.of(np.array([5.0, 7.0]) <= best_threshold(right, np.array([5.0, 7.0])))["f1"] == 1
