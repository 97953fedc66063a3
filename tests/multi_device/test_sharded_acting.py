"""Acting from a cache sharded over devices: the actions of one device, without sending arrays of the cache's length."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.agents import AgentConfig, SequenceAgent, make_agent
from ringrl.cli.compose import as_plain
from ringrl.config import TrainCommand
from ringrl.data.config import ChainConfig
from ringrl.data.store_format import spec_to_json
from ringrl.evaluation import policy as acting
from ringrl.nn import ModelConfig, empty_cache, forget_contexts, grow_cache
from ringrl.nn.cache import write_rows
from ringrl.ops import AttentionConfig
from ringrl.parallel import make_mesh
from ringrl.parallel.sharding import parameter_shardings
from ringrl.runs import agent as loading
from ringrl.types import ActionKind, ActionSpec, Chain, Context, DataSpec, Normalization

ENVIRONMENTS, STEPS, CAPACITY, OBSERVATIONS = 3, 30, 13, 3
SPEC = DataSpec(OBSERVATIONS, ActionSpec(ActionKind.continuous, 2, (-1.0, -2.0), (1.0, 2.0)), 9)
NORMALIZATION = Normalization(np.zeros(OBSERVATIONS, np.float32), np.ones(OBSERVATIONS, np.float32), 2.0, 5.0)
QUICK = {"xla_backend_optimization_level": 0}  # compiles in half the time
SIZES = {f"ring={n}": {"ring": n} for n in (1, 2, 4)} | {"fsdp=4 ring=2": {"fsdp": 4, "ring": 2}}


def build(mesh: jax.sharding.Mesh | None = None, strategy: str = "ring", **sizes) -> SequenceAgent:
    return make_agent(
        AgentConfig(tokens_per_step=2, trajectory_embedding=True, max_trajectories=8),
        ModelConfig(**{"layers": 2, "width": 32, "heads": 4, "key_value_heads": 2, **sizes}),
        AttentionConfig(strategy),
        SPEC,
        context=Context.chain,
        mesh=mesh,
    )


@functools.cache
def parameters():
    return jax.jit(lambda key: jax.tree.map(lambda leaf: leaf * 2, build().init(key)), compiler_options=QUICK)(
        jax.random.key(0)
    )


def spread(mesh: jax.sharding.Mesh):
    return jax.device_put(parameters(), parameter_shardings(parameters(), mesh))


def play(policy: acting.CachedPolicy) -> list[tuple[np.ndarray, np.ndarray]]:
    """Outputs and sampled actions in a simulated world; episode lengths differ, environments idle."""
    random = np.random.default_rng(0)
    policy.reset(ENVIRONMENTS, 0)
    timestep, last, found = np.zeros(ENVIRONMENTS, int), np.zeros((ENVIRONMENTS, 2)), []
    for step in range(STEPS):
        observations = random.normal(size=(ENVIRONMENTS, OBSERVATIONS)) + last[:, :1]
        active = random.random(ENVIRONMENTS) < (1.0 if step < 3 else 0.85)
        actions = policy.act(observations, active)
        found.append((np.asarray(policy.outputs)[active], actions[active]))
        last = np.where(active[:, None], actions, last)
        timestep += active
        finished = active & ((random.random(ENVIRONMENTS) < 0.2) | (timestep >= 9))
        timestep[finished] = 0
        policy.observe(last.sum(axis=1), finished, active)
    return found


@pytest.fixture(scope="module")
def small_cache():
    """Caches of 16 tokens that grow to 26, rebuilt by the program that takes a step; quickly compiled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(acting, "SMALLEST_CACHE", 16)
        patch.setattr(acting, "REBUILD_TOKENS", 2)
        decode = acting._decode.__wrapped__
        quick = jax.jit(decode, static_argnums=0, donate_argnums=3, compiler_options=QUICK)
        patch.setattr(acting, "_decode", quick)
        yield


CONFIG = acting.ActingConfig(target_return=3.0, capacity=CAPACITY)


@pytest.fixture(scope="module")
def on_one_device(small_cache):
    return play(acting.CachedPolicy(build(strategy="blockwise"), parameters(), NORMALIZATION, CONFIG))


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param({"ring": 8}, id="ring=8", marks=pytest.mark.scale),
        pytest.param({"data": 2, "ring": 2, "head": 2}, id="data=2 ring=2 head=2"),  # a fourth context fills up
        *(pytest.param(sizes, id=name, marks=pytest.mark.scale) for name, sizes in SIZES.items()),
    ],
)
def test_actions_are_those_of_one_device(on_one_device, sizes: dict[str, int], monkeypatch) -> None:
    mesh = make_mesh(**sizes)
    policy = acting.CachedPolicy(build(mesh), spread(mesh), NORMALIZATION, CONFIG)
    rebuilt = []
    rebuild = policy._rebuild
    monkeypatch.setattr(policy, "_rebuild", lambda rows: rebuilt.append(rows.sum()) or rebuild(rows))
    found = play(policy)
    for step, ((outputs, actions), (expected_outputs, expected_actions)) in enumerate(
        zip(found, on_one_device, strict=True)
    ):
        np.testing.assert_allclose(outputs, expected_outputs, atol=1e-5, rtol=0, err_msg=f"step {step}")
        np.testing.assert_array_equal(actions, expected_actions, err_msg=f"step {step}")
    assert sum(rebuilt) >= ENVIRONMENTS, "trajectories were dropped"
    assert len({tuple(row) for _, actions in found for row in actions}) > 10, "actions differ from step to step"
    cache = policy._cache
    assert cache.capacity >= 2 * CAPACITY > 16, "the cache grew"
    for leaf in jax.tree.leaves(cache):
        assert leaf.addressable_shards[0].data.size * mesh.size == leaf.size


def filled_cache(mesh: jax.sharding.Mesh, capacity: int):
    """A one-layer cache whose row of position p holds p, in every context."""
    config = ModelConfig(layers=1, width=2, heads=1)
    cache = empty_cache(config, 4, capacity, jnp.dtype(jnp.float32), mesh)
    positions = jnp.broadcast_to(jnp.arange(capacity, dtype=jnp.int32), (4, capacity))
    new = jnp.broadcast_to(positions[:, :, None, None].astype(jnp.float32), (4, capacity, 1, 2))
    return dataclasses.replace(cache, keys=(quickly(write_rows, mesh)(cache.keys[0], new, positions),))


def quickly(write, mesh: jax.sharding.Mesh):
    return jax.jit(functools.partial(write, mesh=mesh), compiler_options=QUICK)


def test_tokens_are_dealt_in_turn_and_growth_leaves_them_where_they_are() -> None:
    mesh = make_mesh(data=2, ring=2, head=2)
    cache = filled_cache(mesh, 8)
    np.testing.assert_array_equal(cache.keys[0][:, 0, :, 0], cache.positions())
    assert sorted(np.asarray(cache.positions())[0]) == list(range(8))

    compiled = jax.jit(grow_cache, static_argnums=1).lower(cache, 15).compile(QUICK)
    assert not collectives(compiled)
    grown = compiled(cache)
    assert grown.capacity == 16, "rounded up to a multiple of the devices"
    positions, rows = np.asarray(grown.positions()), np.asarray(grown.keys[0])[:, 0, :, 0]
    np.testing.assert_array_equal(rows[positions < 8], positions[positions < 8])
    for before, after in zip(cache.keys[0].addressable_shards, grown.keys[0].addressable_shards, strict=True):
        assert before.device == after.device
        np.testing.assert_array_equal(before.data, after.data[:, :, :2])
        assert not np.asarray(after.data)[:, :, 2:].any()
    np.testing.assert_array_equal(np.asarray(grown.segment_ids), -1)


def test_positions_outside_the_cache_are_not_written() -> None:
    mesh = make_mesh(ring=4)
    cache = filled_cache(mesh, 8)
    positions = jnp.asarray([[-1], [8], [-4], [5]], jnp.int32)
    written = quickly(write_rows, mesh)(cache.keys[0], jnp.full((4, 1, 1, 2), 70.0), positions)
    changed = np.argwhere((np.asarray(written) != np.asarray(cache.keys[0]))[:, 0, :, 0])
    assert [(context, np.asarray(cache.positions())[context, row]) for context, row in changed] == [(3, 5)]


def test_contexts_are_forgotten_alone_and_filled_up_to_divide() -> None:
    cache = empty_cache(ModelConfig(layers=1), 3, 10, jnp.dtype(jnp.float32), make_mesh(data=2, ring=4))
    assert (cache.contexts, cache.capacity) == (4, 12)
    cache = dataclasses.replace(cache, segment_ids=cache.segment_ids + 1)
    forgotten = forget_contexts(cache, jnp.asarray([False, True, False, False])).segment_ids
    assert np.asarray(forgotten).max(axis=1).tolist() == [0, -1, 0, 0]


def collectives(compiled: jax.stages.Compiled) -> list[tuple[str, str]]:
    """Kind and shapes of everything that devices send one another."""
    kinds = "all-reduce|all-gather|all-to-all|collective-permute|collective-broadcast|reduce-scatter"
    found = re.findall(rf"= (.+?) ({kinds})(?:-start)?\(", compiled.as_text())
    return sorted((kind, " ".join(re.findall(r"\w+\[[\d,]*\]", shapes))) for shapes, kind in found)


@pytest.mark.parametrize(
    "whole",
    [pytest.param(True, id="whole parameters", marks=pytest.mark.scale), pytest.param(False, id="parameters in parts")],
)
def test_nothing_of_the_length_of_the_cache_travels(whole: bool) -> None:
    """Compiled for two lengths, a step sends the same; it writes in place, and copies no part of the cache."""
    mesh, contexts = make_mesh(data=2, ring=2, head=2), 4
    agent = build(mesh, width=128)  # so that a part of the cache is larger than the scores over it
    shapes = jax.eval_shape(agent.init, jax.random.key(0))
    replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    shardings = jax.tree.map(lambda _: replicated, shapes) if whole else parameter_shardings(shapes, mesh)

    def placed(tree, shardings):
        return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings)

    chain = placed(steps_of_zeros(contexts), jax.tree.map(lambda _: replicated, steps_of_zeros(contexts)))
    sent, temporary, one_array = [], [], 0
    for capacity in (512, 2048):
        cache = agent.empty_cache(contexts, capacity)
        cached = sum(leaf.nbytes for leaf in jax.tree.leaves(cache))
        compiled = acting._decode.lower(agent, placed(shapes, shardings), chain, cache).compile(QUICK)
        memory = compiled.memory_analysis()
        assert memory.alias_size_in_bytes == cached // mesh.size
        temporary.append(memory.temp_size_in_bytes)
        one_array = cache.keys[0].nbytes // mesh.size - one_array
        sent.append(collectives(compiled))
        outputs, after = compiled.output_shardings
        assert outputs.is_fully_replicated
        for leaf, sharding in zip(jax.tree.leaves(cache), jax.tree.leaves(after), strict=True):
            assert sharding.is_equivalent_to(leaf.sharding, leaf.ndim), "the next step finds it as this one did"
    assert temporary[1] - temporary[0] < one_array
    assert sent[0] == sent[1]
    assert "all-reduce" in {kind for kind, _ in sent[1]}
    gathered = {shapes for kind, shapes in sent[1] if kind != "all-reduce"}  # the outputs alone, not the parameters
    assert gathered <= {f"f32[{contexts},{size}{agent.head.output_size}]" for size in ("", "1,")}


def steps_of_zeros(contexts: int) -> Chain:
    """Two steps, as one moment of acting takes."""
    policy = acting.CachedPolicy(build(strategy="blockwise"), None, NORMALIZATION, CONFIG)
    policy.reset(contexts, 0)
    return policy.history.recent(2)


@pytest.mark.parametrize("context", [Context.chain, Context.trial])
def test_a_checkpoint_is_loaded_onto_a_mesh_where_a_chain_is_the_context(context: Context, monkeypatch) -> None:
    """Each device gets its part of the parameters; a short window stays on one device."""
    command = TrainCommand(
        agent=AgentConfig(tokens_per_step=2),
        chain=ChainConfig(context=context),
        attention=AttentionConfig("ring"),
    )
    saved = jax.tree.map(np.asarray, parameters())
    metadata = {
        "config": as_plain(command),
        "normalization": NORMALIZATION.to_json(),
        "spec": spec_to_json(SPEC),
        "environment": {"id": "ringrl/DarkRoom-v0"},
        "chain_steps": 20,
        "target_return": 1.0,
    }
    monkeypatch.setattr(loading, "restore_parameters", lambda *_: (saved, metadata))
    mesh = make_mesh(ring=8)
    loaded = loading.load_agent("run", mesh=mesh)
    kernel = loaded.parameters["transformer"]["layers"]["feedforward"]["up"]["kernel"]
    np.testing.assert_array_equal(kernel, saved["transformer"]["layers"]["feedforward"]["up"]["kernel"])
    if context is Context.chain:
        assert loaded.agent.mesh == mesh
        assert kernel.addressable_shards[0].data.size * 8 == kernel.size
    else:
        assert loaded.agent.mesh is None
        assert len(jnp.asarray(kernel).devices()) == 1
    assert loading.load_agent("run").agent.mesh is None
