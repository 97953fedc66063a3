"""Changes allowed on resuming a run: settings that do not affect its result, and others if recorded on request.

A run keeps its seed, agent, model, chain and data. Settings of training and evaluation can change only with
`resume_changes=record`, and every change is recorded with its step. A key that is not listed here affects the result.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ringrl.cli.compose import as_plain
from ringrl.config import ResumeChanges, TrainCommand
from ringrl.config.schema import build
from ringrl.errors import RingRLError
from ringrl.files import write_atomically
from ringrl.training.compatibility import Change, changes_between, list_changes
from ringrl.training.config import Schedule, TrainingConfig

CHANGES_FILE = "config_changes.json"  # in a run folder, where it was resumed with other settings

# These affect names, location, speed, logging and what is kept, and a run's numbers only by rounding.
FREE = (
    *("name", "label", "resume", "resume_changes", "overwrite", "profile", "debug", "mesh", "distributed", "attention"),
    *("agent.loss_block_size", "model.remat", "model.feedforward_block_size", "model.unroll_layers", "data.download"),
    *("training.log_every", "training.histogram_every", "training.save_every", "training.save_every_minutes"),
    *("training.keep_last", "training.loader_threads", "training.prefetch", "training.nonfinite_limit"),
    *("evaluation.video", "evaluation.sharded", "evaluation.bootstrap_samples"),
)
KEPT = ("seed", "agent", "model", "chain", "data", "data_fingerprint")  # if these change, it is a different run


@dataclasses.dataclass(frozen=True)
class RecordedChange:
    """A setting that was changed when a run was resumed."""

    step: int  # the last step with the old value
    key: str
    was: Any
    now: Any

    def __str__(self) -> str:
        return f"from step {self.step + 1} on: {Change(self.key, self.was, self.now)}"


def accepted_changes(
    command: TrainCommand, metadata: Mapping[str, Any], saved: Mapping[str, Any], folder: Path
) -> list[RecordedChange]:
    """The changes of a run's settings so far and those of this command, ascending by step.

    Args:
        command: The resuming command.
        metadata: Metadata of its next checkpoints: `config`, `data_fingerprint`, `environment`.
        saved: Metadata of the checkpoint from which it resumes.
        folder: The run folder, which records the changes already accepted at that step.

    Raises:
        RingRLError: A key differs that may not change, or only with `resume_changes=record`; all are named.
    """
    step, earlier = int(saved["step"]), [RecordedChange(**entry) for entry in saved.get("config_changes", [])]
    found = differences(metadata, saved)
    kept = [change for change in found if is_one_of(change.key, KEPT)]
    if kept:
        raise RingRLError(
            f"{folder} is another run: {list_changes(kept)}. A run keeps its {', '.join(KEPT[:-2])} and data: give "
            "the same, or train in another folder (hydra.run.dir=FOLDER)."
        )
    if command.training.steps < step:
        raise RingRLError(
            f"training.steps={command.training.steps}: the run in {folder} is at step {step} already: give at least "
            f"training.steps={step}, or train in another folder (hydra.run.dir=FOLDER)."
        )
    allowed = {(change.key, repr(change.now)) for change in read_changes(folder) if change.step == step}
    unasked = [
        change
        for change in found
        if (change.key, repr(change.now)) not in allowed and not _is_harmless(change, command.training)
    ]
    if unasked and command.resume_changes is ResumeChanges.refuse:
        raise RingRLError(
            f"{folder} was trained with other settings: {list_changes([*unasked, *rate_change(command, saved)])}. "
            "Give the same, or resume_changes=record to go on with these from here and have it on record, or train in "
            "another folder (hydra.run.dir=FOLDER)."
        )
    return [*earlier, *(RecordedChange(step, change.key, change.was, change.now) for change in found)]


def differences(metadata: Mapping[str, Any], saved: Mapping[str, Any]) -> list[Change]:
    """Differences between the metadata of a checkpoint and of the resuming run, without keys that may change freely."""
    config, environment = add_defaults(saved)["config"], saved.get("environment")
    if environment == metadata["environment"]:  # explicit in one and found in the data in the other
        config = {**config, "env": metadata["config"]["env"]}
    found = changes_between(config, metadata["config"])
    theirs, ours = ({"data_fingerprint": of.get("data_fingerprint")} for of in (saved, metadata))
    found += changes_between(theirs, ours)
    return [change for change in found if not is_one_of(change.key, FREE)]


def is_one_of(key: str, sections: Sequence[str]) -> bool:
    """Whether a dotted key is one of these, or below one of them."""
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def add_defaults(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's metadata, with defaults for keys that its version did not have."""
    return {**metadata, "config": as_plain(build(TrainCommand, metadata["config"]))}


def write_changes(changes: Sequence[RecordedChange], folder: Path) -> None:
    """Write the changes of a run to its folder; without any there is no such file."""
    if changes or (folder / CHANGES_FILE).exists():
        write_atomically(folder / CHANGES_FILE, json.dumps(plain_changes(changes), indent=1) + "\n")


def plain_changes(changes: Sequence[RecordedChange]) -> list[dict[str, Any]]:
    """The changes as JSON."""
    return [dataclasses.asdict(change) for change in changes]


def read_changes(folder: Path) -> list[RecordedChange]:
    """The changes recorded in a run folder."""
    try:
        return [RecordedChange(**entry) for entry in json.loads((folder / CHANGES_FILE).read_text())]
    except (OSError, ValueError, TypeError):
        return []


def _is_harmless(change: Change, training: TrainingConfig) -> bool:
    """Whether the new value gives the same update at every step: a different number of steps with a constant rate."""
    return change.key == "training.steps" and training.optimizer.schedule is Schedule.constant


def rate_change(command: TrainCommand, saved: Mapping[str, Any]) -> list[Change]:
    """The next step's learning rate, if it would have been different; 0 if there was no further step."""
    from ringrl.training.optimizer import learning_rate_schedule  # imports JAX

    step, before = int(saved["step"]), add_defaults(saved)["config"]["training"]
    trained = build(TrainingConfig, before)
    was, now = (f"{float(learning_rate_schedule(training)(step)):.3g}" for training in (trained, command.training))
    ended = " (its schedule has ended)" if step >= trained.steps and was != now else ""
    return [] if was == now else [Change(f"the learning rate of step {step + 1}", f"{was}{ended}", now)]
