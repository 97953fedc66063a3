"""A checkpoint is data: nothing in its files is executed."""

import json
import pickle
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringrl.errors import RingRLError
from ringrl.training.checkpoint import Checkpointer
from ringrl.training.config import TrainingConfig
from ringrl.training.state import create_state

TRAINING = TrainingConfig(steps=10, batch_size=8)


class Trap:
    """Creates a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return Path.mkdir, (self.folder,)


@pytest.fixture
def late_complaints(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Collects errors of orbax's threads that appear after the test, so that they do not affect the next one."""
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
    yield
    time.sleep(0.5)


@pytest.mark.usefixtures("late_complaints")
@pytest.mark.parametrize("which", ["metadata.json", "_METADATA", "manifest.ocdbt", "every array"])
def test_a_malicious_checkpoint_runs_nothing(toy_agent, tmp_path: Path, which: str) -> None:
    checkpointer = Checkpointer(tmp_path / "checkpoints", keep_last=2, warn=lambda line: None)
    checkpointer.save(1, create_state(toy_agent(), TRAINING, 3), {})
    checkpointer.wait()
    [folder] = (tmp_path / "checkpoints").glob("step_*")
    payload = pickle.dumps(Trap(tmp_path / "sprung"))
    record = json.loads((folder / "metadata.json").read_text())
    planted = 0
    for part, checksums in record["checksums"].items():
        for name in checksums:
            if name == which or (which == "every array" and "/d/" in f"/{name}"):
                (folder / part / name).write_bytes(payload)
                checksums[name] = zlib.crc32(payload)  # an attacker can compute checksums too
                planted += 1
    (folder / "metadata.json").write_text(json.dumps(record))
    if which == "metadata.json":
        (folder / which).write_bytes(payload)
        planted += 1
    assert planted

    with pytest.raises(RingRLError, match="No whole checkpoint"):
        checkpointer.restore_parameters("last")
    assert not (tmp_path / "sprung").exists()
    pickle.loads(payload)
    assert (tmp_path / "sprung").exists(), "the trap works"


def test_nothing_is_unpickled_anywhere() -> None:
    root = Path(__file__).resolve().parents[2]
    for file in [*(root / "ringrl").rglob("*.py"), *(root / "envs").rglob("*.py")]:
        source = file.read_text()
        assert "allow_pickle=True" not in source, file
        # A compiled program is code itself: it is taken from where this user alone may write (cli/compilation.py).
        assert "pickle.load" not in source or file == root / "ringrl" / "training" / "programs.py", file
