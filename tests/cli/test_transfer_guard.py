"""With JAX_TRANSFER_GUARD=disallow all transfers in training and acting are explicit."""

from pathlib import Path

import jax
import pytest

COLLECT = (
    *("collect", "collection=dark_room", "dataset=ringrl/guarded-v0", "env.kwargs.size=4", "env.kwargs.max_steps=6"),
    *("episodes_per_task=2", "num_environments=8", "reference_episodes=8"),
)
TRAIN = (
    *("train", "experiment=dark_room", "data.name=ringrl/guarded-v0", "chain.trajectories=2", "training.batch_size=2"),
    *("training.steps=2", "training.log_every=1", "evaluation.trials=2", "evaluation.environments=2"),
    *("evaluation.bootstrap_samples=40", "model.layers=1", "model.width=16", "model.heads=2", "attention=auto"),
)


@pytest.mark.scale
def test_train_and_eval(ringrl, tmp_path: Path) -> None:
    assert ringrl(*COLLECT).code == 0
    with jax.transfer_guard("disallow"):
        outcome = ringrl(*TRAIN, "hydra.run.dir=trained")
        assert outcome.code == 0, outcome.err
        outcome = ringrl("eval", "checkpoint=trained", "evaluation.trials=2", "evaluation.environments=2")
        assert outcome.code == 0, outcome.err
    log = (tmp_path / "trained" / "train.log").read_text()
    assert "attention.strategy=auto: dense, because chains of" in log or "attention.strategy=auto: blockwise" in log
