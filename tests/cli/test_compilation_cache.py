"""Compiled programs kept from run to run: whole or not at all, bounded, and never in the way."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ringrl.cli.compilation import VARIABLE, ProgramFolder

PROGRAM = """
import sys
from pathlib import Path
import jax, jax.numpy as jnp
from jax._src import monitoring
from ringrl.cli.compilation import VARIABLE, use_compilation_cache
hits = []
monitoring.register_event_listener(lambda event, **_: hits.append(event) if event.endswith("cache_hits") else None)
root = Path(sys.argv[1])
assert use_compilation_cache(root / "off", {VARIABLE: ""}) is None
assert use_compilation_cache(root / "file") is None, "a file is in the way"
folder = use_compilation_cache(root, {VARIABLE: sys.argv[2]} if len(sys.argv) > 2 else {})
assert folder is None or use_compilation_cache(root / "another") is None, "JAX's setting, whoever made it, stays"
value = jax.jit(lambda x: jnp.sin(x) @ jnp.cos(x).T * 1.7)(jnp.linspace(0, 1, 12).reshape(3, 4))
print(folder, len(hits) > 0, value.tobytes().hex())
"""


def run(*words: object, **variables: str) -> tuple[str, str, str]:
    """The folder in use, whether the program came from it, and the bits of the result."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("JAX_") and key != VARIABLE}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, *map(str, words)],
        env=kept | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    folder, hit, bits = done.stdout.split()
    return folder, hit, bits


def test_the_second_process_finds_the_program_and_computes_the_same_bits(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    folder, hit, bits = run(tmp_path)
    assert Path(folder).parent == tmp_path / "compilation"
    assert hit == "False"
    assert {file.suffix for file in Path(folder).iterdir()} == {".program"}, "and none of JAX's own files"
    assert run(tmp_path) == (folder, "True", bits)
    assert run(tmp_path, tmp_path / "chosen", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "of_jax"))[0] == "None"
    assert {path.name for path in tmp_path.iterdir()} == {"file", "compilation", "of_jax"}


def folder_of(tmp_path: Path, max_bytes: int = 1000) -> ProgramFolder:
    (tmp_path / "machine").mkdir(exist_ok=True)
    return ProgramFolder(tmp_path / "machine", tmp_path, max_bytes)


def test_programs_are_kept_whole_and_dropped_by_age(tmp_path: Path) -> None:
    programs = folder_of(tmp_path)
    assert programs.get("a") is None
    for index, key in enumerate("abc"):
        programs.put(key, key.encode() * 300)
        os.utime(tmp_path / "machine" / f"{key}.program", (index, index))
    assert programs.get("a") == b"a" * 300, "and now it is the one used last"
    (tmp_path / "older").mkdir()
    (tmp_path / "older" / "x.program").write_bytes(b"x" * 300)  # of another version: it counts, and is the oldest
    os.utime(tmp_path / "older" / "x.program", (0, 0))
    programs.put("d", b"d" * 300)
    programs.prune()
    assert not (tmp_path / "older" / "x.program").exists()
    assert [key for key in "abcd" if programs.get(key)] == ["a", "c", "d"]


@pytest.mark.parametrize("damage", [b"", b"abc", b"\0\0\0\0" + b"v" * 20])
def test_a_damaged_program_is_not_found_and_makes_room(tmp_path: Path, damage: bytes) -> None:
    programs = folder_of(tmp_path)
    programs.put("k", b"v" * 20)
    (tmp_path / "machine" / "k.program").write_bytes(damage)
    assert programs.get("k") is None
    programs.put("k", b"w" * 20)
    assert programs.get("k") == b"w" * 20


def test_a_folder_that_cannot_be_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = folder_of(tmp_path)
    programs.put("k", b"value")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    for name in ("utime", "replace", "unlink"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr("tempfile.mkstemp", refuse)
    programs.put("other", b"value")
    assert programs.get("other") is None
    assert programs.get("k") == b"value"


def test_several_writers_of_one_program(tmp_path: Path) -> None:
    """Whoever reads meanwhile sees a whole program or none."""
    values = [bytes([index]) * 50_000 for index in range(4)]
    programs = folder_of(tmp_path, 1 << 20)
    seen = []

    def write(value: bytes) -> None:
        for _ in range(20):
            programs.put("k", value)
            seen.append(programs.get("k"))

    threads = [threading.Thread(target=write, args=(value,)) for value in values]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(seen) <= set(values)
    assert len(list((tmp_path / "machine").iterdir())) == 1, "and nothing half-written is left"


def test_a_run_keeps_its_programs(ringrl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line asks for the cache: with JAX's own set, as tests have it, for none."""
    asked = []
    monkeypatch.setattr("ringrl.cli.job.use_compilation_cache", lambda root: asked.append(root))
    assert ringrl("train", "data.name=none/none-v0").code == 2
    assert asked == [Path(os.environ["RINGRL_DATA"])]
    assert ringrl("data").code == 0
    assert len(asked) == 1


@pytest.mark.scale
def test_the_second_run_traces_no_training_step_and_has_the_same_losses(
    ringrl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect = (
        "collect",
        "collection=dark_room",
        "env.kwargs.size=3",
        "env.kwargs.max_steps=4",
        "dataset=ringrl/kept-v0",
    )
    assert ringrl(*collect, "episodes_per_task=2", "num_environments=4", "reference_episodes=2").code == 0
    words = ("train", "experiment=dark_room", "data.name=ringrl/kept-v0", "chain.trajectories=2")
    words += ("training.steps=3", "training.batch_size=2", "evaluation.bootstrap_samples=0")
    words += ("evaluation.trials=2", "evaluation.environments=2", "model.layers=1", "model.width=16", "model.heads=2")
    assert ringrl(*words, "seed=1", "hydra.run.dir=first").code == 0

    def refuse(*_: object) -> None:
        raise AssertionError("traced again")

    monkeypatch.setattr("ringrl.training.step.loss_and_gradients", refuse)
    monkeypatch.setattr("ringrl.training.state._fresh", refuse)
    outcome = ringrl(*words, "seed=1", "hydra.run.dir=second")
    assert outcome.code == 0, outcome.err
    assert ringrl(*words, "seed=2", "hydra.run.dir=third").code == 0
    losses = [(tmp_path / run / "losses.csv").read_text() for run in ("first", "second", "third")]
    assert losses[0] == losses[1] != losses[2]
    assert ringrl(*words, "training.optimizer.learning_rate=0.5", "hydra.run.dir=fourth").code != 0, "another program"
