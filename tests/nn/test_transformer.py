"""The transformer: influences between tokens, measured by gradients, and options that must not change results."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.errors import RingRLError
from ringrl.nn import ModelConfig
from ringrl.ops import AttentionConfig

QUICK = {"xla_backend_optimization_level": 0}  # compiles in half the time


def influences(network, x, positions, segments):
    """(B, S, S) bool: whether output t of a chain depends on input s."""
    projection = jnp.asarray(np.random.default_rng(1).normal(size=x.shape[-1]), jnp.float32)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def jacobian(state):
        def outputs(x):
            return network(state, x, positions, segments) @ projection

        return jax.jacrev(outputs)(x)  # (B, S, B, S, M)

    full = np.abs(jacobian(network.state)).max(axis=-1)
    chains = np.arange(len(x))
    across = full.copy()
    across[chains, :, chains] = 0
    assert (across == 0).all(), "chains influence each other"
    return full[chains, :, chains] > 0


@pytest.mark.parametrize("strategy", ["dense", "blockwise"])
def test_a_token_sees_itself_and_what_came_before_in_its_segment(network, inputs, strategy):
    attention = AttentionConfig(strategy=strategy, query_block_size=4, key_block_size=3)
    x, positions, segments = inputs
    before = positions[:, None, :] <= positions[:, :, None]
    same = (segments[:, None, :] == segments[:, :, None]) & (segments >= 0)[:, None, :]
    itself = np.eye(x.shape[1], dtype=bool)[None]
    expected = (np.asarray(before) & np.asarray(same)) | itself
    np.testing.assert_array_equal(influences(network(attention), x, positions, segments), expected)


@functools.cache
def loss_and_gradients(network, dropout=False):
    def loss(state, x, positions, segments, output_weights):
        key = jax.random.key(5) if dropout else None
        return (network(state, x, positions, segments, key).astype(jnp.float32) * output_weights).sum()

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)), compiler_options=QUICK)


def run(network, inputs, dropout=False):
    weights = jnp.asarray(np.random.default_rng(3).normal(size=inputs[0].shape), jnp.float32)
    return loss_and_gradients(network, dropout)(network.state, *inputs, weights)


def assert_close(one, other, atol=2e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol, rtol=1e-4), one, other)


DROPOUT = {"attention_dropout": 0.3, "residual_dropout": 0.2}
BLOCKWISE = AttentionConfig(strategy="blockwise", query_block_size=4, key_block_size=3)


@pytest.mark.parametrize(
    "options",
    [
        {"unroll_layers": True},
        pytest.param({"remat": "dots"}, marks=pytest.mark.scale),
        pytest.param({"remat": "layer"}, marks=pytest.mark.scale),
        {"attention": BLOCKWISE, "feedforward_block_size": 4},
    ],
    ids=["unrolled", "remat-dots", "remat-layer", "blockwise"],
)
def test_ways_to_compute_change_nothing(network, inputs, options):
    """With dropout on, so that its keys are the same too."""
    options = dict(options)
    attention = options.pop("attention", None)
    reference = run(network(**DROPOUT), inputs, dropout=True)
    assert np.abs(reference[1][1]).max() > 0.1
    assert_close(run(network(attention, **DROPOUT, **options), inputs, dropout=True), reference)


def test_the_order_of_tokens_in_memory_changes_nothing_but_their_order(network, inputs):
    model = network()
    order = np.random.default_rng(4).permutation(inputs[0].shape[1])
    shuffled = model.jitted(model.state, *(array[:, order] for array in inputs))
    np.testing.assert_allclose(shuffled, model.jitted(model.state, *inputs)[:, order], atol=1e-5)


def test_positions_matter_through_rope_alone(network, inputs):
    x, positions, segments = inputs
    for rope in (True, False):
        model = network(rope=rope)
        as_they_are = model.jitted(model.state, *inputs)
        stretched = np.abs(model.jitted(model.state, x, 3 * positions, segments) - as_they_are).max()
        assert (stretched > 1e-2) == rope
        assert rope or stretched < 1e-5


def test_dropout_needs_a_key_and_follows_it(network, inputs):
    plain, dropping = network(), network(**DROPOUT)
    without = plain.jitted(plain.state, *inputs)
    np.testing.assert_array_equal(dropping.jitted(dropping.state, *inputs), without)
    draws = [dropping.jitted(dropping.state, *inputs, jax.random.key(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert np.abs(draws[0] - draws[2]).max() > 0.1
    assert np.abs(draws[0] - without).max() > 0.1


def test_bfloat16_computes_low_and_keeps_parameters_high(network, inputs):
    low, high = network(dtype=jnp.bfloat16), network()
    assert {leaf.dtype for leaf in jax.tree.leaves(low.state)} == {jnp.dtype(jnp.float32)}
    x, *labels = inputs
    output = low.jitted(low.state, x.astype(jnp.bfloat16), *labels)
    assert output.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(output), high.jitted(high.state, *inputs), atol=0.15)
    _, (gradients, _) = jax.eval_shape(loss_and_gradients(low), low.state, x.astype(jnp.bfloat16), *labels, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype(jnp.float32)}
    program = low.jitted.lower(low.state, x.astype(jnp.bfloat16), *labels).as_text()
    products = [line for line in program.splitlines() if "dot_general" in line]
    assert products
    assert all("(tensor<" in line and line.split(" : ")[1].count("xbf16>") >= 2 for line in products)


def test_heads_share_keys_and_values(network):
    shapes = {name: network(key_value_heads=heads).state["layers"] for name, heads in (("all", 0), ("one", 1))}
    assert shapes["all"]["key"]["kernel"].shape == (2, 16, 16)
    assert shapes["one"]["key"]["kernel"].shape == shapes["one"]["value"]["kernel"].shape == (2, 16, 4)
    assert shapes["one"]["query"]["kernel"].shape == shapes["one"]["output"]["kernel"].shape == (2, 16, 16)


def test_the_program_does_not_grow_with_layers(network, inputs):
    def program(**options):
        model = network(**options)
        state = jax.eval_shape(lambda: model.state)
        return loss_and_gradients(model).lower(state, *inputs, inputs[0]).as_text()

    few, many = (program(layers=layers) for layers in (2, 12))
    assert "stablehlo.while" in many
    assert many.count("dot_general") == few.count("dot_general")
    assert len(many) < 1.05 * len(few)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"width": 30, "heads": 4}, "model.width=30 is not divisible by model.heads=4"),
        ({"width": 32, "heads": 4, "key_value_heads": 3}, "model.key_value_heads=3 does not divide model.heads=4"),
        ({"width": 12, "heads": 4}, "model.rope needs an even head size, not 3"),
        ({"residual_dropout": 1.0}, r"model.residual_dropout=1.0 is not in \[0, 1\)"),
    ],
)
def test_impossible_sizes_are_refused(options, line):
    with pytest.raises(RingRLError, match=line):
        ModelConfig(**options)
    assert ModelConfig(width=12, heads=4, rope=False).width == 12
