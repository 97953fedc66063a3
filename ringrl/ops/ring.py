"""Ring Attention (Liu, Zaharia and Abbeel 2023, arXiv 2310.01889): exact attention of a sequence spread over devices.

Every device keeps its queries. Key and value blocks go round the ring, and the next ones are on their way while a
device attends to those at hand. The custom VJP is around the whole ring: the backward pass is a second trip, on
which the gradients of keys and values travel with them and arrive home. On both, a device's keys and values travel a
piece at a time, so that what is under way is small beside what stays. A ring of one device sends nothing.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from ringrl.ops.config import Kernel
from ringrl.ops.dropout import DropoutKeys
from ringrl.ops.kernels import KERNELS, Gradients, Logsumexp, Part, Rows, join, no_keys
from ringrl.ops.masks import Labels, silence_padding
from ringrl.ops.operands import KeyBlock, LocalOptions, Operands
from ringrl.ops.pieces import piece_count, put_piece, take_piece
from ringrl.ops.precision import accumulator_dtype

SAVED_OUTPUT = "attention_output"  # the name under which rematerialization policies find output and logsumexp


class Ring(NamedTuple):
    """The mesh axes that keys and values travel along (as one ring), its devices, and how many hops are made."""

    axes: tuple[str, ...] = ()
    devices: int = 1
    hops: int = 0

    def send(self, tree: Any) -> Any:
        """Everything to the next device; what comes is from the one before."""
        pairs = [(device, (device + 1) % self.devices) for device in range(self.devices)]
        with jax.named_scope("hop"):
            return jax.tree.map(lambda x: jax.lax.ppermute(x, self.axes, pairs), tree)

    def send_home(self, tree: Any) -> Any:
        """From where blocks are after all hops to where they began."""
        pairs = [(device, (device - self.hops) % self.devices) for device in range(self.devices)]
        with jax.named_scope("home"):  # ringrl.planning.compile.schedules knows it by this name
            return jax.tree.map(lambda x: jax.lax.ppermute(x, self.axes, pairs), tree)


def send_block(ring: Ring, block: KeyBlock) -> KeyBlock:
    """To the next device, labels in one transfer: gradients make it five, and a TPU's compiler starts no sixth."""
    labels = ring.send(jnp.stack([block.labels.positions, block.labels.segments]))
    return KeyBlock(ring.send(block.key), ring.send(block.value), Labels(labels[0], labels[1]))


def send_gradients(ring: Ring, gradients: Any) -> Any:
    """Send the gradients accumulated so far, of the keys and values that are one hop ahead, to the next device."""
    with jax.named_scope("gradients"):  # ringrl.planning.hlo.places knows them by this name
        return ring.send(gradients)


def wait(part: Any, arriving: Any) -> Any:
    """Both as they are, for use when what arrives has arrived and the part is computed.

    A compiler would else start a small transfer after the block loop, beside the sums that take the part in.
    """
    return jax.lax.optimization_barrier((part, arriving))


def merge(one: Part, other: Part) -> Part:
    """Attention over two disjoint sets of keys, from attention over each."""
    (one_output, one_logsumexp), (other_output, other_logsumexp) = one, other
    total, kept, added = join(one_logsumexp, other_logsumexp)
    return one_output * kept[..., None] + other_output * added[..., None], total


def ring_forward(ring: Ring, options: LocalOptions, operands: Operands, dropout: DropoutKeys) -> Part:
    """Output, unrounded, and logsumexp of this device's queries over the keys of all devices."""
    kernel, query = KERNELS[options.kernel], operands.query
    pieces = piece_count(query.shape[1], options)

    def attend(block: KeyBlock) -> Part:
        return kernel.forward(options, operands.queries, block, dropout)

    def hop(carry, _):
        block, merged = carry
        next_block = send_block(ring, block)  # first, so that it travels while this device computes
        part, next_block = wait(attend(block), next_block)
        return (next_block, merge(merged, part)), None

    def trip(merged, index):
        own_block = take_piece(operands.keys, pieces, index)
        (last_block, merged), _ = jax.lax.scan(hop, (own_block, merged), length=ring.hops)
        return merge(merged, attend(last_block)), None

    accumulator = accumulator_dtype(query)
    nothing = jnp.zeros(query.shape, accumulator), no_keys(query.shape[:3], accumulator)
    (output, logsumexp), _ = jax.lax.scan(trip, nothing, jnp.arange(pieces))
    # Padding attends to nothing, whatever a fused kernel makes of it.
    attends = (operands.labels.segments >= 0)[:, :, None]
    highest = jnp.where(attends, logsumexp.highest, -jnp.inf)
    return jnp.where(attends[..., None], output, 0.0), Logsumexp(highest, logsumexp.log_total)


def ring_backward(ring: Ring, options: LocalOptions, operands: Operands, dropout: DropoutKeys, rows: Rows) -> Gradients:
    """Gradients of this device's query, unrounded, and of its key and value.

    The gradients of keys follow them one hop behind: what earlier devices found is sent while this one computes its
    own part, and added on arrival, so that no transfer waits for a computation of the same hop.
    """
    kernel, query = KERNELS[options.kernel], operands.query
    pieces = piece_count(query.shape[1], options)

    def differentiate(block: KeyBlock) -> Gradients:
        return kernel.backward(options, operands.queries, block, dropout, rows)

    def hop(carry, _):
        block, query_gradient, gradients_behind = carry
        arriving = send_block(ring, block), send_gradients(ring, gradients_behind)
        (query_part, key_parts), (next_block, gradients_arrived) = wait(differentiate(block), arriving)
        return (next_block, query_gradient + query_part, _add(gradients_arrived, key_parts)), None

    def trip(carry, index):
        query_gradient, key_gradients = carry
        block = take_piece(operands.keys, pieces, index)
        gradients_arrived = None  # on one device none travel
        if ring.hops:
            next_block = send_block(ring, block)
            (query_part, gradients), next_block = wait(differentiate(block), next_block)  # nothing is behind it yet
            start = next_block, query_gradient + query_part, gradients
            (block, query_gradient, gradients), _ = jax.lax.scan(hop, start, length=ring.hops - 1)
            gradients_arrived = send_gradients(ring, gradients)
        query_part, gradients = differentiate(block)
        if ring.hops:
            (query_part, gradients), gradients_arrived = wait((query_part, gradients), gradients_arrived)
            gradients = ring.send_home(_add(gradients_arrived, gradients))
        return (query_gradient + query_part, put_piece(key_gradients, gradients, pieces, index)), None

    no_key_gradients = jax.tree.map(jnp.zeros_like, (operands.key, operands.value))
    nothing = jnp.zeros(query.shape, accumulator_dtype(query)), no_key_gradients
    gradients, _ = jax.lax.scan(trip, nothing, jnp.arange(pieces))
    return gradients


def _add(one: Any, other: Any) -> Any:
    return jax.tree.map(jnp.add, one, other)


def _in_one_block(ring: Ring, options: LocalOptions, operands: Operands) -> bool:
    """Whether the kernel `xla` has all keys of all devices in one block."""
    length = operands.key.shape[1]
    one = ring.devices == piece_count(length, options) == 1 and length <= options.key_block_size
    return one and options.kernel is Kernel.xla


def _silence(operands: Operands) -> Operands:
    """Queries, keys and values with 0 for padding."""
    arrays = (operands.query, operands.key, operands.value)
    query, key, value = (silence_padding(x, operands.labels.segments) for x in arrays)
    return Operands(query, key, value, operands.labels)


def _ring_attention(
    ring: Ring, options: LocalOptions, operands: Operands, dropout: DropoutKeys
) -> Float[Array, "B S H D"]:
    """Attention of this device's queries to the keys of all devices of the ring; of a ring of one, to its own."""
    return _save(ring, options, operands, dropout)[0]


def _save(ring: Ring, options: LocalOptions, operands: Operands, dropout: DropoutKeys):
    if options.kernel is not Kernel.xla:  # which does so a block at a time, and needs no copy
        operands = _silence(operands)
    # Without the barrier a scan over layers finds positions constant, and saves the masks of all blocks of all hops.
    operands, dropout = jax.lax.optimization_barrier((operands, dropout))
    output, logsumexp = ring_forward(ring, options, operands, dropout)
    # The output is kept unrounded: the row sums of the backward pass amplify what rounding to bfloat16 loses.
    output, logsumexp = jax.tree.map(lambda x: checkpoint_name(x, SAVED_OUTPUT), (output, logsumexp))
    return output.astype(operands.query.dtype), (operands, dropout, output, logsumexp)


def _restore(ring: Ring, options: LocalOptions, saved, output_gradient):
    operands, dropout, output, logsumexp = saved
    if options.kernel is not Kernel.xla:
        output_gradient = silence_padding(output_gradient, operands.labels.segments)
    row_sums = None
    if not _in_one_block(ring, options, operands):  # else they are taken from the block, which is more precise
        gradient = silence_padding(output_gradient, operands.labels.segments)
        row_sums = (output * gradient.astype(output.dtype)).sum(axis=-1)
    rows = Rows(logsumexp, row_sums, output_gradient, output)
    query, (key, value) = ring_backward(ring, options, operands, dropout, rows)
    integers = operands.labels, dropout
    no_labels, no_dropout = jax.tree.map(lambda x: np.zeros(x.shape, jax.dtypes.float0), integers)
    return Operands(query.astype(operands.query.dtype), key, value, no_labels), no_dropout


ring_attention = jax.custom_vjp(_ring_attention, nondiff_argnums=(0, 1))
ring_attention.defvjp(_save, _restore)
