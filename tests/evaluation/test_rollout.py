"""Rollouts: trials of different lengths in a scripted environment with known returns."""

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from ringrl.errors import RingRLError
from ringrl.evaluation.rollout import join_rollouts, rollout
from ringrl.types import ActionKind, ActionSpec, DataSpec


class ScriptedVectorEnv(gymnasium.vector.VectorEnv):
    """Trial k of environment i lasts `lengths[i][k]` steps; each step pays 100 * i + 10 * k + the action given."""

    def __init__(self, lengths, tell_success=False):
        self.lengths = lengths
        self.num_envs = len(lengths)
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED}
        self.single_observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64)
        self.single_action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.tell_success = tell_success
        self.tasks, self.seeds, self.reset_masks, self.actions = None, [], [], []
        self.poison = None

    def reset(self, *, seed=None, options=None):
        mask = options.get("reset_mask", np.ones(self.num_envs, bool))
        if "task_id" in options:
            self.tasks = options["task_id"]
            self.trial = np.full(self.num_envs, -1)
            self.clock = np.zeros(self.num_envs, int)
            self.finished = np.zeros(self.num_envs, bool)
        else:
            assert (mask == self.finished).all(), "only finished environments are reset"
        self.seeds.append(seed)
        self.reset_masks.append(mask)
        self.trial[mask] += 1
        self.clock[mask] = 0
        self.finished[mask] = False
        observations = self._observations()
        observations[~mask] = -999.0  # not to be used
        return observations, {}

    def step(self, actions):
        assert not self.finished.any(), "stepped past the end"
        assert self.single_action_space.contains(actions[0])
        self.actions.append(actions)
        self.clock += 1
        rewards = 100.0 * np.arange(self.num_envs) + 10.0 * self.trial + actions[:, 0]
        length = [self.lengths[i][min(k, len(self.lengths[i]) - 1)] for i, k in enumerate(self.trial)]
        self.finished = self.clock >= np.asarray(length)
        terminated = self.finished & (self.trial % 2 == 0)
        infos = {"success": terminated.copy()} if self.tell_success else {}
        observations = self._observations()
        if self.poison == "observation" and (self.trial == 1).any():
            observations[np.argmax(self.trial == 1)] = np.nan
        if self.poison == "reward":
            rewards[-1] = np.inf
        return observations, rewards, terminated, self.finished & ~terminated, infos

    def _observations(self):
        return np.stack([np.arange(self.num_envs), self.trial, self.clock], axis=1).astype(float)


class Recorder:
    """Acts 0.5 and checks the consistency of the trials and steps that it receives."""

    def __init__(self, capacity=10**9, action=0.5):
        self.capacity, self.action = capacity, action

    def reset(self, num_environments, seed):
        self.seed, self.seen = seed, np.zeros(num_environments, int)
        self.trial, self.clock = np.zeros(num_environments, int), np.zeros(num_environments, int)
        self.log = []

    def act(self, observations, active):
        expected = np.stack([np.arange(len(active)), self.trial, self.clock], axis=1)
        np.testing.assert_array_equal(observations[active], expected[active])
        self.waiting = active.copy()
        return np.where(active, self.action, np.nan)[:, None]

    def observe(self, rewards, finished, active):
        np.testing.assert_array_equal(active, self.waiting)
        assert not (finished & ~active).any()
        self.log.append((rewards, finished, active))
        self.seen += active
        self.clock = np.where(finished, 0, self.clock + active)
        self.trial += finished

    @property
    def full(self):
        return self.seen >= self.capacity


LENGTHS = [[1, 1, 1], [2, 5, 1], [4, 1, 3]]


def run(env, policy, trials=3, **kwargs):
    return rollout(env, policy, trials=trials, task_ids=[7, 8, 9], seed=5, **kwargs)


def test_ragged_trials_give_the_scripted_returns():
    env, policy, progress = ScriptedVectorEnv(LENGTHS), Recorder(), []
    result = run(env, policy, on_progress=lambda done, total: progress.append((done, total)))
    expected = [[n * (100 * i + 10 * k + 0.5) for k, n in enumerate(row)] for i, row in enumerate(LENGTHS)]
    np.testing.assert_allclose(result.trial_returns, expected)
    np.testing.assert_array_equal(result.trial_lengths, LENGTHS)
    assert result.trial_success is None
    np.testing.assert_array_equal(result.task_ids, [7, 8, 9])
    np.testing.assert_array_equal(env.tasks, [7, 8, 9])
    assert env.seeds[0] == 5
    assert policy.seed == 5
    assert set(env.seeds[1:]) == {None}
    assert len(env.actions) == max(sum(row) for row in LENGTHS)  # ends when the last environment is done
    np.testing.assert_array_equal(policy.seen, [sum(row) for row in LENGTHS])
    np.testing.assert_array_equal(policy.trial, [3, 3, 3])  # exactly n trials each
    assert progress[-1] == (9, 9)
    assert all(rewards[~active].sum() == 0 for rewards, _, active in policy.log)


def test_success_is_any_step_of_the_trial():
    result = run(ScriptedVectorEnv(LENGTHS, tell_success=True), Recorder())
    np.testing.assert_array_equal(result.trial_success, [[1, 0, 1]] * 3)


def test_a_full_context_starts_no_further_trial():
    result = run(ScriptedVectorEnv(LENGTHS, tell_success=True), Recorder(capacity=3))
    np.testing.assert_array_equal(result.trial_lengths, [[1, 1, 1], [2, 5, 0], [4, 0, 0]])
    np.testing.assert_array_equal(np.isnan(result.trial_returns), result.trial_lengths == 0)
    np.testing.assert_array_equal(np.isnan(result.trial_success), result.trial_lengths == 0)


def test_actions_are_clipped_to_the_bounds():
    env = ScriptedVectorEnv([[1]])
    result = rollout(env, Recorder(action=3.0), trials=1, task_ids=[0], seed=0)
    assert result.trial_returns == [[1.0]]


def test_a_known_environment_is_reproducible_and_discrete():
    class LeanLeft(Recorder):
        def act(self, observations, active):
            self.waiting = active.copy()
            return (observations[:, 2] > 0).astype(int)

    def once(seed):
        env = gymnasium.make_vec("CartPole-v1", 2, "sync", vector_kwargs={"autoreset_mode": AutoresetMode.DISABLED})
        return rollout(env, LeanLeft(), trials=4, task_ids=[0, 0], seed=seed)

    result = once(1)
    np.testing.assert_array_equal(result.trial_returns, once(1).trial_returns)
    np.testing.assert_array_equal(result.trial_returns, result.trial_lengths)  # it pays 1 a step
    assert (result.trial_returns != once(50).trial_returns).any()


def test_joined_rollouts_number_their_repeats():
    parts = [run(ScriptedVectorEnv(LENGTHS), Recorder()) for _ in range(2)]
    joined = join_rollouts(parts)
    assert joined.trial_returns.shape == (6, 3)
    assert joined.repeats.tolist() == [0, 0, 0, 1, 1, 1]
    assert joined.trial_success is None


@pytest.mark.parametrize(
    ("poison", "message"),
    [
        ("observation", "observation is not finite in environment 0, trial 1, step 1"),
        ("reward", "reward is not finite in environment 2, trial 0, step 1"),
    ],
)
def test_numbers_that_are_not_finite_are_located(poison, message):
    env = ScriptedVectorEnv([[1, 4], [2, 2], [4, 4]])
    env.poison = poison
    with pytest.raises(RingRLError, match=message):
        run(env, Recorder())


def test_a_diverged_policy_is_named():
    with pytest.raises(RingRLError, match=r"action is not finite in environment 0, trial 0, step 0.*diverged"):
        run(ScriptedVectorEnv(LENGTHS), Recorder(action=np.nan))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (DataSpec(5, ActionSpec(ActionKind.continuous, 1), 9), "observations of size 3, but .* size 5"),
        (DataSpec(3, ActionSpec(ActionKind.discrete, 2), 9), "continuous actions of size 1, but .* discrete .* size 2"),
    ],
)
def test_another_environment_than_the_policy_s_is_refused(spec, message):
    policy = Recorder()
    policy.spec = spec
    with pytest.raises(RingRLError, match=message):
        run(ScriptedVectorEnv(LENGTHS), policy)


def test_an_environment_that_resets_itself_is_refused():
    env = gymnasium.make_vec("CartPole-v1", 2, "sync")
    with pytest.raises(RingRLError, match="CartPole-v1 resets itself"):
        rollout(env, Recorder(), trials=1, task_ids=[0, 0], seed=0)


def test_wrong_numbers_are_refused():
    with pytest.raises(RingRLError, match="2 task ids were given for 3"):
        rollout(ScriptedVectorEnv(LENGTHS), Recorder(), trials=1, task_ids=[0, 1], seed=0)
    with pytest.raises(RingRLError, match="trials=0"):
        run(ScriptedVectorEnv(LENGTHS), Recorder(), trials=0)
    with pytest.raises(RingRLError, match="still runs after 50 steps"):
        run(ScriptedVectorEnv([[10**9]] * 3), Recorder(), trial_steps_limit=50)
