"""A batch that was not dealt in the configured layout is refused, with what to change, and costs nothing to find."""

import re
import time
import types
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.agents import AgentConfig, make_agent
from ringrl.data.reorder import reorder_chain
from ringrl.errors import RingRLError
from ringrl.nn import ModelConfig
from ringrl.ops import AttentionConfig, Layout, attention, check_dealt, dealing_order, dispatch
from ringrl.parallel import make_mesh
from ringrl.training.compilation import check_layout
from ringrl.training.config import TrainingConfig
from ringrl.training.loop import train
from ringrl.training.state import TrainState
from ringrl.types import ActionKind, ActionSpec, Chain, Context, DataSpec

DEVICES, STEPS, CHAINS = 4, 21, 2
SPEC = DataSpec(3, ActionSpec(ActionKind.continuous, 2, (-1.0,) * 2, (1.0,) * 2), 10)
BALANCED = [Layout.striped, Layout.zigzag]


def make_batch(layout: Layout | None, devices: int = DEVICES) -> Chain:
    """Chains of which one is padded, dealt in a layout; without one, in an order of no meaning."""
    order = np.broadcast_to(np.arange(STEPS, dtype=np.int32), (CHAINS, STEPS))
    segments = np.where(order < np.asarray([[STEPS], [STEPS - 3]]), 0, -1).astype(np.int32)
    zeros = np.zeros((CHAINS, STEPS), np.float32)
    floats = ("rewards", "return_to_go", "completion", "previous_rewards", "previous_completion", "previous_mask")
    chain = Chain(
        observations=np.zeros((CHAINS, STEPS, 3), np.float32),
        actions=np.zeros((CHAINS, STEPS, 2), np.float32),
        previous_actions=np.zeros((CHAINS, STEPS, 2), np.float32),
        timesteps=order % 4,
        trajectories=order // 4,
        positions=order,
        segment_ids=segments,
        loss_mask=zeros + 1,
        **dict.fromkeys(floats, zeros),
    )
    if layout is None:
        return reorder_chain(chain, np.random.default_rng(0).permutation(24))
    return reorder_chain(chain, dealing_order(layout, STEPS, devices))


def tokens_of(chain: Chain, tokens_per_step: int) -> dict[str, jax.Array]:
    slots = np.arange(tokens_per_step)
    positions = (chain.positions[:, :, None] * tokens_per_step + slots).reshape(CHAINS, -1)
    segments = np.repeat(chain.segment_ids, tokens_per_step, axis=1)
    return {"positions": jnp.asarray(positions, jnp.int32), "segment_ids": jnp.asarray(segments)}


def attend(layout: Layout, labels: dict, *, strategy: str = "ring", tokens: int | None = None):
    array = jnp.ones((CHAINS, tokens or labels["positions"].shape[1], 4, 2))
    config = AttentionConfig(strategy, layout, query_block_size=8, key_block_size=8)
    return attention(array, array, array, config=config, mesh=make_mesh(ring=DEVICES), **labels)


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("tokens_per_step", [1, 4])
def test_the_right_layout_passes(layout: Layout, tokens_per_step: int) -> None:
    chain = make_batch(layout)
    check_dealt(chain.positions, chain.segment_ids, layout, DEVICES)
    labels = tokens_of(chain, tokens_per_step)
    check_dealt(labels["positions"], labels["segment_ids"], layout, DEVICES)


@pytest.fixture
def nothing_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention without its work: outside of `jit` every operation of a loop would be compiled by itself."""
    monkeypatch.setattr(
        dispatch, "sharded_attention", lambda strategy, mesh, options, operands, *others, **kwargs: operands.query
    )


@pytest.mark.usefixtures("nothing_computed")
def test_attention_sees_it_outside_of_jit_alone() -> None:
    striped = tokens_of(make_batch(Layout.striped), 2)
    attend(Layout.striped, striped)
    attend(Layout.contiguous, striped)  # takes any order
    with pytest.raises(RingRLError, match=r"dealt striped, but attention\.layout=zigzag over 4 devices"):
        attend(Layout.zigzag, striped)
    jax.eval_shape(lambda labels: attend(Layout.zigzag, labels), striped)
    with pytest.raises(RingRLError, match=r"dealt contiguous, but attention\.layout=zigzag"):
        attend(Layout.zigzag, {}, tokens=48)


@pytest.mark.usefixtures("nothing_computed")
def test_an_exchange_of_heads_has_no_layout() -> None:
    """Ulysses' devices see whole chains."""
    attend(Layout.zigzag, {}, strategy="ulysses", tokens=20)


@pytest.mark.parametrize("configured", BALANCED)
@pytest.mark.parametrize(
    ("dealt", "devices", "message"),
    [
        (Layout.contiguous, DEVICES, "the batch was dealt contiguous, but {}: {}, or set attention.layout=contiguous."),
        (Layout.striped, 2, "the batch was dealt striped over 2 devices, but {}: {}."),
        (Layout.zigzag, 2, "the batch was dealt zigzag over 2 devices, but {}: {}."),
        (
            None,
            DEVICES,
            "the batch was dealt in no known layout, but {}: {}, or set attention.layout=contiguous, which",
        ),
    ],
)
def test_the_remedy_is_named(configured: Layout, dealt: Layout | None, devices: int, message: str) -> None:
    chain = make_batch(dealt, devices)
    wanted = f"attention.layout={configured} over 4 devices"
    deal = f"deal it by ringrl.dealing_order('{configured}', steps, 4), the loader's order"
    with pytest.raises(RingRLError, match="^" + re.escape(message.format(wanted, deal))):
        check_dealt(chain.positions, chain.segment_ids, configured, DEVICES)


@pytest.mark.parametrize(("configured", "dealt"), [BALANCED, BALANCED[::-1]])
def test_the_other_layout_is_named(configured: Layout, dealt: Layout) -> None:
    chain = make_batch(dealt)
    with pytest.raises(RingRLError, match=rf"dealt {dealt}, but .*={configured} .*or set attention.layout={dealt}\.$"):
        check_dealt(chain.positions, chain.segment_ids, configured, DEVICES)


def test_padding_says_nothing() -> None:
    chain = make_batch(None)
    check_dealt(chain.positions, np.full_like(chain.segment_ids, -1), Layout.zigzag, DEVICES)


def make_trained_agent(layout: Layout):
    attention_config = AttentionConfig("ring", layout, query_block_size=8, key_block_size=8)
    model = ModelConfig(layers=1, width=8, heads=2)
    mesh = make_mesh(ring=DEVICES)
    return make_agent(AgentConfig(), model, attention_config, SPEC, context=Context.chain, mesh=mesh)


def test_training_refuses_its_first_batch() -> None:
    agent, training = make_trained_agent(Layout.zigzag), TrainingConfig(steps=1, batch_size=CHAINS)
    with pytest.raises(RingRLError, match=r"dealt striped, but attention\.layout=zigzag"):
        train(
            agent,
            cast(TrainState, types.SimpleNamespace(step=0)),
            lambda start: iter([make_batch(Layout.striped)]),
            training,
            progress=False,
        )
    check_layout(agent, make_batch(Layout.zigzag))
    check_layout(make_trained_agent(Layout.contiguous), make_batch(Layout.striped))


def test_a_million_steps_cost_next_to_nothing() -> None:
    steps = 2**20
    order = dealing_order(Layout.zigzag, steps, 8).astype(np.int32)[None]
    began = time.perf_counter()
    check_dealt(order, np.zeros_like(order), Layout.zigzag, 8)
    assert time.perf_counter() - began < 0.5


@pytest.mark.parametrize("per_step", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("layout", BALANCED)
def test_tokens_of_a_step_stay_together(layout: Layout, per_step: int) -> None:
    order = dealing_order(layout, STEPS, DEVICES)
    tokens = (order[:, None] * per_step + np.arange(per_step)).reshape(1, -1).astype(np.int32)
    check_dealt(tokens, None, layout, DEVICES)
    with pytest.raises(RingRLError):
        check_dealt(np.sort(tokens), None, layout, DEVICES)


def test_the_remedy_can_be_typed_as_it_is_said() -> None:
    positions = np.arange(24, dtype=np.int32)[None]
    with pytest.raises(RingRLError) as error:
        check_dealt(positions, None, Layout.zigzag, DEVICES)
    [arguments] = re.findall(r"ringrl\.dealing_order\('(\w+)', steps, (\d+)\)", str(error.value))
    order = dealing_order(cast(Layout, arguments[0]), 24, int(arguments[1]))
    check_dealt(order[None].astype(np.int32), None, Layout.zigzag, DEVICES)
