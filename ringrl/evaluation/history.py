"""Histories of a batch of environments, as steps of a chain that grows while acting."""

import numpy as np

from ringrl.types import ActionKind, Chain, Context, DataSpec, Normalization


class History:
    """Ragged histories of a batch of environments: columns (B, capacity), each row filled up to its own length.

    Positions start at 0 with the oldest step kept, whether or not earlier ones were dropped, as in training.
    """

    def __init__(
        self,
        spec: DataSpec,
        normalization: Normalization,
        context: Context,
        *,
        environments: int,
        capacity: int,
        target_return: float,
    ):
        shape = (environments, capacity)
        self.normalization = normalization
        self.context = context
        self.capacity = capacity
        self.target_return = target_return
        discrete = spec.action.kind is ActionKind.discrete
        self.observations = np.zeros((*shape, spec.observation_size), np.float32)
        self.actions = np.zeros(shape, np.int32) if discrete else np.zeros((*shape, spec.action.size), np.float32)
        self.rewards = np.zeros(shape, np.float32)
        self.return_to_go = np.zeros(shape, np.float32)
        self.completion = np.zeros(shape, np.float32)
        self.timesteps = np.zeros(shape, np.int32)
        self.trajectories = np.zeros(shape, np.int32)
        self.lengths = np.zeros(environments, np.int32)
        self.timestep = np.zeros(environments, np.int32)  # of the next step
        self.trajectory = np.zeros(environments, np.int32)
        self.returns = np.zeros(environments, np.float64)  # of the current trial

    def make_room(self, active: np.ndarray) -> np.ndarray:
        """Drop the oldest whole trajectory of each active row that is full; returns the rows (B,) that changed.

        A row filled by its current trial alone loses that trial's oldest steps instead: one if a step attends to a
        window only, a quarter of the capacity if a cache must be rebuilt afterwards.
        """
        full = active & (self.lengths >= self.capacity)
        for row in np.flatnonzero(full).tolist():
            oldest = self.trajectories[row, 0]
            if oldest < self.trajectory[row]:
                self.drop(row, int(np.searchsorted(self.trajectories[row, : self.lengths[row]], oldest, "right")))
            else:
                self.drop(row, 1 if self.context is not Context.chain else max(1, self.capacity // 4))
        return full

    def drop(self, row: int, steps: int) -> None:
        """Drop the oldest `steps` steps of a row; trajectories are counted from the oldest one kept."""
        length = self.lengths[row]
        for column in self._columns():
            column[row, : length - steps] = column[row, steps:length].copy()
        self.lengths[row] = length - steps
        first = self.trajectories[row, 0] if length > steps else self.trajectory[row]
        self.trajectories[row, : length - steps] -= first
        self.trajectory[row] -= first

    def clear(self, rows: np.ndarray) -> None:
        """Clear the histories of the selected rows (B,)."""
        for row in np.flatnonzero(rows).tolist():
            self.drop(row, int(self.lengths[row]))

    def append(self, observations: np.ndarray, active: np.ndarray) -> None:
        """Add a step to the active rows, as known before acting: raw observations (B, O) and the return-to-go."""
        rows = np.flatnonzero(active)
        at = self.lengths[rows]
        self.observations[rows, at] = self.normalization.observations(observations[rows])
        remaining = self.target_return - self.returns[rows]
        self.return_to_go[rows, at] = remaining / self.normalization.return_scale
        self.timesteps[rows, at] = self.timestep[rows]
        self.trajectories[rows, at] = self.trajectory[rows]
        self.actions[rows, at] = 0
        self.rewards[rows, at] = 0
        self.completion[rows, at] = 0
        self.lengths[rows] += 1

    def finish_step(self, actions: np.ndarray, rewards: np.ndarray, finished: np.ndarray, active: np.ndarray) -> None:
        """Complete the newest step of the active rows with its action, its reward, and whether the trial ended.

        Actions (B, A) or (B,) are the agent's, in its own scale; rewards (B,) are raw.
        """
        rows = np.flatnonzero(active)
        at = self.lengths[rows] - 1
        self.actions[rows, at] = actions[rows]
        self.rewards[rows, at] = self.normalization.rewards(rewards[rows])
        self.returns[rows] += rewards[rows]
        self.timestep[rows] += 1
        ended = rows[finished[rows]]
        tolerance = 1e-6 * max(self.normalization.return_scale, abs(self.target_return))
        reached = self.returns[ended] >= self.target_return - tolerance
        self.completion[ended, self.lengths[ended] - 1] = reached
        self.returns[ended] = 0.0
        self.timestep[ended] = 0
        self.trajectory[ended] += 1

    def chain(self) -> Chain:
        """The whole history of every row, padded at the end to the capacity."""
        return self.steps(np.broadcast_to(np.arange(self.capacity, dtype=np.int32), self.rewards.shape))

    def recent(self, count: int) -> Chain:
        """The newest `count` steps of every row; if there are fewer, padding comes first."""
        return self.steps(self.lengths[:, None] + np.arange(-count, 0, dtype=np.int32)[None, :])

    def steps(self, positions: np.ndarray) -> Chain:
        """The steps at these positions (B, P); a position outside a row's history is padding (segment -1)."""
        valid = (positions >= 0) & (positions < self.lengths[:, None])
        at, before = np.clip(positions, 0, self.capacity - 1), np.clip(positions - 1, 0, self.capacity - 1)
        rows = np.arange(len(positions))[:, None]
        trajectories = self.trajectories[rows, at]
        match self.context:
            case Context.chain:
                segments, has_previous = np.zeros_like(at), positions > 0
            case Context.trial:
                segments = trajectories
                has_previous = (positions > 0) & (self.trajectories[rows, before] == trajectories)
            case Context.step:
                segments, has_previous = at, np.zeros_like(valid)
        previous = (has_previous & valid).astype(np.float32)
        previous_actions = self.actions[rows, before]
        mask = previous if previous_actions.ndim == 2 else previous[..., None]
        return Chain(
            observations=self.observations[rows, at],
            actions=self.actions[rows, at],
            rewards=self.rewards[rows, at],
            return_to_go=self.return_to_go[rows, at],
            completion=self.completion[rows, at],
            previous_actions=(previous_actions * mask).astype(self.actions.dtype),
            previous_rewards=self.rewards[rows, before] * previous,
            previous_completion=self.completion[rows, before] * previous,
            previous_mask=previous,
            timesteps=self.timesteps[rows, at],
            trajectories=trajectories,
            positions=np.where(valid, positions, -1).astype(np.int32),
            segment_ids=np.where(valid, segments, -1).astype(np.int32),
            loss_mask=np.zeros(positions.shape, np.float32),
        )

    def _columns(self) -> tuple[np.ndarray, ...]:
        return (
            self.observations,
            self.actions,
            self.rewards,
            self.return_to_go,
            self.completion,
            self.timesteps,
            self.trajectories,
        )
