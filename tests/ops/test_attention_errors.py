"""What does not fit is refused in one line."""

import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.errors import RingRLError
from ringrl.ops import AttentionConfig, attention

RIGHT = ((2, 6, 4, 8), (2, 6, 2, 8), (2, 6, 2, 8))


def run(shapes=RIGHT, **options):
    return attention(*(jnp.zeros(shape) for shape in shapes), config=AttentionConfig(), **options)


@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 6, 4, 8), (2, 6, 3, 8), (2, 6, 3, 8)),
        ((2, 6, 4, 8), (2, 6, 2, 8), (2, 6, 4, 8)),
        ((2, 6, 4, 8), (2, 5, 2, 8), (2, 5, 2, 8)),
        ((2, 6, 4, 8), (1, 6, 2, 8), (1, 6, 2, 8)),
        ((2, 6, 4, 8), (2, 6, 2, 4), (2, 6, 2, 4)),
        ((6, 4, 8), (6, 2, 8), (6, 2, 8)),
        ((2, 6, 4, 8), (6, 2, 8), (6, 2, 8)),
    ],
)
def test_shapes(shapes):
    with pytest.raises(RingRLError, match=r"^attention shapes do not fit: query .*K dividing H\.$"):
        run(shapes)


@pytest.mark.parametrize("name", ["positions", "segment_ids"])
@pytest.mark.parametrize("shape", [(2, 5), (1, 6), (6,)])
def test_labels(name, shape):
    with pytest.raises(RingRLError, match=rf"^attention {name} .*expected \(2, 6\)"):
        run(**{name: jnp.zeros(shape, jnp.int32)})


@pytest.mark.parametrize("name", ["positions", "segment_ids"])
@pytest.mark.parametrize("dtype", [np.float32, np.bool_, np.int64, np.int16, np.uint32])
def test_labels_are_int32(name, dtype):
    """Also those of numpy, which JAX would narrow without a word."""
    message = rf"^attention {name} are {np.dtype(dtype)}; expected int32: use {name}\.astype\(jnp\.int32\)\.$"
    with pytest.raises(RingRLError, match=message):
        run(**{name: np.zeros((2, 6), dtype)})
    assert run(**{name: np.zeros((2, 6), np.int32)}).shape == RIGHT[0]


def test_window_and_dropout():
    with pytest.raises(RingRLError, match=r"^attention window=0: use at least 1"):
        run(window=0)
    for rate in (1.0, -0.1):
        with pytest.raises(RingRLError, match=rf"^attention dropout_rate={rate} is not in"):
            run(dropout_rate=rate)
    assert run(window=1).shape == RIGHT[0]


def test_config():
    with pytest.raises(RingRLError, match=r"^attention\.strategy=rnig is unknown: choose dense, blockwise"):
        AttentionConfig(strategy="rnig")
    with pytest.raises(RingRLError, match=r"must be at least 1"):
        AttentionConfig(key_block_size=0)
    assert AttentionConfig(strategy="blockwise") == AttentionConfig(strategy=AttentionConfig().strategy.blockwise)
