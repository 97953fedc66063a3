"""One run on changing numbers of devices, through the command line: on 8, 4, 1 and again 8."""

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

pytestmark = pytest.mark.scale

SMALL = (
    "experiment=quickstart_smoke",
    "model.layers=1",
    "model.attention_dropout=0.1",
    "attention=ring",
    "attention.query_block_size=32",
    "attention.key_block_size=32",
    "training.optimizer.schedule=constant",
    "training.log_every=1",
    "evaluation.trials=1",
)


def losses(folder: Path) -> dict[int, float]:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {event.step: event.value for event in events.Scalars("train/loss")}


def test_devices_come_and_go(ringrl, tmp_path: Path) -> None:
    assert ringrl("collect", "collection=quickstart_smoke").code == 0
    wide, square, one = ("mesh.ring=8",), ("mesh.fsdp=2", "mesh.ring=2"), ("mesh.ring=1",)
    whole = ringrl("train", *SMALL, *wide, "training.steps=8", "hydra.run.dir=whole", "attention.layout=zigzag")
    assert whole.code == 0, whole.err
    first = ringrl("train", *SMALL, *wide, "training.steps=2", "hydra.run.dir=run", "attention.layout=zigzag")
    assert first.code == 0, first.err
    for steps, mesh, layout in ((4, square, "striped"), (6, ("mesh.fsdp=1", *one), "contiguous"), (8, wide, "zigzag")):
        words = (f"training.steps={steps}", f"attention.layout={layout}", "resume=run")
        again = ringrl("train", *mesh, *words)
        assert again.code == 0, again.err
    expected, found = losses(tmp_path / "whole"), losses(tmp_path / "run")
    assert list(found) == list(expected) == list(range(1, 9))
    for step, loss in expected.items():
        assert found[step] == pytest.approx(loss, rel=1e-5)

    # What eight devices have written, one evaluates, and all of them together do so alike.
    returns = []
    for name, words in (("one", ()), ("all", ("evaluation.sharded=true", "mesh.ring=-1"))):
        done = ringrl("eval", "checkpoint=run", f"hydra.run.dir={name}", "evaluation.trials=2", *words)
        assert done.code == 0, done.err
        returns.append(json.loads((tmp_path / name / "summary.json").read_text())["trial_returns"])
    assert returns[0] == returns[1]
