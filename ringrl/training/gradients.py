"""Loss and gradients of a batch, on one device or, with a shard on each, on all devices of a mesh.

All communication between devices during the computation is explicit, here, in `ringrl.parallel.gather` and in
`ringrl.ops`: XLA's partitioner adds none.
"""

from typing import Any

import jax
from jax.sharding import PartitionSpec

from ringrl.parallel.gather import sum_gradients
from ringrl.parallel.sharding import BATCH, parameter_specs
from ringrl.training.microbatches import LossAndGradients, average, sum_microbatches
from ringrl.training.state import Agent
from ringrl.types import Chain, Parameters


def loss_and_gradients(
    agent: Agent, params: Parameters, batch: Chain, dropout_key: jax.Array, pieces: int, dtype: Any = None
) -> LossAndGradients:
    """Loss, metrics and gradients of the whole batch, computed in microbatches; global arrays in and out.

    An agent's loss is a mean over supervised steps, so each device's microbatch is weighted by its number of them, and
    the sum equals the mean over the whole batch, however unevenly it is filled.

    `dtype` is that of gradients until they are used: layer by layer they are rounded to it, summed over devices in it,
    and kept in it. The last operation on them, the division by the supervised steps, casts them back, fused into each
    consumer. Sums over microbatches are kept in the parameters' own dtype, which is also the meaning of None.
    """
    mesh = agent.mesh
    if mesh is None:
        if pieces == 1 and dtype is None:
            (loss, metrics), gradients = jax.value_and_grad(agent.loss, has_aux=True)(params, batch, dropout_key)
            return loss, metrics, gradients
        return average(*sum_microbatches(agent, params, batch, dropout_key, pieces, dtype), params)
    specs = parameter_specs(params, mesh)

    def on_each_device(params: Parameters, batch: Chain, dropout_key: jax.Array) -> LossAndGradients:
        axes = tuple(axis for axis, size in mesh.shape.items() if size > 1)
        weight, sums, gradients = sum_microbatches(agent, params, batch, dropout_key, pieces, dtype)
        weight, sums = jax.lax.psum((weight, sums), axes) if axes else (weight, sums)
        return average(weight, sums, sum_gradients(gradients, specs, axes), params)

    sharded = jax.shard_map(
        on_each_device,
        mesh=mesh,
        in_specs=(specs, BATCH, PartitionSpec()),
        out_specs=(PartitionSpec(), PartitionSpec(), specs),
        check_vma=False,  # `gather` and attention define their own rules
    )
    return sharded(params, batch, dropout_key)
