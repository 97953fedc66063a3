"""Inputs of an action's prediction, measured by gradients: neither its own step's outcome nor later steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.types import Context

AFTER = ("actions", "rewards", "completion")  # known only once the step is over


def influences(tools, agent, segment_ids, trajectories):
    """Field -> (B, P, P) bool: whether the outputs of step t depend on the field of step s."""
    parameters = tools.parameters(agent)
    happened = tools.random_steps(*segment_ids.shape)
    projection = jnp.asarray(np.random.default_rng(1).normal(size=agent.head.output_size), jnp.float32)

    @tools.jit
    def jacobian(happened):
        def outputs(happened):
            return agent.outputs(parameters, tools.as_chain(happened, segment_ids, trajectories)) @ projection

        return jax.jacrev(outputs)(happened)

    chains = np.arange(len(segment_ids))
    felt = {}
    for field, derivative in jacobian(happened).items():
        steps = np.abs(np.asarray(derivative)[chains, :, chains])  # (B, P, P, ...)
        felt[field] = steps.reshape(*steps.shape[:3], -1).max(axis=-1) > 0
    return felt


@pytest.mark.parametrize(
    ("options", "unused"),
    [
        ({"tokens_per_step": 4}, ()),
        ({"tokens_per_step": 2}, ()),
        ({"token_layout": "return_to_go|observation|action"}, ("rewards", "completion")),
    ],
    ids=["4", "2", "3"],
)
def test_a_step_sees_the_past_and_not_its_own_outcome(tools, options, unused):
    felt = influences(tools, tools.agent(model={"layers": 2}, **options), *tools.one_segment)
    up_to_now, before_now = np.tri(6, dtype=bool), np.tri(6, k=-1, dtype=bool)
    for field, pairs in felt.items():
        expected = before_now if field in AFTER else up_to_now
        expected = expected & (field not in unused)
        np.testing.assert_array_equal(pairs, np.broadcast_to(expected, pairs.shape), err_msg=field)


@pytest.mark.parametrize("context", list(Context))
def test_a_merged_token_sees_as_far_back_as_its_context(tools, context):
    """A chain sees everything before, a trial nothing of earlier trials, and a step of BC its observation alone."""
    segments, trajectories = tools.one_segment
    name = {"chain": "at", "trial": "at", "step": "bc"}[context]
    if context is Context.trial:
        segments = trajectories
    if context is Context.step:
        segments = np.broadcast_to(np.arange(6, dtype=np.int32), segments.shape)
    felt = influences(tools, tools.agent(context, name=name), segments, trajectories)
    visible = segments[:, None, :] == segments[:, :, None]
    up_to_now, before_now = np.tri(6, dtype=bool) & visible, np.tri(6, k=-1, dtype=bool) & visible
    np.testing.assert_array_equal(felt["observations"], up_to_now)
    np.testing.assert_array_equal(felt["return_to_go"], up_to_now & (name == "at"))
    for field in AFTER:
        np.testing.assert_array_equal(felt[field], before_now & (name == "at"), err_msg=field)
    assert felt["observations"][0, 3, 2] == (context is Context.chain)
