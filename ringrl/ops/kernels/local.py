"""The kernel that was chosen for this program, called."""

from jaxtyping import Array, Float

from ringrl.ops.config import Kernel
from ringrl.ops.kernels import cudnn, fused, pallas, xla
from ringrl.ops.kernels.interface import DropoutKeys, Labels, LocalOptions, Logsumexp

FUSED_KERNELS = {Kernel.cudnn: cudnn.KERNEL, Kernel.pallas: pallas.KERNEL}


def forward_part(
    options: LocalOptions,
    query: Float[Array, "B S H D"],
    key: Float[Array, "B T K D"],
    value: Float[Array, "B T K D"],
    queries: Labels,
    keys: Labels,
    dropout: DropoutKeys,
) -> tuple[Float[Array, "B S H D"], Logsumexp]:
    """Output over these keys alone, unrounded, and its logsumexp: 0 and -inf where a row has nothing to attend to."""
    arguments = (options, query, key, value, queries, keys, dropout)
    kernel = FUSED_KERNELS.get(options.kernel)
    return xla.forward_part(*arguments) if kernel is None else fused.forward_part(kernel, *arguments)


def backward_part(
    options: LocalOptions,
    query: Float[Array, "B S H D"],
    key: Float[Array, "B T K D"],
    value: Float[Array, "B T K D"],
    queries: Labels,
    keys: Labels,
    dropout: DropoutKeys,
    logsumexp: Logsumexp,
    row_sums: Float[Array, "B S H"] | None,
    output_gradient: Float[Array, "B S H D"],
    output: Float[Array, "B S H D"],
) -> tuple[Float[Array, "B S H D"], Float[Array, "B T K D"], Float[Array, "B T K D"]]:
    """These keys' share of the gradients of query, key and value, unrounded.

    `logsumexp`, `row_sums` (of output x its gradient) and `output` are those of the rows over all keys. cuDNN alone
    needs `output`, and the kernel `xla` does without `row_sums` where all keys are in one block.
    """
    arguments = (options, query, key, value, queries, keys, dropout)
    kernel = FUSED_KERNELS.get(options.kernel)
    if kernel is None:
        return xla.backward_part(*arguments, logsumexp, row_sums, output_gradient)
    assert row_sums is not None
    return fused.backward_part(kernel, *arguments, logsumexp, row_sums, output_gradient, output)
