"""Boundaries of D4RL's episodes, and kitchen's rewards, computed from arrays alone."""

import dataclasses

import numpy as np

KITCHEN_TASKS = (  # indices of each movable object in the 30 positions; a task is done within 0.3 of its goal
    (11, 12),  # bottom burner
    (15, 16),  # top burner
    (17, 18),  # light switch
    (19,),  # slide cabinet
    (20, 21),  # hinge cabinet
    (22,),  # microwave
    (23, 24, 25, 26, 27, 28, 29),  # kettle
)
KITCHEN_DONE = 0.3


@dataclasses.dataclass(frozen=True)
class EpisodeRows:
    """Episodes among S rows: first row and length of each (E,), and the number of rows processed."""

    starts: np.ndarray
    lengths: np.ndarray
    used: int


def find_episodes(
    ends: np.ndarray, *, arrivals: np.ndarray | None = None, limit: int | None = None, final: bool = False
) -> EpisodeRows:
    """Find the episodes that end where `ends` (S,) is True; the first row is the start of an episode.

    With `arrivals` (S,) an episode stops at its first arrival, and the rows from there to its end are left out:

        ends      . . . . . . . x . . . x
        arrivals  . . . x x . x x . . . .
        episodes  0 0 0 0 - - - - 1 1 1 1

    With `limit` an episode ends after that many rows at the latest. Rows after the last end are not used, unless they
    are `final`: then they are a truncated episode.
    """
    rows = len(ends)
    lasts = np.flatnonzero(ends)
    if final and rows and not ends[-1]:
        lasts = np.append(lasts, rows - 1)
    if limit is not None:
        bounds = np.append(lasts + 1, rows) if not len(lasts) or lasts[-1] + 1 < rows else lasts + 1
        begins = np.concatenate([[0], bounds[:-1]])
        cuts = [np.arange(begin + limit, bound + 1, limit) for begin, bound in zip(begins, bounds, strict=True)]
        lasts = np.unique(np.concatenate([lasts, np.concatenate(cuts) - 1])).astype(np.int64)
    starts = np.concatenate([[0], lasts[:-1] + 1]).astype(np.int64)[: len(lasts)]
    used = int(lasts[-1]) + 1 if len(lasts) else 0
    lengths = lasts + 1 - starts
    if arrivals is not None and len(starts):
        first = np.minimum.reduceat(np.where(arrivals[:used], np.arange(used), used), starts)
        lengths = np.minimum(lengths, first + 1 - starts)
    return EpisodeRows(starts, lengths, used)


def find_goal_changes(goals: np.ndarray) -> np.ndarray:
    """Where the next row has another goal (S,) bool; the last is False, because its successor is unknown."""
    changed = np.zeros(len(goals), bool)
    changed[:-1] = (goals[1:] != goals[:-1]).any(axis=1)
    return changed


def find_completed_tasks(observations: np.ndarray) -> np.ndarray:
    """Completed tasks (S, 7) bool in each of D4RL's kitchen observations (S, 60); False for unselected tasks."""
    positions, goals = observations[:, :30], observations[:, 30:]
    done = np.zeros((len(observations), len(KITCHEN_TASKS)), bool)
    for column, indices in enumerate(KITCHEN_TASKS):
        wanted = goals[:, indices]
        distance = np.linalg.norm(positions[:, indices] - wanted, axis=1)
        done[:, column] = (distance < KITCHEN_DONE) & (wanted != 0).any(axis=1)
    return done


def kitchen_rewards(observations: np.ndarray, rewards: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Rewards (S,) as the environment gives them: 1 when a task is completed for the first time in an episode.

    D4RL's files hold the number of completed tasks at each step instead, so that their returns reach hundreds while
    those of the environment, and the reference score, end at 4. Episodes (which begin at `starts`) with such rewards
    get the environment's; others are unchanged.
    """
    done = find_completed_tasks(observations)
    counted = np.logical_and.reduceat(rewards == done.sum(axis=1), starts)
    times = np.cumsum(done, axis=0)
    lengths = np.diff(np.append(starts, len(rewards)))
    before = np.repeat(times[starts] - done[starts], lengths, axis=0)
    first = (done & (times - before == 1)).sum(axis=1)
    return np.where(np.repeat(counted, lengths), first, rewards).astype(np.float32)
