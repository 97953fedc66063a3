"""The module that registers a recorded environment is remembered, and imported again."""

import json
import sys
from pathlib import Path

import gymnasium
import minari
import numpy as np
import pytest
import ringrl_envs
from recorded_sets import NAME, write_set

from ringrl.cli.environments import environment_metadata, find_environment, is_own_environment, vector_environment
from ringrl.config import EnvConfig
from ringrl.data import join_stores, open_dataset
from ringrl.data.config import DataConfig
from ringrl.data.joined import in_environment
from ringrl.errors import RingRLError

pytestmark = pytest.mark.usefixtures("minari_root")

MODULE = '''
import gymnasium, numpy as np

class Line(gymnasium.Env):
    """Moves along a line; a step earns `reward(action)` times `scale`."""

    observation_space = gymnasium.spaces.Box(-99, 99, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, scale=1.0, reward=lambda action: action):
        self.scale, self.reward = scale, reward

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = np.zeros(1, np.float32)
        return self.place.copy(), {}

    def step(self, action):
        self.place += np.asarray(action, np.float32)
        return self.place.copy(), self.scale * self.reward(float(action[0])), False, False, {}

def behind_wrappers(**kwargs):
    return gymnasium.wrappers.TransformReward(gymnasium.wrappers.RescaleAction(Line(**kwargs), -2, 2), lambda r: 3 * r)

register = gymnasium.register
register("Text-v0", f"{__name__}:Line", max_episode_steps=60)
register("Class-v0", Line, max_episode_steps=60)
register("Lambda-v0", lambda **kwargs: Line(**kwargs), max_episode_steps=60)
register("Function-v0", behind_wrappers, max_episode_steps=60)
register("Reward-v0", f"{__name__}:Line", max_episode_steps=60, kwargs={"reward": lambda action: 10 * action})
double = gymnasium.wrappers.TransformReward.wrapper_spec(func=lambda reward: 2 * reward)
bounds = {"min_action": np.full(1, -4, np.float32), "max_action": np.full(1, 4, np.float32)}
turned = gymnasium.wrappers.RescaleAction.wrapper_spec(**bounds)
register("Wrapped-v0", f"{__name__}:Line", max_episode_steps=60, additional_wrappers=(double, turned))
'''
IDS = ("Text-v0", "Class-v0", "Lambda-v0", "Function-v0", "Reward-v0", "Wrapped-v0")


@pytest.fixture
def forget(tmp_path, monkeypatch):
    """`forget()`: as a new process, in the folder of `line_module`, which Python's path lacks."""
    (tmp_path / "line_module.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)

    def clean():
        sys.modules.pop("line_module", None)
        for env_id in IDS:
            gymnasium.registry.pop(env_id, None)
        monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])

    yield clean
    clean()


EARNED = {"Text-v0": 1.5, "Class-v0": 1.5, "Lambda-v0": 1.5, "Function-v0": 2.25, "Reward-v0": 15.0, "Wrapped-v0": 0.75}


@pytest.mark.parametrize("env_id", IDS)
def test_a_module_is_remembered(tmp_path, forget, env_id) -> None:
    forget()
    chosen = EnvConfig(f"line_module:{env_id}", {"scale": 3.0, "max_episode_steps": 4})
    told = environment_metadata(chosen)
    metadata, folder = write_set(tmp_path, told.pop("env_spec"), **told)
    assert metadata["environment"] == f"line_module:{env_id}"
    assert minari.MinariDataset(folder / "data").env_spec.id == env_id
    for again in (EnvConfig(), chosen, EnvConfig(chosen.id)):
        forget()
        env = find_environment(again, metadata)
        assert is_own_environment(env, metadata)
        kept = json.loads(json.dumps(env.record()))
        forget()
        env = find_environment(EnvConfig(), kept)  # as `ringrl eval` does
        assert env.id == f"line_module:{env_id}"
        with vector_environment(env, 1) as copies:
            copies.reset(seed=0)
            for _ in range(4):
                _, rewards, _, truncated, _ = copies.step(np.full((1, 1), 0.5, np.float32))
            assert rewards[0] == pytest.approx(EARNED[env_id])
            assert truncated[0]


def test_what_no_record_has_is_asked_for(tmp_path, forget) -> None:
    forget()
    for env_id, said in (("Lambda-v0", "Lambda-v0"), ("Reward-v0", r"kwargs\.reward could not be recorded")):
        told = environment_metadata(EnvConfig(f"line_module:{env_id}"))
        metadata, _ = write_set(tmp_path, told["env_spec"], environment_unrecorded=told["environment_unrecorded"])
        forget()
        sys.path.append(str(tmp_path))
        with pytest.raises(RingRLError, match=said):
            find_environment(EnvConfig(), metadata)
        assert is_own_environment(find_environment(EnvConfig(f"line_module:{env_id}"), metadata), metadata)


@pytest.mark.parametrize("env_id", ["Text-v0", "Class-v0", "Function-v0"])
def test_a_recorded_entry_point_is_enough(tmp_path, forget, env_id) -> None:
    forget()
    spec = environment_metadata(EnvConfig(f"line_module:{env_id}"))["env_spec"]  # as Minari's own collector records it
    forget()
    env = find_environment(EnvConfig(), write_set(tmp_path, spec)[0])
    forget()
    assert env.id == env_id
    assert ringrl_envs.make(env.spec).reset()[0] == np.zeros(1)


def test_a_module_that_is_nowhere_names_the_path(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RingRLError, match=r"cannot import 'absent_module'.*PYTHONPATH"):
        find_environment(EnvConfig("absent_module:Some-v0"), {})
    Path("broken_module.py").write_text("raise RuntimeError('not today')")
    with pytest.raises(RingRLError, match=r"cannot import 'broken_module' \(RuntimeError: not today\)\.$"):
        find_environment(EnvConfig("broken_module:Some-v0"), {})


def test_the_current_folder_hides_no_installed_package(tmp_path, forget) -> None:
    forget()
    Path("json.py").write_text("raise RuntimeError")
    find_environment(EnvConfig("line_module:Text-v0"), {})
    assert sys.path[-1] == str(tmp_path)
    assert sys.path.count(str(tmp_path)) == 1


def test_of_several_sets_the_named_environment_is_as_its_set_records_it(tmp_path, forget) -> None:
    forget()
    stores = []
    for env_id, scale in (("Text-v0", 3.0), ("Class-v0", 5.0)):
        told = environment_metadata(EnvConfig(f"line_module:{env_id}", {"scale": scale}))
        write_set(tmp_path, told.pop("env_spec"), ref_min_score=scale, ref_max_score=9.0, **told)
        stores.append(open_dataset(DataConfig(name=NAME), tmp_path))
    joined = join_stores(stores, ["one", "two"])
    for chosen in ("Class-v0", "line_module:Class-v0"):
        part = in_environment(joined, chosen)
        env = find_environment(EnvConfig(chosen), part.metadata)
        assert env.spec.kwargs == {"scale": 5.0}
        assert is_own_environment(env, part.metadata)
        assert part.metadata["ref_min_score"] == 5.0
