"""The loss: a mean over supervised steps that neither padding nor unsupervised steps touch."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.agents import SequenceAgent
from ringrl.types import Chain, Context


def chain_of(tools, action, seed=0):
    """Two chains of 6 steps, of which the last 2 of the second are padding."""
    segments, trajectories = tools.one_segment
    segments = np.where(np.arange(6) < np.array([[6], [4]]), segments, -1).astype(np.int32)
    return tools.as_chain(tools.random_steps(2, 6, action, seed), segments, trajectories)


@dataclasses.dataclass(frozen=True)
class Subject:
    """An agent, its parameters, two chains, and its loss with gradients, compiled once."""

    agent: SequenceAgent
    parameters: Any
    chain: Chain
    other: Chain
    run: Any


@pytest.fixture(scope="module", params=["continuous", "discrete"])
def subject(request, tools):
    action = getattr(tools, request.param)
    agent = tools.agent(action=action, tokens_per_step=2)
    run = tools.jit(jax.value_and_grad(agent.loss, has_aux=True))
    return Subject(agent, tools.parameters(agent), chain_of(tools, action), chain_of(tools, action, seed=9), run)


def mixed(chain, other, changed):
    """What happened in `other` where `changed` (B, P), and in `chain` elsewhere; the labels are the chain's."""

    def choose(a, b):
        return np.where(changed.reshape(changed.shape + (1,) * (a.ndim - 2)), b, a)

    labels = ("positions", "segment_ids", "loss_mask", "timesteps", "trajectories")
    kept = {name: getattr(chain, name) for name in labels}
    return dataclasses.replace(jax.tree.map(choose, chain, other), **kept)


def test_padding_and_unsupervised_steps_do_not_count(tools, subject):
    unsupervised = np.zeros((2, 6), bool)
    unsupervised[:, 5] = True  # the last step, so that its action is a label and no input of a supervised one
    mask = np.where(unsupervised, np.float32(0), subject.chain.loss_mask)
    chain, other = (dataclasses.replace(one, loss_mask=mask) for one in (subject.chain, subject.other))
    parameters, run = subject.parameters, subject.run
    (loss, metrics), gradients = run(parameters, chain)
    assert metrics["supervised_steps"] == 5 + 4

    (same, _), same_gradients = run(parameters, mixed(chain, other, np.asarray(chain.segment_ids) < 0))
    assert same == loss
    jax.tree.map(np.testing.assert_array_equal, same_gradients, gradients)
    swapped = dataclasses.replace(chain, actions=mixed(chain, other, unsupervised).actions)
    assert run(parameters, swapped)[0][0] == loss
    assert run(parameters, mixed(chain, other, ~unsupervised))[0][0] != loss

    # The mean over supervised steps is that of the losses the head gives each of them.
    outputs = tools.jit(subject.agent.outputs)(parameters, chain)
    losses = np.asarray(subject.agent.head.loss(outputs, chain.actions))
    np.testing.assert_allclose(loss, losses[mask > 0].mean(), rtol=1e-5)


def test_a_batch_without_supervised_steps_has_no_loss(subject):
    chain = dataclasses.replace(subject.chain, loss_mask=jnp.zeros((2, 6)))
    (loss, _), gradients = subject.run(subject.parameters, chain)
    assert loss == 0
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradients))


def test_the_order_of_steps_in_memory_changes_nothing(subject):
    """Every field is aligned by step and carries its position, so a layout may deal steps out in any order."""
    order = np.random.default_rng(0).permutation(6)
    shuffled = jax.tree.map(lambda values: values[:, order], subject.chain)
    moved = dataclasses.replace(shuffled, positions=subject.chain.positions)
    loss, same, different = (subject.run(subject.parameters, one)[0][0] for one in (subject.chain, shuffled, moved))
    np.testing.assert_allclose(same, loss, rtol=1e-5)
    assert abs(different - loss) > 1e-3


def test_bfloat16_is_near_float32(tools):
    chain = chain_of(tools, tools.continuous)
    losses = []
    for dtype in (jnp.float32, jnp.bfloat16):
        agent = tools.agent(compute_dtype=dtype)
        parameters = tools.parameters(agent)
        losses.append(tools.jit(agent.loss)(parameters, chain)[0])
        assert losses[-1].dtype == jnp.float32
        gradients = jax.eval_shape(jax.grad(agent.loss, has_aux=True), parameters, chain)[0]
        assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype(jnp.float32)}
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.05)
    assert losses[0] != losses[1]


def test_parameters_follow_the_key(tools):
    agent = tools.agent(Context.trial, name="dt", timestep_embedding=False)
    init = tools.jit(agent.init)
    first, again, other = (init(jax.random.key(seed)) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    kernels = [np.asarray(one["transformer"]["layers"]["query"]["kernel"]) for one in (first, other)]
    assert (kernels[0] != kernels[1]).all()
    assert {leaf.dtype for leaf in jax.tree.leaves(first)} == {jnp.dtype(jnp.float32)}
    assert "timestep" not in first["embedding"]
