"""The library's calls give the numbers of the command line: losses, returns, and the actions of a trained run."""

import csv
import json
from pathlib import Path

import gymnasium
import pytest
import ringrl_envs

import ringrl as library
from ringrl.training.checkpoint import load_metadata

ENV_ID, SIZES = "ringrl/DarkRoom-v0", {"size": 4, "max_steps": 6}
# The programs of test_cli_end_to_end.py, which are compiled once for both.
TRAIN = (
    *("train", "experiment=dark_room", "data=store", "chain.trajectories=3", "training.steps=5", "seed=7"),
    *("training.batch_size=2", "training.log_every=1", "model.layers=1", "model.width=16", "model.heads=2"),
    *("evaluation.trials=3", "evaluation.environments=1", "evaluation.seed=5", "evaluation.bootstrap_samples=50"),
)
EVAL = ("evaluation.trials=3", "evaluation.environments=1", "evaluation.seed=5", "evaluation.bootstrap_samples=0")
RECORDED = ("spec", "normalization", "environment", "chain_steps", "target_return", "data_fingerprint", "step")


@pytest.fixture
def env() -> gymnasium.Env:
    return gymnasium.make(ENV_ID, **SIZES)


@pytest.fixture
def store(env: gymnasium.Env, tmp_path: Path) -> library.EpisodeStore:
    """Random walks to every goal."""
    env.action_space.seed(0)
    episodes = []
    for task_id in ringrl_envs.task_ids(ENV_ID, size=4) * 4:
        seen, actions, rewards, ended = [env.reset(options={"task_id": task_id})[0]], [], [], False
        while not ended:
            actions.append(env.action_space.sample())
            observation, reward, terminated, truncated, _ = env.step(actions[-1])
            seen.append(observation)
            rewards.append(reward)
            ended = terminated or truncated
        episodes.append({"observations": seen, "actions": actions, "rewards": rewards, "task_id": task_id})
    assert env.spec is not None
    about = {"environment": ENV_ID, "environment_spec": env.spec.to_json()}
    return library.EpisodeStore.from_episodes(
        episodes, action_space=env.action_space, path=tmp_path / "walks", metadata=about
    )


@pytest.mark.scale
def test_a_run_has_the_numbers_of_the_command_line(ringrl, store, env: gymnasium.Env, tmp_path: Path) -> None:
    assert ringrl(*TRAIN, f"data.name={store.path}").code == 0
    [run] = (tmp_path / "runs" / "train" / "dark_room").iterdir()
    summary = json.loads((run / "summary.json").read_text())

    optimizer = library.OptimizerConfig(learning_rate=2e-3)
    training = library.TrainingConfig(steps=5, batch_size=2, log_every=1, optimizer=optimizer)
    sampler = library.ChainSampler(store, library.ChainConfig(trajectories=3))
    model = library.ModelConfig(layers=1, width=16, heads=2, feedforward_width=256)
    blockwise = library.AttentionConfig(library.Strategy.blockwise, query_block_size=160, key_block_size=160)
    agent = library.make_agent(library.AgentConfig(), model, blockwise, sampler.spec)
    result = library.train(
        agent,
        library.create_state(agent, training, seed=7),
        library.make_batches(agent, sampler, training, seed=7),
        training,
        checkpointer=library.Checkpointer(tmp_path / "mine" / "checkpoints"),
        metadata=library.describe_run(agent, sampler, training, seed=7),
        progress=False,
    )
    with (run / "losses.csv").open() as file:
        losses = [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]
    assert result.losses == losses

    acting = library.ActingConfig(target_return=library.default_target_return(store), capacity=sampler.steps)
    policy = library.make_policy(agent, result.state.params, sampler.normalization, acting)
    tasks = ringrl_envs.task_ids(ENV_ID, "held_out", size=4)[:1]
    environments = Recorded(ringrl_envs.make_vector(ENV_ID, 1, **SIZES))
    found = library.rollout(environments, policy, trials=3, task_ids=tasks, seed=5)
    assert found.trial_returns.tolist() == summary["returns"]
    assert library.score(found, bootstrap_samples=50).to_json() == {
        name: summary[name] for name in ("first", "last", "mean", "best")
    }

    # What the library saved is a run like any other: but for the folder's names it tells the same.
    told, own = (load_metadata(folder) for folder in (run, tmp_path / "mine"))
    assert {key: own[key] for key in RECORDED} == {key: told[key] for key in RECORDED}
    settings = ("seed", "agent", "model", "attention", "mesh", "chain")
    assert {key: own["config"][key] for key in settings} == {key: told["config"][key] for key in settings}
    assert own["environment"]["id"] == ENV_ID
    outcome = ringrl("eval", f"checkpoint={tmp_path / 'mine'}", *EVAL)
    assert outcome.code == 0, outcome.err
    [evaluation] = (tmp_path / "runs" / "eval" / "eval").iterdir()
    returns = json.loads((evaluation / "summary.json").read_text())["returns"]

    # In a plain loop the run acts as `ringrl eval` does.
    loaded = library.load_policy(tmp_path / "mine")
    loaded.reset(seed=5)
    observation, _ = env.reset(seed=5, options={"task_id": tasks[0]})
    trials, acted = [], []
    for _ in range(3):
        total, finished = 0.0, False
        while not finished:
            acted.append(int(loaded.act(observation)))
            observation, reward, terminated, truncated, _ = env.step(acted[-1])
            finished = bool(terminated or truncated)
            loaded.observe(reward, finished)
            total += float(reward)
        trials.append(total)
        observation, _ = env.reset()
    assert [trials] == returns == summary["returns"]
    assert acted == environments.actions
    assert len(set(acted)) > 1, "else equal returns would say little"
    assert loaded.action_space == env.action_space
    config = library.load_policy(run, sample=False, target_return=2.0, context_steps=12, when_full="stop").vector.config
    assert (config.sample, config.target_return, config.capacity, config.when_full) == (False, 2.0, 12, "stop")
    assert config.temperature == loaded.vector.config.temperature, "as the run had it"


class Recorded(gymnasium.vector.VectorWrapper):
    """Keeps the actions of its one environment."""

    def __init__(self, env: gymnasium.vector.VectorEnv) -> None:
        super().__init__(env)
        self.actions: list[int] = []

    def step(self, actions):
        self.actions.append(int(actions[0]))
        return super().step(actions)
