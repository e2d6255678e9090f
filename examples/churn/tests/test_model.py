"""The model learns the world that it is shown, and a world that changed makes it wrong."""

from __future__ import annotations

import random
import sys
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from customers import FEATURES, customers
from model import Model
from sklearn.linear_model import LogisticRegression


def accuracy(model: Model, *, changed: bool) -> float:
    found = list(islice(customers(random.Random(2), changed=changed), 2_000))
    return float(np.mean([(model.score(c.features) >= 0.5) == c.left for c in found]))


def test_a_model_is_right_until_the_world_changes(tmp_path):
    rows = list(islice(customers(random.Random(1), changed=False), 2_000))
    x = [[c.features[n] for n in FEATURES] for c in rows]
    fitted = LogisticRegression().fit(x, [c.left for c in rows])
    model = Model(FEATURES, fitted.coef_[0].tolist(), float(fitted.intercept_[0]))
    model.save(tmp_path / "model.json")
    assert Model.load(tmp_path / "model.json").score({}) == model.score({})
    assert accuracy(model, changed=False) > 0.8
    assert accuracy(model, changed=True) < 0.6
