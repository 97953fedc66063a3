"""Data in its original format through the command line: made here, imported value by value, trained on, scored."""

import json
from pathlib import Path

import numpy as np
import pytest
import ringrl_envs
from d4rl_files import write_d4rl_file
from simulators import needs_dm_control

from ringrl.data import EpisodeStore, open_dataset
from ringrl.data.config import DataConfig, Source

pytestmark = pytest.mark.simulators

STEPS = 12  # of an episode that is cut short to keep the tests so
TRAIN = (
    *("train", "chain.trajectories=2", "training.batch_size=2", "training.steps=2", "training.save_every=2"),
    *("evaluation.trials=1", "evaluation.environments=1", "evaluation.bootstrap_samples=40"),
    *("model.layers=1", "model.width=16", "model.heads=2", "agent.tokens_per_step=1", "attention=blockwise"),
)
D4RL = {  # task of the file: its layout, and arguments that keep its episodes short
    "hopper-medium-v2": "locomotion",
    "halfcheetah-random-v2": "locomotion",
    "walker2d-medium-replay-v2": "locomotion",
    "antmaze-umaze-v2": "antmaze",
    "kitchen-partial-v0": "kitchen",
    "pen-human-v1": "adroit",
    "maze2d-umaze-v1": "maze2d",
}
MINARI = ("Hopper-v4", "AntMaze_UMaze-v4", "FrankaKitchen-v1", "AdroitHandPen-v1", "PointMaze_UMaze-v3")
EXORL = {  # domain: the task it is collected in, and another that it is relabeled for
    "walker": ("walker_stand", "walker_run"),
    "cheetah": ("cheetah_run", "cheetah_run_backward"),
    "cartpole": ("cartpole_swingup", "cartpole_swingup"),
    "jaco": ("jaco_reach_top_left", "jaco_reach_bottom_right"),
    "point_mass_maze": ("point_mass_maze_reach_top_left", "point_mass_maze_reach_top_right"),
}


def random_episodes(environment: str, count: int = 3, steps: int = STEPS) -> list[ringrl_envs.Episode]:
    environments = ringrl_envs.make_vector(environment, 1, max_episode_steps=steps)
    random = ringrl_envs.make_controller(environment, environments, kind="random")
    episodes = ringrl_envs.collect_episodes(environments, [("random", 1.0, random)], total_episodes=count)
    environments.close()
    return episodes


def newest(folder: Path) -> Path:
    return max(folder.iterdir(), key=lambda path: path.name)


def train_and_score(ringrl, tmp_path: Path, *words: str, environment: str) -> dict:
    """A short training run and an evaluation of it, both in this environment; the evaluation's summary."""
    outcome = ringrl(*TRAIN, *words, f"++env.kwargs.max_episode_steps={STEPS}")
    assert outcome.code == 0, outcome.err
    run = newest(tmp_path / "runs/train/run")
    assert json.loads((run / "summary.json").read_text())["environment"] == environment
    outcome = ringrl("eval", f"checkpoint={run}", "evaluation.trials=1", "evaluation.environments=1")
    assert outcome.code == 0, outcome.err
    summary = json.loads((newest(tmp_path / "runs/eval/eval") / "summary.json").read_text())
    assert summary["environment"] == environment
    assert np.isfinite(summary["trial_returns"]).all()
    return summary


def assert_holds(store: EpisodeStore, episodes: list[ringrl_envs.Episode]) -> None:
    """Every value of the episodes is in the store, in order."""
    assert store.lengths.tolist() == [len(episode.rewards) for episode in episodes]
    for index, episode in enumerate(episodes):
        steps = slice(store.starts[index], store.starts[index] + store.lengths[index])
        before = np.asarray(episode.observations[:-1], np.float32)
        np.testing.assert_array_equal(store.observations[steps], before)
        np.testing.assert_array_equal(store.actions[steps], np.asarray(episode.actions, np.float32))
        np.testing.assert_array_equal(store.rewards[steps], episode.rewards.astype(np.float32))


@pytest.mark.parametrize("task", D4RL)
def test_d4rl(ringrl, data_cache: Path, tmp_path: Path, task: str) -> None:
    from ringrl.data.sources.d4rl_tasks import find_task

    environment = find_task(task).environment
    episodes = random_episodes(environment)
    file = write_d4rl_file(tmp_path / f"{task}.hdf5", episodes, D4RL[task])
    outcome = ringrl("import", "source=d4rl", f"path={file}", f"task={task}", f"name={task}")
    assert outcome.code == 0, outcome.err
    store = EpisodeStore.open(data_cache / "stores" / task)
    assert_holds(store, episodes)
    assert store.metadata["environment"] == environment
    imported = newest(tmp_path / f"runs/import/{task}")
    assert (imported / "returns.png").stat().st_size > 1000
    assert json.loads((imported / "summary.json").read_text())["data_fingerprint"] == store.fingerprint
    summary = train_and_score(ringrl, tmp_path, "data=store", f"data.name={task}", environment=environment)
    low, high = store.metadata["ref_min_score"], store.metadata["ref_max_score"]
    score = 100 * (summary["trial_returns"][0] - low) / (high - low)
    # D4RL's scale holds in D4RL's environment; here its time limit is another.
    assert summary["normalized"] is None or summary["normalized"]["first"]["value"] == pytest.approx(score)


@pytest.mark.parametrize("storage", ["hdf5", "arrow"])
@pytest.mark.parametrize("environment", MINARI)
def test_minari(ringrl, data_cache: Path, tmp_path: Path, environment: str, storage: str) -> None:
    name = f"ringrl/{environment.lower()}-{storage}-v0"
    limit = f"++env.kwargs.max_episode_steps={STEPS}"
    collect = ("collect", "behavior=noise", f"env.id={environment}", limit, f"dataset={name}", f"format={storage}")
    outcome = ringrl(*collect, "episodes_per_task=3", "num_environments=1", "reference_episodes=0")
    assert outcome.code == 0, outcome.err
    import minari

    folder = data_cache / "minari" / name
    recorded = list(minari.MinariDataset(folder / "data").iterate_episodes())
    store = open_dataset(DataConfig(Source.minari, name))
    assert store.lengths.tolist() == [len(episode.rewards) for episode in recorded]
    for index, episode in enumerate(recorded):
        steps = slice(store.starts[index], store.starts[index] + store.lengths[index])
        np.testing.assert_array_equal(store.observations[steps], np.asarray(episode.observations)[:-1])
        np.testing.assert_array_equal(store.actions[steps], np.asarray(episode.actions, np.float32))
        np.testing.assert_array_equal(store.rewards[steps], np.asarray(episode.rewards, np.float32))
    train_and_score(ringrl, tmp_path, "data=minari", f"data.name={name}", environment=environment)


@needs_dm_control
@pytest.mark.parametrize("domain", EXORL)
def test_exorl(ringrl, data_cache: Path, tmp_path: Path, domain: str) -> None:
    recorded, other = EXORL[domain]
    collected_in, scored_in = ringrl_envs.dmc_id(recorded), ringrl_envs.dmc_id(other)
    limit = f"++env.kwargs.max_episode_steps={STEPS}"
    collect = ("collect", "behavior=rnd", f"env.id={collected_in}", limit, f"dataset={domain}/rnd", "format=exorl")
    small = ("sac.width=8", "sac.batch_size=8", "sac.random_steps=16", "sac.updates_per_call=4", "sac.rnd_width=8")
    outcome = ringrl(*collect, *small, f"steps={3 * STEPS}", "num_environments=1", "reference_episodes=0")
    assert outcome.code == 0, outcome.err
    buffer = data_cache / "exorl" / domain / "rnd" / "buffer"
    files = [dict(np.load(file)) for file in sorted(buffer.glob("*.npz"))]
    assert len(files) == 3

    relabeller = ringrl_envs.Relabeller(scored_in)
    for name, task, reward in (
        ("as", recorded, "as_recorded"),
        ("own", recorded, "relabel"),
        ("for", other, "relabel"),
    ):
        outcome = ringrl(
            *("import", "source=exorl", f"path={domain}/rnd", f"task={task}", f"reward={reward}"),
            *(f"name={domain}_{name}", "workers=1"),
        )
        assert outcome.code == 0, outcome.err
        store = EpisodeStore.open(data_cache / "stores" / f"{domain}_{name}")
        columns = {
            "observations": np.concatenate([file["observation"][:-1] for file in files]),
            "actions": np.concatenate([file["action"][1:] for file in files]),
        }
        for column, values in columns.items():
            np.testing.assert_array_equal(getattr(store, column)[:], values)
        if reward == "as_recorded":
            rewards = np.concatenate([file["reward"].reshape(-1)[1:] for file in files])
            np.testing.assert_array_equal(store.rewards[:], rewards)
        elif name == "own":  # the simulator's own reward comes back from its states
            rewards = np.concatenate([file["reward"].reshape(-1)[1:] for file in files])
            np.testing.assert_allclose(store.rewards[:], rewards, atol=1e-6)
        else:
            relabeled = [relabeller(file["physics"], file["action"])[1:] for file in files]
            np.testing.assert_array_equal(store.rewards[:], np.concatenate(relabeled).astype(np.float32))
    train_and_score(ringrl, tmp_path, "data=store", f"data.name={domain}_for", environment=scored_in)
