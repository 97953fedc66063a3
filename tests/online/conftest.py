"""A small learner shared by the tests of this package, so that its update is compiled once."""

from collections.abc import Iterator

import jax
import pytest

from ringrl.online import SacConfig


@pytest.fixture(autouse=True)
def quick_compiles() -> Iterator[None]:
    """Disables optimizations for programs that run for milliseconds."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def config() -> SacConfig:
    """For observations (2,) and actions (1,)."""
    return SacConfig(
        width=16,
        layers=1,
        batch_size=32,
        updates_per_call=2,
        updates_per_step=0.5,
        learning_rate=1e-2,
        target_rate=0.05,
        discount=0.9,
        random_steps=200,
    )
