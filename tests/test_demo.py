"""The demo's text is clean: no copies, no contradictions, and nothing of dev and test in what is trained on."""

import pytest

from bert_jax.modalities.text import demo
from bert_jax.modalities.text.sentences import WORD_MARK


@pytest.fixture(scope="module")
def reviews():
    return demo.labelled_reviews()


def squeezed(text):
    return "".join(text.replace(WORD_MARK, "").split())


def test_splits_have_their_sizes_and_both_labels(reviews):
    sizes = {split: len(texts) for split, (texts, _) in reviews.items()}
    assert 1900 <= sizes["test"] <= 2100
    assert 900 <= sizes["dev"] <= 1100
    assert sizes["train"] >= 14_000
    for texts, labels in reviews.values():
        assert len(texts) == len(labels)
        assert 0.4 < sum(labels) / len(labels) < 0.6
        assert abs(sum(labels[:500]) / 500 - sum(labels) / len(labels)) < 0.1  # the order is not by label


def test_every_text_is_there_once_and_with_the_label_of_its_file(reviews):
    every = [squeezed(text) for texts, _ in reviews.values() for text in texts]
    assert all(every)
    assert len(set(every)) == len(every)
    files = {name: {squeezed(line) for line in demo._read(f"sentiment/{name}.txt")} for name in ("pos", "neg")}
    for texts, labels in reviews.values():
        for text, label in zip(texts, labels, strict=True):
            assert squeezed(text) in files["pos" if label else "neg"]
            assert squeezed(text) not in files["neg" if label else "pos"]


def test_no_dev_or_test_review_occurs_in_training_text(reviews):
    trained_on = "\n".join(squeezed(paragraph) for document in demo.documents("all") for paragraph in document)
    held_out = {squeezed(text) for split in ("dev", "test") for text in reviews[split][0]}
    assert len([text for text in held_out if len(text) >= 10]) > 2500
    assert not [text for text in held_out if text in trained_on]


def test_no_training_review_is_a_piece_of_a_dev_or_test_review(reviews):
    held_out = "\n".join(squeezed(text) for split in ("dev", "test") for text in reviews[split][0])
    assert not [text for text in map(squeezed, reviews["train"][0]) if len(text) >= 10 and text in held_out]


def test_the_newspaper_is_articles_of_marked_words():
    articles = list(demo.documents("newspaper"))
    assert 2500 < len(articles) < 4000
    assert articles[1][0].split(WORD_MARK)[:4] == ["在", "十五大", "精神", "指引"]
    assert not [paragraph for article in articles for paragraph in article if "/" in paragraph.split(WORD_MARK)[0][1:]]
    assert sum(len(article) > 1 for article in articles) > 0.95 * len(articles)


def test_all_is_the_reviews_and_the_newspaper():
    assert list(demo.documents("all")) == [*demo.documents("reviews"), *demo.documents("newspaper")]
