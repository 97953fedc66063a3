"""Actors: the same policy as the learner's, files that round-trip, and invalid files."""

import dataclasses
import os
import pickle
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import jax
import numpy as np
import pytest

from ringrl.errors import RingRLError
from ringrl.online import Actor, ActorBehavior, SacConfig, Spaces, create_state, extract_actor, load_actor, save_actor
from ringrl.online.moments import standardize
from ringrl.online.networks import gaussian
from ringrl.online.sac import CLIP

pytestmark = pytest.mark.simulators

LOW, HIGH = np.array([-2.0], np.float32), np.array([4.0], np.float32)


def spaces(low: np.ndarray = LOW, high: np.ndarray = HIGH) -> Spaces:
    return Spaces("test/Point-v0", 2, low, high)


@pytest.fixture
def state(config: SacConfig):
    fresh = create_state(0, 2, 1, config)
    mean, variance = np.array([5.0, -1.0], np.float32), np.array([4.0, 0.25], np.float32)
    return dataclasses.replace(
        fresh, moments=dataclasses.replace(fresh.moments, mean=mean, deviation=np.sqrt(variance))
    )


@pytest.fixture
def actor() -> Actor:
    rng = np.random.default_rng(0)
    shapes = ((2, 8), (8, 2))
    kernels = tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)
    biases = tuple(rng.normal(size=shape[1:]).astype(np.float32) for shape in shapes)
    mean, std = np.array([5.0, -1.0], np.float32), np.array([2.0, 0.5], np.float32)
    return Actor(kernels, biases, mean, std, spaces(), "sac(step=12000)")


def environments(
    low: np.ndarray = LOW, high: np.ndarray = HIGH, size: int = 2, count: int = 3, name: str = "test/Point-v1"
):
    """The attributes of a vector environment that a behavior uses."""
    return types.SimpleNamespace(
        single_observation_space=gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32),
        single_action_space=gymnasium.spaces.Box(low, high, dtype=np.float32),
        num_envs=count,
        spec=types.SimpleNamespace(id=name),
    )


def test_numpy_acts_as_the_learner_does(state) -> None:
    observations = np.random.default_rng(1).normal(size=(5, 2)).astype(np.float32) * 10.0
    actor = extract_actor(state, spaces(), "sac(step=0)")

    @jax.jit
    def learner(state, observations):
        return gaussian(state.actor, standardize(state.moments, observations, CLIP))

    mean, log_std = map(np.asarray, learner(state, observations))
    np.testing.assert_allclose(actor.act(observations, np.random.default_rng(0), 0.0), np.tanh(mean), atol=1e-5)
    noise = np.random.default_rng(0).standard_normal((5, 1), np.float32)
    for scale in (1.0, 0.3):
        acted = actor.act(observations, np.random.default_rng(0), scale)
        np.testing.assert_allclose(acted, np.tanh(mean + scale * np.exp(log_std) * noise), atol=1e-5)


def test_an_actor_is_a_copy_of_the_state_and_must_be_finite(state) -> None:
    actor = extract_actor(state, spaces(), "sac(step=7)")
    assert not np.shares_memory(actor.kernels[0], np.asarray(state.actor[0]["kernel"]))
    broken = dataclasses.replace(state, actor=jax.tree.map(lambda x: np.full_like(x, np.nan), state.actor))
    with pytest.raises(RingRLError, match=r"test/Point-v0: learning diverged before sac\(step=7\)"):
        extract_actor(broken, spaces(), "sac(step=7)")


def test_a_saved_actor_comes_back(actor: Actor, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "actor.npz"
    save_actor(path, dataclasses.replace(actor, label="old"))
    save_actor(path, actor)
    loaded = load_actor(path)
    assert os.listdir(path.parent) == ["actor.npz"]
    assert (loaded.label, loaded.spaces.environment) == ("sac(step=12000)", "test/Point-v0")
    observations = np.ones((3, 2), np.float32)
    first, second = (one.act(observations, np.random.default_rng(0)) for one in (actor, loaded))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(loaded.spaces.to_environment(np.array([[-1.0], [1.0]])), [LOW, HIGH])


def test_a_disk_that_refuses_is_one_line_and_leaves_nothing(actor: Actor, tmp_path: Path) -> None:
    (tmp_path / "actor.npz").mkdir()
    with pytest.raises(RingRLError, match=r"actor\.npz cannot be written"):
        save_actor(tmp_path / "actor.npz", actor)
    assert os.listdir(tmp_path) == ["actor.npz"]


class Exploit:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def changed(**fields: np.ndarray | None) -> Callable[[Path], None]:
    """Rewrite a file with some arrays changed, or left out where None."""

    def damage(path: Path) -> None:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files} | fields
        kept: dict[str, Any] = {name: array for name, array in arrays.items() if array is not None}
        np.savez(path, **kept)

    return damage


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """One bit of a kernel, which the archive's checksum covers."""
    content = bytearray(path.read_bytes())
    content[content.index(b"kernel_0.npy") + 200] ^= 1
    path.write_bytes(content)


def not_an_array(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("kernel_2", b"no array")


def huge_claim(path: Path) -> None:
    """An array of a petabyte, as the header says."""
    with zipfile.ZipFile(path, "w") as archive, archive.open("kernel_0.npy", "w") as entry:
        header = {"descr": "<f4", "fortran_order": False, "shape": (2**48,)}
        np.lib.format.write_array_header_1_0(entry, header)


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("kernel_0.npy", "w") as entry:
        entry.write(bytes(2**21))


FLOAT = np.float32
DAMAGED = {
    "truncated": (truncate, "not a whole actor file"),
    "one bit": (flip, "CRC"),
    "empty": (lambda path: path.write_bytes(b""), "not a zip file"),
    "text": (lambda path: path.write_text("hello"), "not a zip file"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps({"kernel_0": 1})), "not a zip file"),
    "no array": (not_an_array, "'kernel_2' is not an array"),
    "petabyte": (huge_claim, "not a whole actor file"),
    "bomb": (bomb, "unpacks to 2097152 bytes"),
    "no label": (changed(label=None), "lacks label"),
    "no bounds": (changed(low=None), "lacks low"),
    "no layers": (changed(kernel_0=None, kernel_1=None), "lacks kernel_0"),
    "a layer missing": (changed(bias_1=None), "lacks bias_1"),
    "newer": (changed(format=np.array(99)), "format is not 1"),
    "double": (changed(kernel_0=np.zeros((2, 8))), "kernel_0 is not of finite float32"),
    "nan": (changed(kernel_0=np.full((2, 8), np.nan, FLOAT)), "kernel_0 is not of finite float32"),
    "misfit": (changed(kernel_0=np.zeros((3, 8), FLOAT)), r"kernel_0 has shape \(3, 8\), not \(2, 8\)"),
    "actions misfit": (changed(low=np.zeros(2, FLOAT)), "has shape"),
    "zero deviation": (changed(observation_std=np.zeros(2, FLOAT)), "must be positive"),
    "bounds crossed": (changed(low=np.full(1, 9.0, FLOAT)), "low at most high"),
    "label of two lines": (changed(label=np.array("a\nb")), "label is not one line"),
    "label a number": (changed(label=np.array(3)), "label is not one line"),
}


@pytest.mark.parametrize("fault", DAMAGED)
def test_a_file_that_is_no_actor_is_one_line(
    fault: str, actor: Actor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ringrl.online.actor_files.LARGEST_BYTES", 2**20)
    damage, words = DAMAGED[fault]
    path = tmp_path / "actor.npz"
    save_actor(path, actor)
    damage(path)
    with pytest.raises(RingRLError, match=words) as caught:
        load_actor(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("field", ["kernel_0", "label", "format"])
def test_a_malicious_file_is_never_unpickled(field: str, actor: Actor, tmp_path: Path) -> None:
    path, trap = tmp_path / "actor.npz", tmp_path / "sprung"
    save_actor(path, actor)
    changed(**{field: np.array([Exploit(trap)], dtype=object)})(path)
    with pytest.raises(RingRLError, match="allow_pickle=False"):
        load_actor(path)
    assert not trap.exists()
    with np.load(path, allow_pickle=True) as file:
        assert file[field] is not None
    assert trap.exists(), "the trap works"


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RingRLError, match=r"none\.npz: no such file"):
        load_actor(tmp_path / "none.npz")


def test_a_behavior_acts_within_the_bounds_and_says_who_it_is(actor: Actor, tmp_path: Path) -> None:
    save_actor(tmp_path / "actor.npz", actor)
    behavior = ActorBehavior(tmp_path / "actor.npz", environments())  # pyright: ignore[reportArgumentType]
    rng = np.random.default_rng(0)
    behavior.reset(np.ones(3, bool), rng)
    actions = np.concatenate([behavior.act(rng.normal(size=(3, 2)) * 5.0, rng) for _ in range(200)])
    assert actions.shape == (600, 1)
    assert actions.dtype == np.float32
    assert LOW[0] <= actions.min() < -1.0
    assert 3.0 < actions.max() <= HIGH[0]
    assert behavior.labels() == ["sac(step=12000)"] * 3
    still = ActorBehavior(actor, environments(), noise=0.0)  # pyright: ignore[reportArgumentType]
    assert still.labels() == ["sac(step=12000, noise=0)"] * 3
    np.testing.assert_array_equal(still.act(np.ones((3, 2)), rng), still.act(np.ones((3, 2)), rng))


@pytest.mark.parametrize(
    ("other", "noise", "words"),
    [
        ({"size": 3}, 1.0, r"observations 2, actions 1\); test/Point-v1 has 3 and 1"),
        ({"low": np.full(2, -2, FLOAT), "high": np.full(2, 4, FLOAT)}, 1.0, "has 2 and 2"),
        ({"high": np.array([1], FLOAT)}, 1.0, "those of test/Point-v1 are in"),
        ({"name": "test/Other-v0"}, 1.0, "learned test/Point-v0, this is test/Other-v0"),
        ({}, -1.0, "noise=-1"),
    ],
)
def test_a_behavior_refuses_what_it_did_not_learn(other, noise, words, actor: Actor) -> None:
    with pytest.raises(RingRLError, match=words):
        ActorBehavior(actor, environments(**other), noise=noise)  # pyright: ignore[reportArgumentType]
