"""Runs of twenty steps, and a logger that stores its input."""

from ringrl.training.config import OptimizerConfig, TrainingConfig
from ringrl.training.loop import train

OPTIMIZER = OptimizerConfig(learning_rate=1e-2, warmup_steps=5)
TRAINING = TrainingConfig(
    steps=20, batch_size=8, gradient_accumulation=2, log_every=5, save_every=10, optimizer=OPTIMIZER
)


class Recording:
    """A logger that stores its input."""

    def __init__(self):
        self.seen = []
        self.histogram_steps = []

    def scalars(self, values, step):
        self.seen.append((step, dict(values)))

    def histograms(self, tree, step, prefix=""):
        self.histogram_steps.append((step, prefix))

    def flush(self):
        pass


def run(agent, state, batches, training=TRAINING, **options):
    return train(agent, state, batches, training, progress=False, **options)
