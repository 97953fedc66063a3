import errno
import os

import numpy as np
import pytest

from ringrl.data.exorl_writer import ExorlWriter
from ringrl.errors import RingRLError


def episode(steps: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(steps)
    return {
        "observations": rng.normal(size=(steps + 1, 3)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (steps, 2)).astype(np.float32),
        "rewards": rng.normal(size=steps).astype(np.float32),
        "physics": rng.normal(size=(steps + 1, 4)),
    }


def full_disk(*arguments, **keywords):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_the_writer_writes_exorl_s_format(tmp_path):
    values = episode(4)
    writer = ExorlWriter(tmp_path / "set")
    writer.append(**values)
    writer.append(**episode(2), terminated=True)
    assert sorted(os.listdir(tmp_path / "set")) == ["episode_000000_4.npz", "episode_000001_2.npz"]
    with np.load(tmp_path / "set" / "episode_000000_4.npz", allow_pickle=False) as read:
        shapes = {key: (array.shape, array.dtype.name) for key, array in read.items()}
        assert shapes == {
            "observation": ((5, 3), "float32"),
            "action": ((5, 2), "float32"),
            "reward": ((5, 1), "float32"),
            "discount": ((5, 1), "float32"),
            "physics": ((5, 4), "float64"),
        }
        np.testing.assert_array_equal(read["observation"], values["observations"])
        np.testing.assert_array_equal(read["physics"], values["physics"])
        np.testing.assert_array_equal(read["action"][1:], values["actions"])
        np.testing.assert_array_equal(read["reward"][1:, 0], values["rewards"])
        np.testing.assert_array_equal(read["action"][0], [0, 0])
        np.testing.assert_array_equal(read["reward"][0], [0])
        np.testing.assert_array_equal(read["discount"], np.ones((5, 1)))
    with np.load(tmp_path / "set" / "episode_000001_2.npz", allow_pickle=False) as read:
        np.testing.assert_array_equal(read["discount"][:, 0], [1, 1, 0])


def test_the_writer_goes_on_after_any_numbering_and_clears_what_a_dead_one_left(tmp_path):
    (tmp_path / ".episode_000003_2.npz").write_bytes(b"half")
    (tmp_path / "20220114T190000_41_1000.npz").write_bytes(b"")
    assert ExorlWriter(tmp_path).append(**episode(2)).name == "episode_000042_2.npz"
    assert sorted(os.listdir(tmp_path)) == ["20220114T190000_41_1000.npz", "episode_000042_2.npz"]


@pytest.mark.parametrize(
    "changes",
    [
        {"observations": np.zeros((3, 3))},
        {"observations": np.zeros(4)},
        {"actions": np.zeros((4, 2))},
        {"actions": np.zeros(3)},
        {"physics": np.zeros((3, 5))},
        {key: values[:0] for key, values in episode(3).items()},
    ],
)
def test_the_writer_refuses_arrays_that_do_not_fit(tmp_path, changes):
    with pytest.raises(RingRLError, match=r"episode 0: .* rewards, .* go with \(T, size\) actions"):
        ExorlWriter(tmp_path).append(**(episode(3) | changes))
    assert os.listdir(tmp_path) == []


def test_the_writer_refuses_a_folder_of_other_things(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(RingRLError, match=r"holds 'thesis.tex', which is no episode of an ExoRL set; give a folder"):
        ExorlWriter(tmp_path)
    with pytest.raises(RingRLError, match=r"is a file; give a folder"):
        ExorlWriter(tmp_path / "thesis.tex")


def test_the_writer_refuses_a_folder_that_another_writes_to(tmp_path):
    writer = ExorlWriter(tmp_path)
    with pytest.raises(RingRLError, match="another process is writing episodes there"):
        ExorlWriter(tmp_path)
    writer.append(**episode(3))
    del writer
    assert ExorlWriter(tmp_path).next_index == 1


def test_the_writer_on_a_full_disk(tmp_path, monkeypatch):
    writer = ExorlWriter(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", full_disk)
        with pytest.raises(RingRLError, match=r"episode_000000_3.npz: the disk is full"):
            writer.append(**episode(3))
    assert os.listdir(tmp_path) == []
    assert writer.append(**episode(3)).name == "episode_000000_3.npz"
