"""Learners that share nothing: River's, one per agent, each on its own samples, test-then-train.

River (https://riverml.xyz) is needed for this alone; without it the tables go without these rows, and say so.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from streams import Samples, f1

LEARNERS = (
    "Hoeffding tree",
    "Hoeffding adaptive tree",
    "kNN",
    "naive Bayes",
    "scaled Hoeffding tree",
    "scaled kNN",
    "scaled naive Bayes",
)
QUICK = ("Hoeffding tree", "Hoeffding adaptive tree", "naive Bayes", "scaled naive Bayes")


def available() -> bool:
    """Whether River is installed."""
    return importlib.util.find_spec("river") is not None


def make(name: str) -> Any:
    """A fresh River classifier with River's own defaults; "scaled": behind a running standard scaler."""
    from river import naive_bayes, neighbors, preprocessing, tree

    plain: dict[str, Callable[[], Any]] = {
        "Hoeffding tree": tree.HoeffdingTreeClassifier,
        "Hoeffding adaptive tree": lambda: tree.HoeffdingAdaptiveTreeClassifier(seed=1),
        "kNN": neighbors.KNNClassifier,
        "naive Bayes": naive_bayes.GaussianNB,
    }
    base = name.removeprefix("scaled ")
    return preprocessing.StandardScaler() | plain[base]() if base != name else plain[base]()


def scores(name: str, agents: list[Samples]) -> list[float]:
    """F1 of each agent by learner `name`, each sample first answered and then learnt."""
    result = []
    for x, y in agents:
        model, answers = make(name), []
        for row, label in zip(x.astype(float).tolist(), y, strict=True):
            features = dict(enumerate(row))
            answers.append(model.predict_one(features))
            model.learn_one(features, label)
        result.append(f1(y, answers))
    return result
