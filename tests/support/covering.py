"""Covering sets: few of all the cases, yet every two choices of different kinds meet in one of them."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np


def covering_set(choices: Mapping[str, Sequence], sample: int | None = None, seed: int = 0) -> list[tuple]:
    """Greedily: in each case, as many pairs that have not met yet as all cases, or `sample` random ones, offer."""
    generator = np.random.default_rng(seed)
    everything = list(itertools.product(*choices.values()))

    def pairs(case: tuple) -> set:
        return set(itertools.combinations([(index, str(choice)) for index, choice in enumerate(case)], 2))

    missing = set().union(*map(pairs, everything))
    chosen = []
    while missing:
        some = everything
        if sample is not None:
            some = [everything[index] for index in generator.choice(len(everything), sample, replace=False)]
        chosen.append(max(some, key=lambda case: len(pairs(case) & missing)))
        missing -= pairs(chosen[-1])
    return chosen
