"""Success flags in any form: a single number, bare or in an array, and nothing else."""

import numpy as np
import pytest

from ringrl.evaluation.actions import convert_actions
from ringrl.evaluation.rollout import read_success


def objects(*values):
    column = np.full(len(values), None, object)
    for index, value in enumerate(values):
        column[index] = value
    return column


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (np.array([0.0, 1.0, np.nan]), [False, True, False]),
        (np.array([True, False, True]), [True, False, True]),
        (np.array([[1.0], [0.0], [1.0]]), [True, False, True]),
        (objects(np.array([1]), None, np.bool_(False)), [True, False, False]),
        (objects(True, "yes", {"a": 1}), [True, False, False]),
        (objects(np.array([1, 1]), None, 1), [False, False, True]),
        (objects(None, None, None), None),
        (np.ones((3, 2)), None),
        ({"kettle": np.ones(3)}, None),
    ],
)
def test_what_counts_as_success(told, expected):
    for infos in ({"success": told}, {"is_success": told, "_is_success": np.ones(3, bool)}):
        found = read_success(infos, 3)
        assert (found if found is None else found.tolist()) == expected


def test_only_those_who_tell_succeed():
    assert read_success({"success": np.ones(3), "_success": np.array([1, 0, 0], bool)}, 3).tolist() == [
        True,
        False,
        False,
    ]
    assert read_success({}, 3) is None


@pytest.mark.parametrize(
    ("space", "actions", "expected"),
    [
        ("Discrete(3, start=5)", [2, 0, 1], [7, 5, 5]),
        ("Box(0, 7, (2,), np.uint8)", [[2.6, 9], [3.4, -1], [1, 1]], [[3, 7], [3, 0], [0, 0]]),
        ("Box(2, np.inf, (1,), np.float32)", [[1.0], [5.0], [5.0]], [[2.0], [5.0], [2.0]]),
        ("Box(-1, 1, (2, 1), np.float64)", [[0.5, 2], [-3, 0], [1, 1]], [[[0.5], [1]], [[-1], [0]], [[0], [0]]]),
    ],
)
def test_actions_are_what_the_environment_takes(space, actions, expected):
    from gymnasium.spaces import Box, Discrete

    space = eval(space, {"Box": Box, "Discrete": Discrete, "np": np})
    found = convert_actions(space, np.asarray(actions), np.array([True, True, False]))
    np.testing.assert_array_equal(found, expected)
    assert all(row in space for row in found)
