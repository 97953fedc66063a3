"""Changes allowed on resuming a run: none that affects its result by default, and any with a record."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from ringrl.cli.compose import as_plain
from ringrl.cli.resuming import FREE, KEPT, RecordedChange, accepted_changes, is_one_of, read_changes, write_changes
from ringrl.config import ResumeChanges, TrainCommand
from ringrl.config.schema import build, key_paths
from ringrl.errors import RingRLError

# A value other than the default for every key that decides the result of a run; None where another has to go with it.
OTHERS: dict[str, Any] = {
    "env.id": "Pendulum-v1",
    "env.kwargs": {"size": 5},
    "training.steps": 2000,
    "training.batch_size": 64,
    "training.gradient_accumulation": 2,
    "training.precision": "bfloat16",
    "training.gradient_precision": "bfloat16",
    "training.evaluate_every": 7,
    "training.optimizer.learning_rate": 1e-4,
    "training.optimizer.warmup_steps": 51,
    "training.optimizer.schedule": "constant",
    "training.optimizer.final_fraction": 0.5,
    "training.optimizer.beta1": 0.8,
    "training.optimizer.beta2": 0.8,
    "training.optimizer.epsilon": 1e-5,
    "training.optimizer.weight_decay": 0.1,
    "training.optimizer.clip_norm": 0.5,
    "evaluation.trials": 9,
    "evaluation.environments": 3,
    "evaluation.repeats": 2,
    "evaluation.split": "training",
    "evaluation.sample": False,
    "evaluation.temperature": 0.5,
    "evaluation.target_return": 3.0,
    "evaluation.when_full": "stop",
    "evaluation.context_steps": 11,
    "evaluation.seed": 5,
}
FREE_OTHERS: dict[str, Any] = {
    "name": "other",
    "label": "other",
    "training.log_every": 3,
    "training.save_every": 3,
    "training.save_every_minutes": 3.0,
    "training.keep_last": 3,
    "training.loader_threads": 3,
    "training.prefetch": 3,
    "attention.strategy": "blockwise",
    "attention.query_block_size": 64,
    "mesh.data": 2,
    "model.remat": "layer",
    "evaluation.video": True,
    "data.download": True,
}


def told(changes: dict[str, Any] | None = None, **options: Any) -> TrainCommand:
    """The default command with some keys changed."""
    values = as_plain(TrainCommand())
    for key, value in (changes or {}).items():
        *sections, last = key.split(".")
        node = values
        for section in sections:
            node = node[section]
        node[last] = value
    return dataclasses.replace(build(TrainCommand, values), **options)


def metadata_of(command: TrainCommand, **others: Any) -> dict[str, Any]:
    found = {"config": as_plain(command), "data_fingerprint": "abc", "environment": as_plain(command.env), **others}
    return json.loads(json.dumps(found))


def resume(command: TrainCommand, folder: Path, saved: dict[str, Any] | None = None, step: int = 10):
    """`accepted_changes` for a run with default settings, at a given step."""
    saved = metadata_of(TrainCommand()) if saved is None else saved
    return accepted_changes(command, metadata_of(command), {**saved, "step": step}, folder)


def test_every_key_of_training_environment_and_evaluation_is_free_or_tried_here() -> None:
    sections = ("training", "env", "evaluation")
    keys = [key for key in key_paths(TrainCommand) if is_one_of(key, sections) and not key.endswith("**")]
    leaves = [key for key in keys if not any(other.startswith(f"{key}.") for other in keys) and key not in sections]
    assert {key for key in leaves if not is_one_of(key, FREE)} <= set(OTHERS)
    for key in (*FREE, *KEPT[:-1]):
        assert key in key_paths(TrainCommand), f"{key} is no key any more"


@pytest.mark.parametrize("key", OTHERS)
def test_what_changes_the_result_is_refused_or_recorded(tmp_path: Path, key: str) -> None:
    command = told({key: OTHERS[key]})
    with pytest.raises(RingRLError, match="resume_changes=record") as caught:
        resume(command, tmp_path)
    named = f"{key}.size" if isinstance(OTHERS[key], dict) else key
    assert f"{named} was " in str(caught.value)
    assert "\n" not in str(caught.value)
    [change] = resume(dataclasses.replace(command, resume_changes=ResumeChanges.record), tmp_path)
    assert (change.step, change.key) == (10, named)


@pytest.mark.parametrize("key", FREE_OTHERS)
def test_what_does_not_change_the_result_is_free(tmp_path: Path, key: str) -> None:
    assert resume(told({key: FREE_OTHERS[key]}), tmp_path) == []


def test_every_changed_key_is_named_with_both_values(tmp_path: Path) -> None:
    with pytest.raises(RingRLError) as caught:
        resume(told({"training.batch_size": 64, "evaluation.sample": False, "evaluation.target_return": 2.5}), tmp_path)
    for said in (
        "training.batch_size was 32, is 64",
        "evaluation.sample was true, is false",
        "evaluation.target_return was null, is 2.5",
    ):
        assert said in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"), [("seed", 3), ("model.width", 32), ("chain.order", "random"), ("data.top_fraction", 0.5)]
)
def test_a_run_stays_what_it_is_whatever_is_asked(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(RingRLError, match=f"is another run: {key} was .* train in another folder"):
        resume(told({key: value}, resume_changes=ResumeChanges.record), tmp_path)


def test_other_data_of_the_same_name_are_another_run(tmp_path: Path) -> None:
    with pytest.raises(RingRLError, match="data_fingerprint was xyz, is abc"):
        resume(TrainCommand(), tmp_path, metadata_of(TrainCommand(), data_fingerprint="xyz"))


def test_an_ended_cosine_is_not_lifted_without_a_word(tmp_path: Path) -> None:
    saved = metadata_of(told({"training.steps": 10, "training.optimizer.warmup_steps": 0}))
    longer = told({"training.steps": 20, "training.optimizer.warmup_steps": 0})
    with pytest.raises(RingRLError) as caught:
        resume(longer, tmp_path, saved)
    said = str(caught.value)
    assert "training.steps was 10, is 20" in said
    # The 11th of 20 updates of a cosine: half of 1e-3, (1 + cos(10 / 19 pi)) / 2 of it.
    assert "the learning rate of step 11 was 0 (its schedule has ended), is 0.000459" in said


def test_a_constant_rate_goes_on_for_as_long_as_one_likes_on_record(tmp_path: Path) -> None:
    constant = {"training.optimizer.schedule": "constant"}
    saved = metadata_of(told({"training.steps": 10, **constant}))
    assert resume(told({"training.steps": 20, **constant}), tmp_path, saved) == [
        RecordedChange(10, "training.steps", 10, 20)
    ]
    with pytest.raises(RingRLError, match=r"the run in .* is at step 10 already"):
        resume(told({"training.steps": 9, **constant}), tmp_path, saved)


def test_what_was_allowed_need_not_be_asked_for_again_until_the_next_checkpoint(tmp_path: Path) -> None:
    """The process was killed after it had begun to go on with other settings, and before it had saved."""
    command = told({"training.batch_size": 64}, resume_changes=ResumeChanges.record)
    changes = resume(command, tmp_path)
    write_changes(changes, tmp_path)
    assert read_changes(tmp_path) == changes
    again = told({"training.batch_size": 64})
    assert resume(again, tmp_path) == changes
    with pytest.raises(RingRLError, match=r"training\.batch_size was 32, is 16"):
        resume(told({"training.batch_size": 16}), tmp_path)
    with pytest.raises(RingRLError, match=r"training\.batch_size was 32, is 64"):
        resume(again, tmp_path, step=20)  # another step than the record's


def test_earlier_changes_stay_on_record(tmp_path: Path) -> None:
    earlier = RecordedChange(4, "training.batch_size", 16, 32)
    saved = metadata_of(TrainCommand(), config_changes=[dataclasses.asdict(earlier)])
    command = told({"evaluation.seed": 5}, resume_changes=ResumeChanges.record)
    assert resume(command, tmp_path, saved) == [earlier, RecordedChange(10, "evaluation.seed", 10_000, 5)]


def test_naming_the_environment_that_was_found_is_no_change(tmp_path: Path) -> None:
    saved = {**metadata_of(TrainCommand()), "environment": {"id": "Pendulum-v1", "kwargs": {}}}
    assert resume(told({"env.id": "Pendulum-v1"}), tmp_path, saved) == []
