"""Fused kernels behind any labels, round a ring: a stand-in that knows two masks takes the place of cuDNN's."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.ops import AttentionConfig, Kernel, Layout, attention, dealing_order
from ringrl.ops.kernels import KERNELS, fused
from ringrl.ops.kernels.private import NAMES
from ringrl.ops.precision import accumulator_dtype
from ringrl.parallel import make_mesh

QUICK = {"xla_backend_optimization_level": 0}
CHAINS, TOKENS, DEVICES, HEADS, KEY_HEADS, HEAD_SIZE = 2, 32, 4, 4, 2, 8


def weights_of(query, key, causal: bool, logsumexp=None):
    """Scores (B, H, S, T) as weights by a given logsumexp or by their own, and the logsumexp."""
    scores = jnp.einsum("bshd,bthd->bhst", query, key) * jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
    if causal:
        scores = jnp.where(jnp.tril(jnp.ones(scores.shape[2:], bool))[None, None], scores, -jnp.inf)
    if logsumexp is None:
        logsumexp = jnp.swapaxes(jax.nn.logsumexp(scores, axis=-1), 1, 2)
    return jnp.exp(scores - jnp.swapaxes(logsumexp, 1, 2)[..., None]), logsumexp


def widened(query, *arrays):
    """In the dtype of sums, every query head with keys of its own."""
    dtype, heads = accumulator_dtype(query), query.shape[2]
    return tuple(jnp.repeat(x.astype(dtype), heads // x.shape[2], axis=2) for x in (query, *arrays))


def forward(query, key, value, causal: bool):
    query, key, value = widened(query, key, value)
    weights, logsumexp = weights_of(query, key, causal)
    return jnp.einsum("bhst,bthd->bshd", weights, value), logsumexp


def backward(query, key, value, rows: fused.FusedRows, causal: bool):
    shape = (*key.shape[:3], query.shape[2] // key.shape[2], key.shape[3])
    query, key, value, gradient = widened(query, key, value, rows.output_gradient)
    weights, _ = weights_of(query, key, causal, rows.logsumexp)
    by_score = jnp.einsum("bshd,bthd->bhst", gradient, value) - jnp.swapaxes(rows.row_sums, 1, 2)[..., None]
    by_score = by_score * weights * query.shape[-1] ** -0.5
    parts = jnp.einsum("bhst,bshd->bthd", by_score, query), jnp.einsum("bhst,bshd->bthd", weights, gradient)
    key_gradient, value_gradient = (part.reshape(shape).sum(axis=3) for part in parts)
    return jnp.einsum("bhst,bthd->bshd", by_score, key), key_gradient, value_gradient


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, fresh_programs: None):
    """Every sharded call is by the stand-in."""
    library = types.SimpleNamespace(forward=forward, backward=backward)
    monkeypatch.setitem(KERNELS, Kernel.cudnn, fused.FusedKernel(library))
    for module in ("sharded", "dispatch"):
        monkeypatch.setattr(f"ringrl.ops.{module}.choose_kernel", lambda *_: Kernel.cudnn)


@pytest.fixture
def no_xla(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block of the kind `mixed` shows: XLA's kernel gives not-a-number in its place."""

    def spoilt(function):
        return lambda *arguments: jax.tree.map(lambda x: x * jnp.nan, function(*arguments))

    for name in ("forward", "backward"):
        monkeypatch.setattr(fused.xla, name, spoilt(getattr(fused.xla, name)))


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("strategy", "mesh", "fields"),
    [
        ("ring", {"ring": 8}, {"key_heads": 1}),
        pytest.param("hybrid", {"ring": 2, "head": 2}, {"tokens": 32, "window": 6}, marks=pytest.mark.scale),
        ("blockwise", {}, {"causal": False}),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("ring", {"ring": 2}, {}),
                ("ring", {"ring": 2}, {"tokens": 32, "causal": False, "key_heads": 4}),
                ("ring", {"ring": 4}, {"tokens": 32, "window": 20}),
                ("ulysses", {"head": 4}, {}),
            )
        ),
    ],
)
def test_any_labels_give_what_dense_attention_gives(make_case, truth, strategy, mesh: dict, fields: dict) -> None:
    """Every order of tokens, and packed and padded segments."""
    case = make_case(strategy, mesh, **fields)
    with jax.enable_x64(True):
        for labels in case.labels():
            for one, other in zip(case.results(np.float64, labels), truth(case, labels), strict=True):
                np.testing.assert_allclose(one, other, atol=1e-10, rtol=0, err_msg=str(labels))


@pytest.mark.usefixtures("stand_in", "no_xla")
@pytest.mark.parametrize("block", [2, pytest.param(512, marks=pytest.mark.slow)])
def test_layouts_of_full_and_end_padded_chains_never_need_xla(block: int) -> None:
    """One full chain and one padded at its end; the gradient of padding is not zero and must not matter.

    Whatever the block sizes: they are XLA's, and a fused kernel is given the whole of a device's keys.
    """
    mesh, generator = make_mesh(ring=DEVICES), np.random.default_rng(0)

    @functools.partial(jax.jit, compiler_options=QUICK, static_argnums=0)
    def run(strategy, arrays, output_gradient, positions, segments):
        labels = {"positions": positions, "segment_ids": segments}
        config = AttentionConfig(strategy, query_block_size=block, key_block_size=block)
        attend = functools.partial(attention, config=config, mesh=mesh, **labels)
        output, pull_back = jax.vjp(attend, *arrays)
        return output, *pull_back(output_gradient)

    with jax.enable_x64(True):
        heads = (HEADS, KEY_HEADS, KEY_HEADS, HEADS)
        *arrays, gradient = (jnp.asarray(generator.normal(size=(CHAINS, TOKENS, n, HEAD_SIZE))) for n in heads)
        for layout in Layout:
            order = np.broadcast_to(dealing_order(layout, TOKENS, DEVICES), (CHAINS, TOKENS)).astype(np.int32)
            segments = np.where(order < np.asarray([[TOKENS], [13]]), 0, -1).astype(np.int32)
            found, expected = (run(strategy, arrays, gradient, order, segments) for strategy in ("ring", "dense"))
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_allclose(one, other, atol=1e-10, rtol=0, err_msg=layout)
            assert np.abs(found[1]).max() > 0.1
            assert segments.min() == -1


@pytest.mark.usefixtures("stand_in", "no_xla")
def test_what_needs_xla_shows_without_it(make_case, token_labels_of) -> None:
    case = make_case("blockwise", {})

    @functools.partial(jax.jit, compiler_options=QUICK)
    def run(query, key, value, positions, segment_ids):
        labels = {"positions": positions, "segment_ids": segment_ids}
        return attention(query, key, value, config=AttentionConfig("blockwise"), **labels)

    arrays = case.arrays(np.float32)[:3]
    assert np.isnan(run(*arrays, *token_labels_of(case.tokens, "permuted", "padded"))).any()
    assert np.isfinite(run(*arrays, *token_labels_of(case.tokens, "contiguous", "one"))).all()


def test_a_ring_for_nvidia_is_made_of_cudnn_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lowered here for CUDA: one call for each kind, forward and backward, wherever a block is computed."""
    module = NAMES[Kernel.cudnn][0][0]
    monkeypatch.setattr(f"{module}.check_cudnn_version", lambda: 91000)
    monkeypatch.setattr("ringrl.ops.sharded.choose_kernel", lambda *_: Kernel.cudnn)
    mesh, config = make_mesh(ring=DEVICES), AttentionConfig("ring")
    arrays = [jax.ShapeDtypeStruct((1, 256, heads, 64), jnp.bfloat16) for heads in (HEADS, KEY_HEADS, KEY_HEADS)]

    def loss(*arrays):
        return attention(*arrays, config=config, mesh=mesh).astype(jnp.float32).sum()

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    text = gradient.trace(*arrays).lower(lowering_platforms=("cuda",)).as_text()
    kinds = 5
    for name in ("fmhaSoftmax", "fmhaSoftmaxBackward"):
        calls = text.count(f"@__cudnn${name}(")
        assert calls >= kinds, name
        assert calls % kinds == 0, name
