"""Inputs of an agent are of order 1, and independent of the units of the data."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from ringrl.agents import AgentConfig, make_agent
from ringrl.data import ChainSampler, EpisodeStore, EpisodeStoreWriter, check_store, fit_normalization
from ringrl.data.config import ChainConfig
from ringrl.evaluation.history import History
from ringrl.nn import ModelConfig
from ringrl.ops import AttentionConfig
from ringrl.types import ActionKind, ActionSpec, Chain, Context, Normalization

UNITS = [1e-30, 1e-9, 1e-3, 1.0, 1e4, 1e30]
EPISODES, STEPS = 6, 60
COLUMNS = ["normal", "far from zero", "an outlier", "a rare flag", "constant", "zero", "heavy tails"]
QUICK = {"xla_backend_optimization_level": 0}  # compiles in half the time
SHOWN = ("observations", "actions", "rewards", "return_to_go", "previous_actions", "previous_rewards")


def store_in_units(path, unit: float) -> EpisodeStore:
    """Episodes of two tasks, every number of which is `unit` times the same."""
    rng = np.random.default_rng(0)
    rows = (EPISODES, STEPS)
    flags = np.zeros(rows)
    flags[2, 7] = 1.0
    outlier = rng.normal(size=rows)
    outlier[1, 3] = 1e7
    columns = [rng.normal(size=rows), 1000 + rng.normal(size=rows), outlier, flags, np.full(rows, 3.0)]
    columns += [np.zeros(rows), rng.standard_t(1.5, rows)]
    observations = np.stack(columns, axis=-1)
    # Bounds around another place than 0, bounds far wider than what is done, and an action that never changes.
    wide = rng.uniform(-1, 1, rows)
    actions = np.stack([rng.uniform(-4, 2, rows), wide, np.full(rows, 0.7)], axis=-1)
    bounds = np.array([[-4, -1e4, -1e4], [2, 1e4, 1e4]]) * unit
    spec = ActionSpec(ActionKind.continuous, 3, *(tuple(bound.tolist()) for bound in bounds))
    # Rewards that cancel: every return is 0, or as good as, while half of an episode earns much.
    rewards = np.where(np.arange(STEPS) < STEPS // 2, 0.5, -0.5) * (1 + np.arange(EPISODES)[:, None])
    with EpisodeStoreWriter(path, len(COLUMNS), spec) as writer:
        for index in range(EPISODES):
            writer.append(unit * observations[index], unit * actions[index], unit * rewards[index], task_id=index % 2)
        return writer.finish()


def chains(store: EpisodeStore, scale: Normalization, *, short: bool = False) -> Chain:
    """Every episode of both tasks once; with `short`, step by step instead of in runs."""
    sampler = ChainSampler(store, ChainConfig(trajectories=3), scale)
    places = np.arange(sampler.steps)
    return sampler.assemble(np.array([[0, 2, 4], [1, 3, 5]]), places=places[::-1] if short else places)


@pytest.fixture(scope="module")
def by_unit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("units")
    stores = {unit: store_in_units(folder / f"{unit}", unit) for unit in UNITS}
    return {unit: (store, fit_normalization(store)) for unit, store in stores.items()}


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("unit", UNITS)
def test_every_number_shown_is_of_order_one(by_unit, unit, short):
    chain = chains(*by_unit[unit], short=short)
    for name in SHOWN:
        values = np.asarray(getattr(chain, name))
        assert np.isfinite(values).all(), name
        assert np.abs(values).max() <= 10.0, name
    deviation = chain.observations.reshape(-1, len(COLUMNS)).std(axis=0)
    constant = np.isin(COLUMNS, ["constant", "zero"])
    assert (deviation[~constant] > 0.3).all(), dict(zip(COLUMNS, deviation, strict=True))
    assert (deviation[constant] == 0).all()
    assert chain.observations[..., constant].max() == 0
    assert np.abs(chain.return_to_go).max() == pytest.approx(1.0)
    assert np.sqrt(np.mean(chain.rewards**2)) == pytest.approx(1.0, rel=1e-5)
    moving = chain.actions.reshape(-1, 3).std(axis=0)
    np.testing.assert_allclose(moving, [1 / np.sqrt(3), 1 / np.sqrt(3), 0], rtol=0.1)


@pytest.mark.parametrize("unit", UNITS)
def test_the_same_data_in_other_units_are_shown_alike(by_unit, unit):
    expected, found = chains(*by_unit[1.0]), chains(*by_unit[unit])
    for field in dataclasses.fields(Chain):
        np.testing.assert_allclose(
            getattr(found, field.name), getattr(expected, field.name), rtol=1e-4, atol=1e-3, err_msg=field.name
        )


def test_the_loss_is_the_same_in_other_units(by_unit):
    (shown,) = {scale.shown_spec(store.spec) for store, scale in by_unit.values()}
    agent = make_agent(
        AgentConfig(tokens_per_step=1, action_head="gaussian"),  # type: ignore[arg-type]
        ModelConfig(layers=1, width=16, heads=2),
        AttentionConfig(),
        shown,
        context=Context.chain,
    )
    parameters = jax.jit(agent.init, compiler_options=QUICK)(jax.random.key(0))
    loss = jax.jit(agent.loss, compiler_options=QUICK)
    losses = [float(loss(parameters, chains(*by_unit[unit]))[0]) for unit in UNITS]
    np.testing.assert_allclose(losses, losses[UNITS.index(1.0)], rtol=1e-4)


@pytest.mark.parametrize("unit", UNITS)
def test_acting_shows_what_training_showed(by_unit, unit):
    store, scale = by_unit[unit]
    sampler = ChainSampler(store, ChainConfig(trajectories=1), scale)
    expected = sampler.assemble(np.array([[4]]))
    history = History(
        scale.shown_spec(store.spec),
        scale,
        Context.chain,
        environments=1,
        capacity=STEPS,
        target_return=float(store.returns[4]),
    )
    begin = int(store.starts[4])
    for step in range(STEPS):
        row = slice(begin + step, begin + step + 1)
        history.append(store.observations[row], np.array([True]))
        shown = scale.actions(store.actions[row])
        np.testing.assert_allclose(scale.environment_actions(shown), store.actions[row], rtol=1e-5)
        ended = np.array([step == STEPS - 1])
        history.finish_step(shown, store.rewards[row].astype(np.float64), ended, np.array([True]))
    found = history.chain()
    for name in (*SHOWN, "completion"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-4, err_msg=name)


def test_returns_that_cancel_leave_a_scale_of_what_is_shown(tmp_path):
    with EpisodeStoreWriter(tmp_path / "store", 1, ActionSpec(ActionKind.discrete, 2)) as writer:
        for _ in range(3):
            writer.append(np.zeros((30, 1)), np.zeros(30, int), np.tile([0.1, 0.2, -0.3], 10))
        store = writer.finish()
    assert np.abs(store.returns).max() < 1e-6
    assert fit_normalization(store).return_scale == pytest.approx(0.3, rel=1e-5)


def test_the_best_of_a_task_is_in_the_scale_of_returns(tmp_path):
    with EpisodeStoreWriter(tmp_path / "store", 1, ActionSpec(ActionKind.discrete, 2)) as writer:
        writer.append(np.zeros((2, 1)), np.zeros(2, int), np.array([-6.0, 2.0]))  # from -6 on 10 are missing to 4
        writer.append(np.zeros((2, 1)), np.zeros(2, int), np.array([1.0, 3.0]))
        store = writer.finish()
    scale = fit_normalization(store)
    assert scale.return_scale == 10.0
    sampler = ChainSampler(store, ChainConfig(trajectories=2), scale)
    np.testing.assert_allclose(sampler.assemble(np.array([[0, 1]])).return_to_go, [[0.4, 1.0, 0.4, 0.3]])


def test_numbers_at_the_ends_of_float32_stay_finite(tmp_path):
    largest, least = float(np.finfo(np.float32).max), 1e-42
    rng = np.random.default_rng(0)
    column = rng.uniform(-1, 1, (100, 1))
    observations = np.concatenate([column * largest, np.sign(column) * largest, column * least], axis=1)
    spec = ActionSpec(ActionKind.continuous, 2, (-largest, -least), (largest, least))
    actions = np.concatenate([column * largest, column * least], axis=1)
    with EpisodeStoreWriter(tmp_path / "store", 3, spec) as writer:
        writer.append(observations, actions, np.full(100, least))
        store = writer.finish()
    scale = fit_normalization(store)
    chain = ChainSampler(store, ChainConfig(trajectories=1), scale).assemble(np.array([[0]]))
    for name in SHOWN:
        assert np.isfinite(getattr(chain, name)).all(), name
        assert np.abs(getattr(chain, name)).max() <= 10.0, name
    assert (chain.observations[0, :, :2].std(axis=0) > 0.5).all()


def test_one_huge_reward_does_not_hide_the_others(tmp_path):
    rewards = np.ones(2000)
    rewards[700] = 1e9
    with EpisodeStoreWriter(tmp_path / "store", 1, ActionSpec(ActionKind.discrete, 2)) as writer:
        writer.append(np.zeros((2000, 1)), np.zeros(2000, int), rewards)
        scale = fit_normalization(writer.finish())
    np.testing.assert_allclose(scale.rewards(np.float32([1.0, 1e9, -1e9])), [1.0, 10.0, -10.0], rtol=0.05)


def test_acting_shows_float64_as_the_data_show_it():
    """Observations about 1e6, of which float32 has sixteenths; a data set keeps float32."""
    raw = 1e6 + np.array([[0.03, -0.02], [0.3, 0.11]])
    scale = Normalization(np.full(2, 1e6, np.float32), np.full(2, 0.1, np.float32), reward_scale=1e-3)
    np.testing.assert_array_equal(scale.observations(raw), scale.observations(raw.astype(np.float32)))
    np.testing.assert_array_equal(scale.observations(raw), np.float32([[0, 0], [3.125, 1.25]]))
    np.testing.assert_array_equal(scale.rewards(raw[:, 0]), scale.rewards(raw[:, 0].astype(np.float32)))


def test_scales_of_older_runs_are_read_and_leave_actions_alone():
    told = {"observation_mean": [1.0, 2.0], "observation_std": [0.5, 1.0], "reward_scale": 2.0, "return_scale": 5.0}
    scale = Normalization.from_json(told)
    raw = np.array([[100.0, -100.0]], np.float32)
    np.testing.assert_array_equal(scale.observations(raw), [[198.0, -102.0]])
    np.testing.assert_array_equal(scale.actions(raw), raw)
    np.testing.assert_array_equal(scale.environment_actions(raw), raw)
    np.testing.assert_array_equal(scale.rewards(raw), raw / 2)


def test_scales_survive_json(by_unit):
    _, scale = by_unit[1e-9]
    again = Normalization.from_json(json.loads(json.dumps(scale.to_json())))
    for field in dataclasses.fields(Normalization):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(scale, field.name))


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_a_wrong_return_to_go_is_found_in_any_unit(tmp_path, unit):
    store = store_in_units(tmp_path / "store", unit)
    assert check_store(store) == []
    column = np.load(tmp_path / "store" / "returns_to_go.npy", mmap_mode="r+")
    column[70] *= 1.01
    column.flush()
    assert "returns_to_go" in str(check_store(tmp_path / "store", content=False)[0])
