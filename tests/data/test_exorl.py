import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from simulators import needs_dm_control
from toy_relabel import Failing, Toy, weighted_sum

from ringrl.data import EpisodeStore
from ringrl.data.exorl_writer import ExorlWriter
from ringrl.data.sources.exorl import build_from_exorl, list_episodes
from ringrl.data.sources.ordered_map import ordered_map
from ringrl.errors import RingRLError
from ringrl.types import ActionKind, ActionSpec

ACTION = ActionSpec(ActionKind.continuous, 2, (-1.0, -1.0), (1.0, 1.0))
LENGTHS = (4, 2, 5, 3)


def episode(index: int, steps: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(index)
    physics = rng.normal(size=(steps + 1, 4))
    physics[0, 0] = index
    return {
        "observations": rng.normal(size=(steps + 1, 3)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (steps, 2)).astype(np.float32),
        "rewards": rng.normal(size=steps).astype(np.float32),
        "physics": physics,
    }


def write_folder(folder: Path, lengths=LENGTHS) -> list[dict[str, np.ndarray]]:
    episodes = [episode(index, steps) for index, steps in enumerate(lengths)]
    writer = ExorlWriter(folder)
    for index, values in enumerate(episodes):
        writer.append(**values, terminated=index % 2 == 1)
    return episodes


def build(folder: Path, store_path: Path, **changes) -> EpisodeStore:
    keywords = {"task": "toy_stand", "action": ACTION, "environment": "ringrl/dmc_toy_stand-v0", "max_episode_steps": 9}
    return build_from_exorl(folder, store_path, **(keywords | changes))


def relabeled(values: dict[str, np.ndarray]) -> np.ndarray:
    actions = np.concatenate([np.zeros((1, 2), np.float32), values["actions"]])
    return weighted_sum(values["physics"], actions)[1:].astype(np.float32)


def test_as_recorded(tmp_path):
    episodes = write_folder(tmp_path / "set")
    seen = []
    store = build(
        tmp_path / "set",
        tmp_path / "store",
        policy="rnd",
        metadata={"ref_max_score": 9.0},
        progress=lambda done, total: seen.append((done, total)),
    )
    np.testing.assert_array_equal(store.lengths, LENGTHS)
    np.testing.assert_array_equal(store.observations, np.concatenate([e["observations"][:-1] for e in episodes]))
    np.testing.assert_array_equal(store.actions, np.concatenate([e["actions"] for e in episodes]))
    np.testing.assert_array_equal(store.rewards, np.concatenate([e["rewards"] for e in episodes]))
    np.testing.assert_array_equal(store.terminated, [False, True, False, True])
    assert seen == [(4, 4)]
    assert store.metadata["environment"] == "ringrl/dmc_toy_stand-v0"
    assert store.metadata["environment_spec"] == {"kwargs": {}, "max_episode_steps": 9}
    assert store.metadata["ref_max_score"] == 9.0
    assert store.metadata["policies"] == ["rnd"]
    assert sorted(os.listdir(tmp_path)) == ["set", "store"]


def test_files_are_read_by_index_and_only_they(tmp_path):
    for index, name in ((10, "a_10_2.npz"), (9, "z_9_2.npz"), (100, "20220114T190000_100_2.npz")):
        arrays = {"observation": np.full((3, 3), index), "action": np.zeros((3, 2)), "reward": np.zeros(3)}
        np.savez(tmp_path / name, discount=np.ones(3), unknown=np.array(["x"]), **arrays)
    (tmp_path / "README.md").write_text("")
    (tmp_path / ".episode_000101_2.npz").write_bytes(b"half")
    assert [file.index for file in list_episodes(tmp_path)] == [9, 10, 100]
    store = build(tmp_path, tmp_path / "store", limit=2)
    np.testing.assert_array_equal(store.observations[:, 0], [9, 9, 10, 10])


def test_a_large_folder_is_listed_without_a_look_at_the_files(tmp_path, monkeypatch):
    names = [f"episode_{index}_1000.npz" for index in range(10_000)]
    monkeypatch.setattr(os, "listdir", lambda folder: names)
    files = list_episodes(tmp_path, limit=9_999)  # none of them is there
    assert [file.index for file in files] == list(range(9_999))


def test_relabeled(tmp_path):
    episodes = write_folder(tmp_path / "set")
    store = build(tmp_path / "set", tmp_path / "store", relabel=Toy())
    np.testing.assert_array_equal(store.rewards, np.concatenate([relabeled(values) for values in episodes]))
    np.testing.assert_array_equal(store.actions, np.concatenate([e["actions"] for e in episodes]))
    assert sorted(os.listdir(tmp_path)) == ["set", "store"]
    # A plain function will do, and recorded rewards are not needed.
    again = build(tmp_path / "set", tmp_path / "again", relabel=weighted_sum)
    assert again.fingerprint == store.fingerprint
    assert build(tmp_path / "set", tmp_path / "recorded").fingerprint != store.fingerprint


def test_an_interrupted_import_goes_on_where_it_was(tmp_path):
    write_folder(tmp_path / "set", [2] * 20)
    log = tmp_path / "log"
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "set", tmp_path / "store", relabel=Failing(how="interrupt", at=18, log=str(log)))
    assert len(log.read_text().split()) == 18
    assert sorted(os.listdir(tmp_path)) == [".store.rewards", "log", "set"]
    (damaged, *_) = (tmp_path / ".store.rewards").iterdir()
    damaged.write_bytes(damaged.read_bytes()[:-1])
    log.unlink()
    store = build(tmp_path / "set", tmp_path / "store", relabel=Toy(log=str(log)))
    assert len(log.read_text().split()) == 12  # a batch of 8 was kept; one was damaged, and one of 4 begun
    assert store.fingerprint == build(tmp_path / "set", tmp_path / "whole", relabel=Toy()).fingerprint
    assert sorted(os.listdir(tmp_path)) == ["log", "set", "store", "whole"]


@pytest.mark.parametrize("change", ["task", "file"])
def test_kept_rewards_are_of_the_same_task_and_files(tmp_path, change):
    write_folder(tmp_path / "set", [2] * 20)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "set", tmp_path / "store", relabel=Failing(how="interrupt", at=18))
    log = tmp_path / "log"
    if change == "file":
        os.utime(tmp_path / "set" / "episode_000000_2.npz", ns=(1, 1))
    task = "toy_walk" if change == "task" else "toy_stand"
    build(tmp_path / "set", tmp_path / "store", task=task, relabel=Toy(log=str(log)))
    assert len(log.read_text().split()) == {"task": 20, "file": 12}[change]


def test_in_this_process_items_are_taken_one_by_one():
    taken = []
    results = ordered_map(str, (taken.append(item) or item for item in range(5)), 1)
    assert next(results) == "0"
    assert taken == [0]
    assert list(results) == ["1", "2", "3", "4"]


@pytest.mark.simulators  # spawned processes import JAX
def test_workers_give_the_same_store(tmp_path):
    write_folder(tmp_path / "set", [3, 1, 2] * 20)
    log = tmp_path / "log"
    alone = build(tmp_path / "set", tmp_path / "alone", relabel=Toy())
    together = build(tmp_path / "set", tmp_path / "together", relabel=Toy(log=str(log)), workers=2)
    assert alone.fingerprint == together.fingerprint
    processes = set(log.read_text().split())
    assert len(processes) == 2
    assert str(os.getpid()) not in processes
    assert build(tmp_path / "set", tmp_path / "recorded", workers=2).num_episodes == 60


@pytest.mark.simulators
def test_workers_are_given_few_items_at_a_time_and_end():
    taken = []
    results = ordered_map(abs, (taken.append(item) or -item for item in range(100)), 2)
    assert [next(results) for _ in range(10)] == list(range(10))
    time.sleep(0.5)
    assert len(taken) <= 10 + 4 * 2
    results.close()


@pytest.mark.simulators
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("die", r"a worker process died \(exit code -9\).*workers=1"),
        ("raise", r"000038_2.npz: the rewards of task=toy_stand cannot be computed \(ValueError: the simulator has"),
    ],
)
def test_a_fault_in_a_worker_is_one_line_and_leaves_nothing(tmp_path, how, message):
    write_folder(tmp_path / "set", [2] * 40)
    with pytest.raises(RingRLError, match=message) as caught:
        build(tmp_path / "set", tmp_path / "store", relabel=Failing(how=how, at=38), workers=2)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["set"]


IMPORT = """
import sys
sys.path[:0] = json_path
from test_exorl import Toy, build
from pathlib import Path
if __name__ == "__main__":
    root = Path(sys.argv[1])
    toy = Toy(seconds=0.02, log=str(root / "log"))
    store = build(root / "set", root / "store", relabel=toy, workers=2)
    print(store.fingerprint)
"""


def runs(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.simulators
def test_an_import_that_was_killed_is_done_again_with_the_same_result(tmp_path):
    write_folder(tmp_path / "set", [2] * 100)
    log, program = tmp_path / "log", tmp_path / "program.py"
    here = Path(__file__).parent
    program.write_text(IMPORT.replace("json_path", json.dumps([str(here), str(here.parent / "support")])))
    command = [sys.executable, str(program), str(tmp_path)]
    process = subprocess.Popen(command)
    while process.poll() is None and (not log.exists() or len(log.read_text().split()) < 50):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "store").exists()
    # Its workers end by themselves.
    children = {int(number) for number in log.read_text().split()}
    deadline = time.monotonic() + 30
    while any(map(runs, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(runs, children))

    log.unlink()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(log.read_text().split()) < 100
    assert done.stdout.strip() == build(tmp_path / "set", tmp_path / "whole", relabel=Toy()).fingerprint
    assert sorted(os.listdir(tmp_path)) == ["log", "program.py", "set", "store", "whole"]


def simulate(domain: str, task: str, seed: int, steps: int) -> dict[str, np.ndarray]:
    """An episode of random actions in dm_control's own environment; the same seed gives the same states in any task."""
    from dm_control import suite

    env = suite.load(domain, task, task_kwargs={"random": seed})
    actions = np.random.default_rng(seed).uniform(-1, 1, (steps, *env.action_spec().shape)).astype(np.float32)
    steps_seen = [(env.reset(), env.physics.get_state())]
    steps_seen += [(env.step(action), env.physics.get_state()) for action in actions]
    return {
        "observations": np.stack([np.concatenate([*map(np.ravel, s.observation.values())]) for s, _ in steps_seen]),
        "actions": actions,
        "rewards": np.array([step.reward for step, _ in steps_seen[1:]]),
        "physics": np.stack([physics for _, physics in steps_seen]),
    }


@needs_dm_control
@pytest.mark.simulators
@pytest.mark.parametrize(
    ("domain", "recorded", "other"), [("walker", "stand", "walk"), ("cartpole", "swingup", "swingup")]
)
def test_real_episodes_come_back_and_are_relabeled(tmp_path, domain, recorded, other):
    import ringrl_envs

    # Ten files, which is more than one worker takes at a time.
    episodes, truth = ([simulate(domain, task, seed, 60) for seed in (1, 2)] * 5 for task in (recorded, other))
    writer = ExorlWriter(tmp_path / "set")
    for values in episodes:
        writer.append(**values)
    environment = ringrl_envs.dmc_id(f"{domain}_{other}")
    relabeller = ringrl_envs.Relabeller(environment)
    low, high = relabeller.action_bounds()
    action = ActionSpec(ActionKind.continuous, len(low), tuple(map(float, low)), tuple(map(float, high)))
    keywords = {"task": f"{domain}_{other}", "action": action, "environment": environment, "max_episode_steps": 1000}

    store = build_from_exorl(tmp_path / "set", tmp_path / "recorded", **keywords)
    expected = {name: np.concatenate([values[name] for values in episodes]) for name in ("actions", "rewards")}
    expected["observations"] = np.concatenate([values["observations"][:-1] for values in episodes])
    for name, values in expected.items():
        np.testing.assert_array_equal(getattr(store, name), values.astype(np.float32))

    keywords["relabel"] = relabeller
    stores = [build_from_exorl(tmp_path / "set", tmp_path / str(n), workers=n, **keywords) for n in (1, 2)]
    assert stores[0].fingerprint == stores[1].fingerprint
    np.testing.assert_allclose(stores[0].rewards, np.concatenate([v["rewards"] for v in truth]), rtol=0, atol=1e-6)
    assert (domain == "cartpole") == np.allclose(stores[0].rewards, store.rewards, atol=1e-6)

    wrong = {"relabel": ringrl_envs.Relabeller("ringrl/dmc_cheetah_run-v0"), "environment": "ringrl/dmc_cheetah_run-v0"}
    with pytest.raises(RingRLError, match=r"'observation' has \d+ columns, ringrl/dmc_cheetah_run-v0's has 17"):
        build_from_exorl(tmp_path / "set", tmp_path / "wrong", **(keywords | wrong))
