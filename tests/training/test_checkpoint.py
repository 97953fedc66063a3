"""Checkpoints: written during training, complete or absent; the best and the last are kept, damaged ones skipped."""

import asyncio
import dataclasses
import errno
import json
import os
import threading
from pathlib import Path

import jax
import numpy as np
import pytest
from orbax.checkpoint._src.serialization import serialization

from ringrl.errors import RingRLError
from ringrl.training import checkpoint as checkpoint_module
from ringrl.training import checkpoint_folder
from ringrl.training.array_store import ArrayWrite
from ringrl.training.checkpoint import Checkpointer, find_checkpoint, load_metadata, restore_parameters
from ringrl.training.compatibility import changes_between, list_changes
from ringrl.training.config import TrainingConfig
from ringrl.training.state import create_state
from ringrl.training.step import make_train_step

TRAINING = TrainingConfig(steps=10, batch_size=8)


@pytest.fixture(scope="module")
def state(toy_agent, chain):
    agent = toy_agent()
    return make_train_step(agent, TRAINING)(create_state(agent, TRAINING, 3), chain(0))[0]


@pytest.fixture
def warnings_seen():
    return []


@pytest.fixture
def checkpointer(tmp_path, warnings_seen):
    checkpointer = Checkpointer(tmp_path / "checkpoints", keep_last=2, warn=warnings_seen.append)
    yield checkpointer
    checkpointer.wait()


@pytest.fixture
def disk(monkeypatch):
    """A disk that blocks writes of arrays until this event is set."""
    ready = threading.Event()
    write = serialization.async_serialize_from_host

    async def wait_and_write(*arguments, **options):
        assert await asyncio.to_thread(ready.wait, 60)
        return await write(*arguments, **options)

    monkeypatch.setattr(serialization, "async_serialize_from_host", wait_and_write)
    yield ready
    ready.set()


def damage(folder):
    """Flip one byte in the middle of the largest file."""
    largest = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    largest.write_bytes(content)


def test_a_state_comes_back_bit_for_bit(checkpointer, state, toy_agent, assert_same):
    checkpointer.save(1, state, {"config": {"seed": 3}})
    like = create_state(toy_agent(), TRAINING, 99)
    restored, metadata = checkpointer.restore("last", like=like)
    assert_same(restored, state)
    assert metadata["config"] == {"seed": 3}
    assert (metadata["step"], metadata["metric"]) == (1, None)
    shapes = jax.eval_shape(lambda: create_state(toy_agent(), TRAINING, 0))
    assert_same(checkpointer.restore(None, like=shapes)[0], state)


def test_training_goes_on_while_the_disk_is_slow_and_what_is_saved_is_the_state_at_the_save(
    checkpointer, toy_agent, batches, disk, assert_same
):
    stream, step = batches(0), make_train_step(toy_agent(), TRAINING)
    state, _ = step(create_state(toy_agent(), TRAINING, 3), next(stream))
    copy = jax.tree.map(jax.numpy.copy, state)
    checkpointer.save(1, state, {})
    for _ in range(5):
        state, _ = step(state, next(stream))  # donates
    jax.block_until_ready(state)
    assert [path.name for path in checkpointer.directory.iterdir()] == [".unfinished_step_00000001"]
    assert checkpointer.steps() == []
    disk.set()
    assert_same(checkpointer.restore(like=state)[0], copy)
    assert [path.name for path in checkpointer.directory.iterdir()] == ["step_00000001"]


def test_a_save_waits_for_the_one_before(checkpointer, state, disk):
    checkpointer.save(1, state, {})
    threading.Timer(0.2, disk.set).start()
    checkpointer.save(2, state, {})
    assert checkpointer.steps()[0] == 1
    checkpointer.wait()
    assert checkpointer.steps() == [1, 2]


def test_restoring_needs_no_tree(checkpointer, state, tmp_path):
    checkpointer.save(1, state, {})
    tree, _ = checkpointer.restore()
    assert set(tree) == {"params", "optimizer_state", "step", "key", "skipped", "skipped_in_row"}
    assert isinstance(tree["params"]["hidden"]["kernel"], np.ndarray)
    np.testing.assert_array_equal(tree["key"], jax.random.key_data(state.key))
    params, metadata = restore_parameters(tmp_path)
    assert jax.tree.structure(params) == jax.tree.structure(state.params)
    np.testing.assert_array_equal(params["action"]["kernel"], state.params["action"]["kernel"])
    assert metadata["step"] == 1


def test_the_best_and_the_last_are_kept(checkpointer, state, tmp_path):
    for step, metric in ((1, 0.1), (2, 0.9), (3, float("nan")), (4, 0.5), (5, None), (6, 0.2)):
        checkpointer.save(step, state, {"note": step}, metric)
    checkpointer.wait()
    assert checkpointer.steps() == [2, 5, 6]
    assert checkpointer.best() == (2, 0.9)
    assert checkpointer.restore("best")[1]["note"] == 2
    assert checkpointer.restore(5)[1]["note"] == 5
    assert load_metadata(tmp_path, "best")["note"] == 2
    assert load_metadata(tmp_path)["note"] == 6


def test_going_on_from_an_earlier_step_drops_the_later_ones(checkpointer, state):
    for step in (1, 2, 3):
        checkpointer.save(step, state, {}, metric=float(step))
    checkpointer.keep_last = 1
    checkpointer.wait()
    checkpointer.save(2, state, {"note": "again"})
    checkpointer.wait()
    assert checkpointer.steps() == [2]
    assert checkpointer.restore("best")[1]["note"] == "again"


def test_saving_a_step_again_replaces_it(checkpointer, state):
    checkpointer.save(1, state, {"note": "old"})
    checkpointer.save(1, state, {"note": "new"}, metric=1.0)
    assert checkpointer.restore()[1]["note"] == "new"
    assert [path.name for path in checkpointer.directory.iterdir()] == ["step_00000001"]


@pytest.mark.parametrize("fault", ["byte", "missing", "truncated", "metadata"])
def test_a_damaged_newest_is_named_and_the_one_before_is_used(checkpointer, state, warnings_seen, fault, assert_same):
    for step in (1, 2):
        checkpointer.save(step, dataclasses.replace(state, step=state.step + step), {})
    checkpointer.wait()
    newest = checkpointer.directory / "step_00000002"
    if fault == "byte":
        damage(newest / "parameters")
    elif fault == "missing":
        (newest / "training" / "manifest.ocdbt").unlink()
    elif fault == "metadata":
        (newest / "metadata.json").write_text('{"step": 2, "metr')
    else:
        for path in newest.glob("training/**/d/*"):  # small arrays have several copies among these
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    restored, metadata = checkpointer.restore("last", like=state)
    assert metadata["step"] == 1
    assert int(restored.step) == int(state.step) + 1
    assert_same(restored.params, state.params)
    assert len(warnings_seen) == 1
    assert "step_00000002" in warnings_seen[0]
    assert "trying step 1" in warnings_seen[0]
    assert "\n" not in warnings_seen[0]


def test_none_whole_is_one_line_with_the_folder(checkpointer, state, warnings_seen, tmp_path):
    checkpointer.save(1, state, {})
    checkpointer.wait()
    damage(checkpointer.directory / "step_00000001" / "parameters")
    with pytest.raises(RingRLError, match=r"No whole checkpoint in .*checkpoints"):
        checkpointer.restore()
    assert len(warnings_seen) == 1
    with pytest.raises(RingRLError, match="No whole checkpoint of step 7"):
        checkpointer.restore(7)
    with pytest.raises(RingRLError, match="No checkpoint in"):
        find_checkpoint(tmp_path / "nowhere")


def test_what_a_killed_process_leaves_is_not_a_checkpoint_and_is_swept_up(checkpointer, state):
    checkpointer.save(1, state, {})
    checkpointer.wait()
    leftovers = [
        checkpointer.directory / f".unfinished_{name}" for name in ("step_00000002", "removal_of_step_00000000")
    ]
    for leftover in leftovers:
        leftover.mkdir()
    assert checkpointer.steps() == [1]
    checkpointer.save(3, state, {})
    checkpointer.wait()
    assert not any(leftover.exists() for leftover in leftovers)


def test_a_kill_while_a_checkpoint_is_replaced_leaves_the_old_one(checkpointer, state, tmp_path):
    checkpointer.save(1, state, {"note": "old"})
    checkpointer.wait()
    replaced = checkpointer.directory / ".replaced_step_00000001"
    (checkpointer.directory / "step_00000001").rename(replaced)
    assert checkpointer.steps() == [1]
    assert load_metadata(tmp_path)["note"] == "old"
    checkpointer.save(2, state, {})
    checkpointer.wait()
    assert checkpointer.restore(1)[1]["note"] == "old"
    assert not replaced.exists()


def test_an_amended_checkpoint_has_the_old_metadata_or_the_new(checkpointer, state, monkeypatch):
    checkpointer.save(1, state, {"evaluation": None, "kept": 7})
    checkpointer.wait()

    class Kill(BaseException):
        pass

    def kill(self, target):
        raise Kill

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", kill)
        with pytest.raises(Kill):
            checkpointer.amend(1, {"evaluation": 3.0}, metric=3.0)
    after = Checkpointer(checkpointer.directory)
    assert (after.load_metadata(1)["evaluation"], after.best()) == (None, None)
    after.amend(1, {"evaluation": 3.0}, metric=3.0)
    _, metadata = after.restore(1)
    assert (metadata["evaluation"], metadata["kept"], after.best()) == (3.0, 7, (1, 3.0))
    with pytest.raises(RingRLError, match="step 2"):
        after.amend(2, {}, metric=None)


def test_a_checkpoint_that_goes_is_hidden_before_its_files_are(checkpointer, state, monkeypatch):
    for step in (1, 2):
        checkpointer.save(step, state, {})
    checkpointer.wait()
    remove, removed = checkpoint_folder.shutil.rmtree, []
    monkeypatch.setattr(
        checkpoint_folder.shutil, "rmtree", lambda path, **options: (removed.append(path.name), remove(path, **options))
    )
    checkpointer.save(3, state, {})
    checkpointer.wait()
    assert checkpointer.steps() == [2, 3]
    assert ".unfinished_removal_of_step_00000001" in removed
    assert all(name.startswith(".") for name in removed)


@pytest.mark.parametrize("surfaces", ["wait", "save", "restore"])
def test_a_full_disk_is_one_line_and_older_checkpoints_stay_whole(
    checkpointer, state, monkeypatch, assert_same, surfaces
):
    checkpointer.save(1, state, {})
    checkpointer.wait()

    def fill_up(self):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(ArrayWrite, "checksums", fill_up)
        checkpointer.save(2, state, {})
        with pytest.raises(RingRLError, match=r"step 2 in .*: no space left on device; free"):
            {
                "wait": checkpointer.wait,
                "save": lambda: checkpointer.save(3, state, {}),
                "restore": checkpointer.restore,
            }[surfaces]()
    assert [path.name for path in checkpointer.directory.iterdir()] == ["step_00000001"]
    assert_same(checkpointer.restore(like=state)[0], state)
    checkpointer.save(3, state, {})
    checkpointer.wait()
    assert checkpointer.steps() == [1, 3]


def test_a_disk_that_fails_while_arrays_are_written_is_one_line(checkpointer, state, monkeypatch, caplog):
    async def fail(*arguments, **options):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(serialization, "async_serialize_from_host", fail)
    checkpointer.save(2, state, {})
    with pytest.raises(RingRLError, match=r"step 2 in .*: input/output error; free"):
        checkpointer.wait()
    assert list(checkpointer.directory.iterdir()) == []
    assert not any(record.exc_info for record in caplog.records)


def test_too_little_space_is_seen_before_anything_is_written(checkpointer, state, monkeypatch):
    checkpointer.save(1, state, {})
    checkpointer.wait()
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    usage = type("Usage", (), {"free": needed})
    monkeypatch.setattr(checkpoint_folder.shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(checkpoint_module, "ArrayWrite", lambda path, tree: pytest.fail("written"))
    with pytest.raises(RingRLError, match="no space left on device"):
        checkpointer.save(2, state, {})
    assert checkpointer.steps() == [1]


def test_another_model_is_refused_by_name(checkpointer, state):
    checkpointer.save(1, state, {})
    params = {**state.params, "action": {**state.params["action"], "bias": np.zeros((7,), np.float32)}}
    with pytest.raises(RingRLError, match=r"another model: params/action/bias is float32\[2\], here float32\[7\]"):
        checkpointer.restore(like=dataclasses.replace(state, params=params))
    params = {**state.params, "extra": np.zeros((1,), np.float32)}
    with pytest.raises(RingRLError, match="params/extra is absent"):
        checkpointer.restore(like=dataclasses.replace(state, params=params))


def test_a_checkpoint_from_a_path(checkpointer, state, tmp_path):
    saved = checkpointer.save(4, state, {})
    checkpointer.wait()
    assert find_checkpoint(tmp_path) == (checkpointer.directory, "best")
    assert find_checkpoint(checkpointer.directory, "last") == (checkpointer.directory, "last")
    assert find_checkpoint(saved) == (checkpointer.directory, 4)


def test_two_configurations_differ_in_every_key_that_is_named():
    saved = {"model": {"width": 64, "layers": 2, "gone": 1}, "chain": {"order": "ascending", "sizes": (1, 2)}}
    assert changes_between(json.loads(json.dumps(saved)), saved) == [], "tuples are the lists that JSON makes of them"
    now = {"model": {"width": 128, "layers": 2}, "chain": {"order": "random", "sizes": (1, 2)}, "new": True}
    found = changes_between(saved, now)
    assert {change.key for change in found} == {"model.width", "model.gone", "chain.order", "new"}
    message = list_changes(found)
    assert "model.width was 64, is 128" in message
    assert "model.gone was 1, is null" in message
    assert "chain.order was ascending, is random" in message
    assert "new was null, is true" in message
