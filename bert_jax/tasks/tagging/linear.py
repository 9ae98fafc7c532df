"""A linear tagger on plain features of the words: what an encoder has to beat."""

from collections.abc import Iterator, Sequence

from bert_jax.tasks.tagging.words import Words

_FEATURES = 1 << 18
_NEAR = (-2, -1, 0, 1, 2)
_LONGEST_AFFIX = 3


def linear_tags(train: Sequence[Words], tags: Sequence[Sequence[str]], test: Sequence[Words]) -> list[list[str]]:
    """Return the tags of test texts, predicted by logistic regression on the words near each word, and its form and affixes."""
    from sklearn.feature_extraction import FeatureHasher
    from sklearn.linear_model import SGDClassifier

    distinct = {tag for one in tags for tag in one}
    if len(distinct) < 2:  # scikit-learn refuses what needs no learning
        return [[*distinct] * len(text.words) for text in test]
    hasher = FeatureHasher(_FEATURES, input_type="string")
    model = SGDClassifier(loss="log_loss", alpha=1e-6, max_iter=20, tol=None, random_state=0)
    model.fit(hasher.transform(_features(train)), [tag for one in tags for tag in one])
    found = iter(model.predict(hasher.transform(_features(test))).tolist())
    return [[next(found) for _ in text.words] for text in test]


def _features(texts: Sequence[Words]) -> Iterator[list[str]]:
    for text in texts:
        words = ["", "", *(word.lower() for word in text.words), "", ""]
        for index, word in enumerate(text.words):
            near = [f"{offset} {words[index + 2 + offset]}" for offset in _NEAR]
            pairs = [f"{words[index + 1]} {words[index + 2]}", f"{words[index + 2]} {words[index + 3]}"]
            affixes = [affix for size in range(1, _LONGEST_AFFIX + 1) for affix in (f"^{word[:size]}", f"{word[-size:]}$")]
            forms = " ".join(map(_form, text.words[max(0, index - 1) : index + 2]))
            yield [*near, *pairs, *affixes, f"form {_form(word)}", f"forms {forms}"]


def _form(word: str) -> str:
    return "".join("A" if c.isupper() else "a" if c.islower() else "0" if c.isdigit() else c for c in word[:6])
