"""A linear classifier on plain features of the inputs: what an encoder has to beat."""

from typing import Any

import numpy as np

_FOLDS = 3
_REGULARIZATION = tuple(10.0**power for power in range(-4, 2))


def linear_accuracy(train: Any, train_classes: np.ndarray, test: Any, test_classes: np.ndarray) -> float:
    """Return the test accuracy of logistic regression, its regularization chosen by cross-validation on the training examples.

    Args:
        train, test: features [n, F], dense or sparse.
        train_classes, test_classes: int32 [n].
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MaxAbsScaler, StandardScaler

    def model(strength: float) -> Any:
        scaler = StandardScaler() if isinstance(train, np.ndarray) else MaxAbsScaler()
        return make_pipeline(scaler, LogisticRegression(C=strength, max_iter=1000))

    if len(np.unique(train_classes)) < 2:  # scikit-learn refuses what needs no learning
        return float(np.mean(test_classes == train_classes[0]))
    rarest = int(np.unique(train_classes, return_counts=True)[1].min())
    if rarest < 2:  # too few examples to hold any out
        chosen = model(_REGULARIZATION[len(_REGULARIZATION) // 2]).fit(train, train_classes)
    else:
        grid = {"logisticregression__C": _REGULARIZATION}
        chosen = GridSearchCV(model(1.0), grid, cv=min(_FOLDS, rarest)).fit(train, train_classes)
    return float(chosen.score(test, test_classes))
