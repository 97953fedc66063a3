"""A trace that TensorBoard's profiler reads, and the names in it."""

import re

import jax
import jax.numpy as jnp
import pytest
from jax.profiler import ProfileData

from ringrl.agents import AgentConfig, make_agent
from ringrl.errors import RingRLError
from ringrl.nn import ModelConfig
from ringrl.ops import AttentionConfig, Strategy
from ringrl.parallel import make_mesh
from ringrl.training.config import TrainingConfig
from ringrl.training.optimizer import make_optimizer
from ringrl.training.profile import PROFILE_AFTER, PROFILE_STEPS, ProfileWindow, profile_window
from ringrl.training.state import state_shapes, state_shardings
from ringrl.training.step import make_train_step
from ringrl.types import ActionKind, ActionSpec, Context, DataSpec


@jax.jit
def work(x):
    with jax.named_scope("scope_of_this_test"):
        return jnp.sin(x @ x)


def run(window, steps, log=None):
    x = jnp.ones((8, 8))
    with window:
        for step in range(steps):
            if window.due(step):
                jax.block_until_ready(x)
                window.at(step)
            if log is not None:
                log.append(window._tracing)
            x = work(x)


def traces(folder):
    return sorted(folder.glob("plugins/profile/*/*.xplane.pb"))


def test_the_steps_of_the_window_are_traced_where_tensorboard_looks(tmp_path):
    log = []
    run(ProfileWindow(tmp_path, first=2, steps=3), 8, log)
    assert log == [False, False, True, True, True, False, False, False]
    [trace] = traces(tmp_path)
    data = ProfileData.from_file(str(trace))
    names = {event.name for plane in data.planes for line in plane.lines for event in line.events}
    assert any("work" in name for name in names)


@pytest.mark.parametrize("steps", [3, 4])
def test_a_run_that_ends_in_the_window_leaves_its_trace(tmp_path, steps):
    run(ProfileWindow(tmp_path, first=2, steps=3), steps)
    assert len(traces(tmp_path)) == 1


def test_a_run_that_fails_in_the_window_leaves_its_trace_and_others_can_follow(tmp_path):
    def fail(window):
        with window:
            window.at(0)
            raise ZeroDivisionError

    for name in ("first", "second"):
        with pytest.raises(ZeroDivisionError):
            fail(ProfileWindow(tmp_path / name, first=0))
        assert len(traces(tmp_path / name)) == 1


def test_without_a_folder_nothing_is_traced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = []
    run(ProfileWindow(None, first=0), 5, log)
    assert log == [False] * 5
    assert not list(tmp_path.iterdir())


def test_two_traces_at_once_are_one_line(tmp_path):
    with ProfileWindow(tmp_path / "a", first=0) as window:
        window.at(0)
        with pytest.raises(RingRLError, match=r"^profile=true: no trace in .*b: .*profile"):
            ProfileWindow(tmp_path / "b", first=0).at(0)


@pytest.mark.parametrize(
    ("start", "stop", "first"),
    [
        (0, 1000, PROFILE_AFTER),
        (500, 1000, 500 + PROFILE_AFTER),
        (0, PROFILE_STEPS + 1, 1),
        (0, 1, 0),
        (998, 1000, 998),
    ],
)
def test_the_window_lies_within_the_run(tmp_path, start, stop, first):
    window = profile_window(tmp_path, start, stop)
    assert next(step for step in range(start, stop) if window.due(step)) == first


@pytest.fixture(scope="module")
def training_step(chain):
    """A whole training step round a ring, lowered."""
    spec = DataSpec(3, ActionSpec(ActionKind.continuous, 2, (-1.0, -1.0), (1.0, 1.0)), 10)
    agent = make_agent(
        AgentConfig(tokens_per_step=2),
        ModelConfig(layers=1, width=8, heads=2),
        AttentionConfig(Strategy.ring, query_block_size=8, key_block_size=8),
        spec,
        context=Context.chain,
        mesh=make_mesh(ring=2),
    )
    training = TrainingConfig(batch_size=2)
    batch = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, chain(0, chains=2, steps=8)))
    state = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state_shapes(agent, training),
        state_shardings(agent, make_optimizer(training)),
    )
    return make_train_step(agent, training).lower(state, batch)


def check_scopes(names):
    """Every part of a step is named, and so is every transfer of the ring; returns the words of each name."""
    scopes = [set(re.findall(r"\w+", name)) for name in names]
    for scope in ("attention", "feedforward", "loss", "optimizer"):
        assert any(scope in found for found in scopes), scope
    permutes = [found for found in scopes if "ppermute" in found]
    assert any("hop" in found for found in permutes)
    assert all(found & {"hop", "home"} for found in permutes)
    return scopes


def test_the_parts_of_a_step_are_named(training_step):
    check_scopes(set(re.findall(r'loc\("([^"]*)"\(', training_step.as_text(debug_info=True))))


@pytest.mark.slow
def test_the_compiled_step_keeps_the_names_backward_too(training_step):
    """What the profiler shows. In the backward pass a scope stands in brackets: transpose(jvp(attention))."""
    compiled = training_step.compile(compiler_options={"xla_backend_optimization_level": 0})
    scopes = check_scopes(set(re.findall(r'op_name="([^"]*)"', compiled.as_text())))
    for scope in ("attention", "feedforward", "loss"):
        assert any({scope, "transpose"} <= found for found in scopes), scope
