"""Settings of `ringrl eval` from the run, and those from its own command line."""

import dataclasses

import pytest

from ringrl.errors import RingRLError
from ringrl.evaluation.config import EvaluationChoice, EvaluationConfig, Split, WhenFull

RUN = EvaluationConfig(
    trials=3,
    environments=5,
    repeats=2,
    split=Split.training,
    sample=False,
    temperature=0.5,
    target_return=7.0,
    when_full=WhenFull.stop,
    context_steps=40,
    sharded=True,
    seed=4,
    video=True,
    bootstrap_samples=60,
)


def test_nothing_chosen_is_as_the_run_had_it_but_for_devices_and_film() -> None:
    assert EvaluationChoice().of_run(RUN) == dataclasses.replace(RUN, sharded=False, video=False)


def test_what_is_chosen_wins_even_where_it_is_the_default() -> None:
    found = EvaluationChoice(environments=16, sample=True, trials=0, video=True).of_run(RUN)
    assert (found.environments, found.sample, found.trials, found.video) == (16, True, 0, True)
    assert (found.split, found.temperature) == (Split.training, 0.5)


def test_every_key_of_an_evaluation_can_be_chosen() -> None:
    names = [[field.name for field in dataclasses.fields(cls)] for cls in (EvaluationChoice, EvaluationConfig)]
    assert names[0] == names[1]


def test_too_few_redraws_are_refused() -> None:
    with pytest.raises(RingRLError, match=r"evaluation\.bootstrap_samples=1: a 95 % interval needs 40 or more"):
        EvaluationChoice(bootstrap_samples=1)
    assert EvaluationConfig(bootstrap_samples=0).bootstrap_samples == 0
