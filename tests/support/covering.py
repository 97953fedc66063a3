"""Covering sets: a small subset of all cases in which every pair of choices of different kinds occurs."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np


def covering_set(choices: Mapping[str, Sequence], sample: int | None = None, seed: int = 0) -> list[tuple]:
    """Choose cases greedily by the number of new pairs, among all cases or `sample` random ones."""
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
