"""Gradients in bfloat16: those of float32, rounded once a device; and everything after them in float32."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ringrl.agents import SequenceAgent
from ringrl.errors import RingRLError
from ringrl.nn import ModelConfig
from ringrl.ops import AttentionConfig
from ringrl.parallel import make_mesh
from ringrl.parallel.gradient_dtype import cast_gradients
from ringrl.parallel.sharding import batch_sharding, parameter_shardings
from ringrl.planning.compile.step import abstract_batch, abstract_state, synthetic_agent
from ringrl.planning.hlo.collectives import Kind
from ringrl.planning.model.traffic import estimate_traffic
from ringrl.training.config import OptimizerConfig, Precision, TrainingConfig
from ringrl.training.gradients import loss_and_gradients
from ringrl.training.optimizer import make_optimizer
from ringrl.training.state import TrainState, create_state
from ringrl.training.step import make_train_step
from ringrl.types import Chain

CHAINS, STEPS = 4, 32
QUICK = {"xla_backend_optimization_level": 0}  # compiles in half the time
ROUNDING = 2.0**-8  # of bfloat16: half its spacing, relative
MESHES = {"one": None, "ring": {"ring": 4, "fsdp": 2}, "replicas": {"data": 2, "ring": 4}}
NARROW = TrainingConfig(
    steps=20, batch_size=CHAINS, gradient_precision="bfloat16", optimizer=OptimizerConfig(warmup_steps=2)
)


@functools.cache
def agent_on(name: str, remat: str = "layer") -> SequenceAgent:
    sizes = MESHES[name]
    model = ModelConfig(layers=2, width=16, heads=2, remat=remat, feedforward_block_size=4, unroll_layers=False)
    attention = AttentionConfig("blockwise" if sizes is None else "ring", query_block_size=8, key_block_size=8)
    return synthetic_agent(model, attention, None if sizes is None else make_mesh(**sizes), loss_block_size=4)


@functools.cache
def make_batch() -> Chain:
    """Random numbers, unevenly supervised."""
    generator = np.random.default_rng(0)
    shapes = abstract_batch(agent_on("one"), CHAINS, STEPS)
    drawn = jax.tree.map(lambda leaf: generator.normal(size=leaf.shape).astype(np.float32), shapes)
    order = np.broadcast_to(np.arange(STEPS, dtype=np.int32), (CHAINS, STEPS))
    labels = {"timesteps": order, "trajectories": 0 * order, "positions": order, "segment_ids": 0 * order}
    fields = {**vars(drawn), **labels, "actions": np.tanh(drawn.actions), "loss_mask": drawn.loss_mask > -0.5}
    return Chain(**{**fields, "loss_mask": fields["loss_mask"].astype(np.float32)})


def placed(agent: SequenceAgent, params, batch: Chain):
    if agent.mesh is None:
        return params, batch
    shardings = parameter_shardings(params, agent.mesh)
    return jax.device_put(params, shardings), jax.device_put(batch, batch_sharding(agent.mesh))


@functools.cache
def gradients(name: str, narrow: bool, pieces: int, remat: str = "layer"):
    agent = agent_on(name, remat)
    params = jax.jit(agent_on("one").init)(jax.random.key(0))
    dtype = jnp.bfloat16 if narrow else None
    run = functools.partial(loss_and_gradients, agent, pieces=pieces, dtype=dtype)
    return jax.jit(run, compiler_options=QUICK)(*placed(agent, params, make_batch()), jax.random.key(1))


@pytest.mark.parametrize(
    ("name", "pieces", "remat"),
    [
        pytest.param("one", 1, "layer", marks=pytest.mark.scale),
        pytest.param("ring", 1, "layer", marks=pytest.mark.scale),
        pytest.param("one", 2, "none", marks=pytest.mark.scale),
        pytest.param("ring", 1, "none", marks=pytest.mark.scale),
        pytest.param("ring", 2, "layer", marks=pytest.mark.scale),
        pytest.param("replicas", 1, "layer", marks=pytest.mark.scale),
    ],
)
def test_gradients_are_those_of_float32_rounded(name: str, pieces: int, remat: str) -> None:
    devices = 1 if MESHES[name] is None else 8
    loss, metrics, exact = gradients("one", False, 1)
    found_loss, found_metrics, found = gradients(name, True, pieces, remat)
    assert float(found_loss) == pytest.approx(float(loss), rel=1e-6), "only gradients are rounded"
    assert found_metrics["supervised_steps"] == metrics["supervised_steps"]
    differs = False
    for (path, one), other in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(exact), strict=True):
        assert one.dtype == jnp.float32
        scale = np.linalg.norm(other)
        error = np.linalg.norm(np.asarray(one) - np.asarray(other))
        # Each of at most `devices` x `pieces` terms is rounded, and each of their sums, independently of each other.
        assert error <= 2 * ROUNDING * np.sqrt(devices) * scale + 1e-9, jax.tree_util.keystr(path)
        differs |= bool(error > 1e-5 * scale)
    assert differs, "nothing was rounded"


@pytest.mark.scale
def test_a_single_device_rounds_once() -> None:
    """To the last bit: sums over blocks of tokens are not rounded, nor is the mean."""
    exact, found = gradients("one", False, 1)[2], gradients("one", True, 1)[2]
    steps = jnp.float32(gradients("one", False, 1)[1]["supervised_steps"])
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
        error = np.abs(np.asarray(one) - np.asarray(other))
        assert (error <= ROUNDING * np.abs(other) * 1.001 + 1e-9).all()
        rounded = np.asarray(one * steps)
        np.testing.assert_allclose(rounded, rounded.astype(jnp.bfloat16).astype(np.float32), rtol=1e-6)


@pytest.fixture(scope="module")
def toy(toy_agent):
    """An agent that compiles quickly and supports carriers."""

    class Settling(toy_agent):
        def loss(self, params, batch, dropout_key=None):
            return super().loss(cast_gradients(params), batch, dropout_key)

    return Settling()


@pytest.mark.scale
@pytest.mark.parametrize("pieces", [1, 4])
def test_one_step_equals_optax_by_hand(toy, chain, pieces: int) -> None:
    training = dataclasses.replace(NARROW, batch_size=8, gradient_accumulation=pieces)
    state, batch = create_state(toy, training, 0), chain(0)
    params = jax.tree.map(np.asarray, state.params)
    key = jax.random.fold_in(state.key, state.step)
    by_hand = jax.tree.map(np.asarray, loss_and_gradients(toy, params, batch, key, pieces, jnp.bfloat16)[2])
    exact = loss_and_gradients(toy, params, batch, key, pieces)[2]
    for one, other in zip(jax.tree.leaves(by_hand), jax.tree.leaves(exact), strict=True):
        error, scale = np.linalg.norm(one - other), np.linalg.norm(other)
        assert 1e-5 * scale < error <= ROUNDING * scale, "rounded, and once"
    optimizer = make_optimizer(training)
    with jax.numpy_dtype_promotion("standard"):
        updates, moments = optimizer.update(by_hand, optimizer.init(params), params)
    expected = optax.apply_updates(params, updates)

    state, metrics = make_train_step(toy, training)(state, batch)

    for one, other in zip(
        jax.tree.leaves((state.params, state.optimizer_state)), jax.tree.leaves((expected, moments)), strict=True
    ):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    norm = np.sqrt(sum(float((leaf.astype(np.float64) ** 2).sum()) for leaf in jax.tree.leaves(by_hand)))
    assert float(metrics["gradient_norm"]) == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_batch_changes_nothing_but_the_counters(toy, chain, assert_same, bad: float) -> None:
    training = dataclasses.replace(NARROW, batch_size=8)
    state, broken = create_state(toy, training, 0), chain(1)
    before = jax.tree.map(jnp.copy, (state.params, state.optimizer_state))
    broken.actions[5, 0, 0] = bad
    broken.loss_mask[5, 0] = 1.0
    state, metrics = make_train_step(toy, training)(state, broken)
    assert (int(metrics["skipped"]), int(state.step)) == (1, 1)
    assert_same((state.params, state.optimizer_state), before)


def test_sums_of_pieces_are_kept_in_float32(toy) -> None:
    """In bfloat16, 256 and 1 make 256."""
    pieces = 512

    class Counting(type(toy)):
        def loss(self, params, batch, dropout_key=None):
            return cast_gradients(params)["action"]["bias"].sum(), {"supervised_steps": batch.loss_mask.sum()}

    ones = jnp.ones((pieces, 1), jnp.float32)
    batch = Chain(**dict.fromkeys((field.name for field in dataclasses.fields(Chain)), ones))
    params = toy.init(jax.random.key(0))
    found = loss_and_gradients(Counting(), params, batch, jax.random.key(0), pieces, jnp.bfloat16)[2]
    np.testing.assert_array_equal(found["action"]["bias"], 1.0)


@pytest.mark.scale
def test_a_step_of_eight_devices() -> None:
    agent = agent_on("ring")
    state = create_state(agent, NARROW, 0)
    params = jax.tree.map(np.array, state.params)
    batch = jax.device_put(make_batch(), batch_sharding(agent.mesh))
    wide_state, wide = make_train_step(agent, dataclasses.replace(NARROW, gradient_precision="float32"))(
        create_state(agent, NARROW, 0), batch
    )
    narrow_state, narrow = make_train_step(agent, NARROW)(state, batch)
    assert float(narrow["loss"]) == pytest.approx(float(wide["loss"]), rel=1e-6)
    assert float(narrow["gradient_norm"]) == pytest.approx(float(wide["gradient_norm"]), rel=ROUNDING)
    assert float(narrow["gradient_norm"]) != float(wide["gradient_norm"])
    moved = optax.tree.sub(jax.tree.map(np.asarray, wide_state.params), params)
    apart = jax.tree.map(lambda one, other: np.asarray(one) - np.asarray(other), narrow_state.params, wide_state.params)
    norms = [np.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(tree))) for tree in (apart, moved)]
    assert norms[0] < 0.1 * norms[1]  # Adam's first step is by signs, which are no different where gradients are clear


def test_the_state_is_the_same_either_way() -> None:
    """So a run may be resumed with the other precision."""
    wide, narrow = (abstract_state(agent_on("ring"), training) for training in (TrainingConfig(), NARROW))
    assert isinstance(narrow, TrainState)
    assert jax.tree.structure(wide) == jax.tree.structure(narrow)
    for one, other in zip(jax.tree.leaves(narrow), jax.tree.leaves(wide), strict=True):
        assert (one.shape, one.dtype, one.sharding) == (other.shape, other.dtype, other.sharding)


@pytest.mark.parametrize("narrow", [pytest.param(False, marks=pytest.mark.scale), True])
def test_what_is_sent_is_of_that_dtype(narrow: bool) -> None:
    """As the program asks for it: XLA for CPUs then adds bfloat16 up in float32."""
    agent = agent_on("ring")
    training = NARROW if narrow else TrainingConfig(batch_size=CHAINS)
    step = make_train_step(agent, training)
    text = step.lower(abstract_state(agent, training), abstract_batch(agent, CHAINS, STEPS)).as_text()
    found = re.findall(r'"stablehlo.reduce_scatter".*?\}\) : \(tensor<[^>]*x(\w+)>\)', text, re.DOTALL)
    assert len(found) > 5
    assert set(found) == {"bf16" if narrow else "f32"}


def test_on_paper_it_halves_what_gradients_send() -> None:
    agent = agent_on("replicas")
    wide, narrow = (estimate_traffic(agent, CHAINS, STEPS, 1, dtype) for dtype in (jnp.float32, jnp.bfloat16))
    assert narrow[Kind.reduce_scatter] == wide[Kind.reduce_scatter] / 2 > 0
    assert narrow[Kind.all_reduce] < wide[Kind.all_reduce]
    assert narrow[Kind.all_gather] == wide[Kind.all_gather]
    pieces = [
        estimate_traffic(agent, CHAINS, STEPS, 2, dtype)[Kind.all_reduce] for dtype in (jnp.float32, jnp.bfloat16)
    ]
    assert pieces[0] == pieces[1], "sums over pieces are float32"


def test_words_are_understood() -> None:
    assert NARROW.gradient_precision is Precision.bfloat16
    with pytest.raises(RingRLError, match=r"training\.gradient_precision=half is unknown"):
        TrainingConfig(gradient_precision="half")
