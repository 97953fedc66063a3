"""The sharding rules: which arrays are split, over which axes, and the shards of a device."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from ringrl.parallel import make_mesh
from ringrl.parallel.gather import gather, sum_gradients
from ringrl.parallel.sharding import bytes_per_device, explain, leaf_spec, parameter_specs, split_axes

ALL = ("fsdp", "ring", "head")
LAYER = "params/transformer/layers/feedforward/up/kernel"


@pytest.mark.parametrize(
    ("path", "shape", "spec"),
    [
        (LAYER, (2, 64, 256), P(None, ALL)),
        ("optimizer_state/1/mu/transformer/layers/query/kernel", (2, 64, 64), P(None, ALL)),
        (LAYER, (2, 12, 256), P(None, None, ALL)),  # 8 does not divide 12
        (LAYER, (8, 12, 20), P(None, ("fsdp", "ring"))),  # nor 20: over 4; never over layers
        (LAYER, (8, 7, 6), P(None, None, ("fsdp",))),
        (LAYER, (8, 7, 5), P()),
        ("params/embedding/timestep/embedding", (1000, 64), P(None, ALL)),
        ("params/embedding/trajectory/embedding", (64, 12), P(ALL)),
        ("params/action/kernel", (64, 10), P(ALL)),
        ("params/embedding/projections/slot_0/kernel", (3, 64), P(None, ALL)),
        ("params/transformer/layers/attention_norm/scale", (8, 64), P()),
        ("params/action/bias", (64,), P()),
        ("optimizer_state/1/count", (), P()),
    ],
)
def test_each_rule(path: str, shape: tuple[int, ...], spec: P) -> None:
    assert leaf_spec(path, shape, make_mesh(fsdp=2, ring=2, head=2)) == spec


def test_replicas_hold_the_same_and_axes_of_one_device_are_left_out() -> None:
    assert leaf_spec(LAYER, (2, 64, 64), make_mesh(data=4, ring=2)) == P(None, ("ring",))
    assert leaf_spec(LAYER, (2, 64, 64), make_mesh(data=8)) == P()


def test_explanation_adds_up() -> None:
    mesh = make_mesh(fsdp=2, ring=4)
    tree = {
        "layers": {"kernel": jax.ShapeDtypeStruct((2, 64, 8), jnp.float32)},
        "bias": jax.ShapeDtypeStruct((5,), jnp.bfloat16),
    }
    lines = {line.path: line for line in explain(tree, mesh)}
    assert lines["layers/kernel"].bytes_per_device == 2 * 64 * 8 * 4 // 8
    assert lines["bias"].bytes_per_device == 10
    assert bytes_per_device(tree, mesh) == 2 * 64 * 8 * 4 // 8 + 10
    assert bytes_per_device(tree, None) == 2 * 64 * 8 * 4 + 10
    assert split_axes(lines["layers/kernel"].spec) == ("fsdp", "ring")


def test_gradients_of_a_loop_add_up_in_float32() -> None:
    """In bfloat16, 256 and 1 make 256."""
    mesh, spec = make_mesh(fsdp=2), P(("fsdp",))

    def on_each_device(part):
        def loss(part):
            whole = gather([part], [spec], jnp.bfloat16)[0]

            def block(total, _):
                return total + whole.astype(jnp.bfloat16).sum().astype(jnp.float32), None

            return jax.lax.scan(block, jnp.float32(0), length=512)[0]

        return jax.grad(loss)(part)

    run = jax.jit(jax.shard_map(on_each_device, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))
    np.testing.assert_array_equal(run(np.zeros(4, np.float32)), np.full(4, 1024, np.float32))


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_gathered_parameters_and_their_gradients(dtype) -> None:
    mesh = make_mesh(data=2, fsdp=2, ring=2)
    tree = {"layers/kernel": np.arange(2 * 8 * 3.0, dtype=np.float32).reshape(2, 8, 3), "bias": np.ones(3, np.float32)}
    specs = parameter_specs(tree, mesh)
    axes = ("data", "fsdp", "ring")

    def on_each_device(tree):
        number = jax.lax.axis_index(axes).astype(jnp.float32)

        def loss(tree):
            whole = gather(tree, specs, dtype)
            assert whole["layers/kernel"].shape == (2, 8, 3)
            assert whole["layers/kernel"].dtype == jnp.float32
            product = whole["layers/kernel"].astype(jnp.float32) * whole["bias"][None, None]
            return product.sum() * number

        return sum_gradients(jax.grad(loss)(tree), specs, axes)

    found = jax.jit(jax.shard_map(on_each_device, mesh=mesh, in_specs=(specs,), out_specs=specs, check_vma=False))(tree)
    total = sum(range(8))
    np.testing.assert_array_equal(found["layers/kernel"], np.full((2, 8, 3), total, np.float32))
    np.testing.assert_array_equal(found["bias"], total * tree["layers/kernel"].sum((0, 1)))
    assert found["layers/kernel"].dtype == jnp.float32
    assert math.prod(found["layers/kernel"].addressable_shards[0].data.shape) == 2 * 8 * 3 // 4
