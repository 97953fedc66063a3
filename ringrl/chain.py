"""The pytree of batches, used by all packages; import it from `ringrl.types`, which has the shape legend."""

import dataclasses

import jax
import numpy as np

Array = jax.Array | np.ndarray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Chain:
    """A batch of chains of trajectories, step by step; all scaled by the run's `Normalization`.

    Every field is aligned by step and carries its own position, so any reordering of the step axis keeps its meaning.
    `previous_*` are fields of the previous step, so that a merged token includes its outcome.
    """

    observations: Array  # (B, P, O) float32
    actions: Array  # (B, P, A) float32, or (B, P) int32 when discrete
    rewards: Array  # (B, P) float32
    return_to_go: Array  # (B, P) float32
    completion: Array  # (B, P) float32: 1 on the last step of a trajectory that reached the target return
    previous_actions: Array  # as actions; zeros where previous_mask is 0
    previous_rewards: Array  # (B, P) float32
    previous_completion: Array  # (B, P) float32
    previous_mask: Array  # (B, P) float32: 0 if no earlier step is visible (start of a segment)
    timesteps: Array  # (B, P) int32: step within the episode
    trajectories: Array  # (B, P) int32: index of the trajectory in its chain
    positions: Array  # (B, P) int32: step position in the chain
    segment_ids: Array  # (B, P) int32: steps attend within their segment; negative is padding
    loss_mask: Array  # (B, P) float32: 1 where the action is supervised
