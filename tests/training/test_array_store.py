"""Arrays in folders of any name."""

import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.errors import RingRLError
from ringrl.training import array_store
from ringrl.training.array_store import ArrayWrite, find_glob_free_path, read_arrays, stored_shapes, verify_arrays


@pytest.mark.parametrize("name", ["it's", "lr=[1e-3]", "a b, {x} & ü", "back\\slash", "what?*"])
def test_arrays_come_back_from_a_folder_of_any_name(tmp_path, monkeypatch, name):
    monkeypatch.setattr(array_store.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = tmp_path / name / "checkpoints" / "step"
    folder.parent.mkdir(parents=True)
    write = ArrayWrite(folder, {"a": jnp.arange(3.0)})
    write.finish()
    verify_arrays(folder, write.checksums())
    found = read_arrays(folder, stored_shapes(folder))
    np.testing.assert_array_equal(found["a"], np.arange(3.0))


def test_a_link_of_somebody_else_s_is_not_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(array_store.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = tmp_path / "[1]" / "checkpoints"
    assert find_glob_free_path(tmp_path / "plain") == tmp_path / "plain"
    link = find_glob_free_path(folder)
    assert find_glob_free_path(folder) == link, "the same again"
    link.parent.unlink()
    link.parent.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RingRLError, match="set TMPDIR"):
        find_glob_free_path(folder)
