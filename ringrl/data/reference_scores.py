"""D4RL's reference returns, which count as 0 and as 100 in a normalized score, by task name or Minari id.

The numbers are those of D4RL 1.1: the mean return of a random policy, and of an expert or a scripted controller.
"""

import itertools

Scores = tuple[float, float]

_LOCOMOTION: dict[str, Scores] = {
    "halfcheetah": (-280.178953, 12135.0),
    "hopper": (-20.272305, 3234.3),
    "walker2d": (1.629008, 4592.3),
    "ant": (-325.6, 3879.7),
}
_ADROIT: dict[str, Scores] = {
    "pen": (96.262799, 3076.8331017826877),
    "hammer": (-274.856578, 12794.134825156867),
    "relocate": (-6.425911, 4233.877797728884),
    "door": (-56.512833, 2880.5693087298737),
}
_MAZE2D: dict[str, Scores] = {
    "open-v0": (0.01, 20.66),
    "umaze-v0": (0.94, 62.6),
    "medium-v0": (5.77, 85.14),
    "large-v0": (4.83, 191.99),
    "umaze-v1": (23.85, 161.86),
    "medium-v1": (13.13, 277.39),
    "large-v1": (6.7, 273.99),
    "eval-umaze-v1": (36.63, 141.4),
    "eval-medium-v1": (13.07, 204.93),
    "eval-large-v1": (16.4, 302.22),
    "open-dense-v0": (11.17817, 27.166538620695782),
    "umaze-dense-v0": (23.249793, 81.78995240126592),
    "medium-dense-v0": (19.47762, 96.03474232952358),
    "large-dense-v0": (27.38831, 215.09965671563742),
    "umaze-dense-v1": (68.537689, 193.66285642381482),
    "medium-dense-v1": (44.264742, 297.4552547777125),
    "large-dense-v1": (30.569041, 303.4857382709002),
    "eval-umaze-dense-v1": (56.95455, 178.21373133248397),
    "eval-medium-dense-v1": (42.28578, 235.5658957482388),
    "eval-large-dense-v1": (56.95455, 326.09647655082637),
}
_ANTMAZE: Scores = (0.0, 1.0)
_KITCHEN: Scores = (0.0, 4.0)
_MAZES = ("umaze", "umaze-diverse", "medium-play", "medium-diverse", "large-play", "large-diverse")
_POLICIES = ("random", "medium", "expert", "medium-replay", "medium-expert")


def _all_scores() -> dict[str, Scores]:
    scores: dict[str, Scores] = {}
    for robot, pair in _LOCOMOTION.items():
        scores |= {f"{robot}-{policy}-v0": pair for policy in _POLICIES}
        for policy, version in itertools.product((*_POLICIES, "full-replay"), ("v1", "v2")):
            scores[f"{robot}-{policy}-{version}"] = pair
    scores["ant-random-expert-v0"] = _LOCOMOTION["ant"]
    for hand, pair in _ADROIT.items():
        for kind, version in itertools.product(("human", "human-longhorizon", "cloned", "expert"), ("v0", "v1")):
            scores[f"{hand}-{kind}-{version}"] = pair
    scores |= {f"maze2d-{maze}": pair for maze, pair in _MAZE2D.items()}
    scores |= {f"antmaze-{maze}-{version}": _ANTMAZE for maze in _MAZES for version in ("v0", "v1", "v2")}
    scores |= {f"antmaze-eval-{maze}-v0": _ANTMAZE for maze in _MAZES}
    scores |= {f"kitchen-{kind}-v0": _KITCHEN for kind in ("complete", "partial", "mixed")}
    return scores


REFERENCE_SCORES: dict[str, Scores] = _all_scores()


def reference_of_task(task: str) -> Scores | None:
    """(minimum, maximum) return of a D4RL task such as hopper-medium-v2; None for a name that D4RL does not have."""
    return REFERENCE_SCORES.get(task)


def reference_of_minari(dataset_id: str) -> Scores | None:
    """(minimum, maximum) return for a Minari id, if D4RL's numbers apply to it; else None.

    They apply to D4RL/antmaze (reached or not), D4RL/kitchen (tasks done) and D4RL/pen; nearly for D4RL/door, hammer
    and relocate, where gymnasium-robotics 1.4 adds a tenth of a distance that D4RL takes off. They do not apply to
    D4RL/pointmaze, whose goal moves when it is reached while maze2d's stays, nor to mujoco/*, whose environments (v5)
    and policies are others.
    """
    namespace, _, rest = dataset_id.partition("/")
    family = rest.partition("/")[0]
    if namespace != "D4RL":
        return None
    return {"antmaze": _ANTMAZE, "kitchen": _KITCHEN, **_ADROIT}.get(family)
