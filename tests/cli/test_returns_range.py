"""The axis of return by trial is the same for agents that learn from the same set."""

import types

import numpy as np
import pytest

from ringrl.cli import evaluator as evaluator_module
from ringrl.cli.evaluator import returns_range
from ringrl.data.config import DataConfig


def test_the_best_tenth_has_the_range_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    stores = {
        1.0: types.SimpleNamespace(returns=np.arange(20.0)),
        0.1: types.SimpleNamespace(returns=np.array([18.0, 19])),
    }
    monkeypatch.setattr(evaluator_module, "open_dataset", lambda config: stores[config.top_fraction])
    ranges = [returns_range(DataConfig(name="x", top_fraction=part), stores[part]) for part in (1.0, 0.1)]  # type: ignore[arg-type]
    assert ranges == [(0.0, 19.0), (0.0, 19.0)]
