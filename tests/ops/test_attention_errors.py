"""What does not fit is refused in one line."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.errors import RingRLError
from ringrl.ops import AttentionConfig, attention, decode_attention

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


@pytest.mark.parametrize("window", [2.5, 3.0, float("nan"), True, "3"])
def test_a_window_is_a_whole_number(window):
    """One of 2.5 was taken for 2: a query at 3 did not see the key at 1."""
    with pytest.raises(RingRLError, match=rf"^attention window={window}: use a whole number of tokens"):
        run(window=window)
    for whole in (np.int64(3), jnp.int32(3)):
        assert run(window=whole).shape == RIGHT[0]


def test_numpy_arrays_in_float64():
    """As JAX takes them, which is in float32 unless told otherwise, without its warning."""
    generator = np.random.default_rng(0)
    arrays = [generator.normal(size=shape) for shape in RIGHT]
    narrow = [array.astype(np.float32) for array in arrays]
    labels = dict.fromkeys(("query_positions", "key_positions"), np.tile(np.arange(6, dtype=np.int32), (2, 1)))
    labels |= dict.fromkeys(("query_segments", "key_segments"), np.zeros((2, 6), np.int32))
    functions = (
        functools.partial(attention, config=AttentionConfig("dense")),
        lambda q, *others: decode_attention(q, *(x.swapaxes(1, 2) for x in others), **labels),
    )
    for function in functions:
        found = function(*arrays)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, function(*narrow))


def test_config():
    with pytest.raises(RingRLError, match=r"^attention\.strategy=rnig is unknown: choose auto, dense, blockwise"):
        AttentionConfig(strategy="rnig")
    with pytest.raises(RingRLError, match=r"must be at least 1"):
        AttentionConfig(key_block_size=0)
    assert AttentionConfig(strategy="blockwise") == AttentionConfig(strategy=AttentionConfig().strategy.blockwise)


@pytest.mark.parametrize("dtype", [np.int32, np.bool_, np.complex64])
def test_arrays_are_floats(dtype):
    """Whole numbers were rounded away in the scores."""
    arrays = [jnp.zeros(shape, dtype) for shape in RIGHT]
    for strategy in ("dense", "blockwise"):
        with pytest.raises(RingRLError, match=rf"^attention query is {np.dtype(dtype)}; expected one of bfloat16"):
            attention(*arrays, config=AttentionConfig(strategy))
    with pytest.raises(RingRLError, match=r"^attention takes arrays of one dtype, not query float32, key bfloat16"):
        attention(jnp.zeros(RIGHT[0]), *(jnp.zeros(RIGHT[1], jnp.bfloat16),) * 2, config=AttentionConfig())
    with pytest.raises(RingRLError, match=r"^attention query is a list; expected an array"):
        attention([[1.0]], *(jnp.zeros(shape) for shape in RIGHT[1:]), config=AttentionConfig())


@pytest.mark.parametrize("name", ["positions", "segment_ids"])
def test_labels_in_lists(name):
    """Lists of whole numbers are taken, by every strategy; what else lists may hold is refused."""
    order = [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]]
    for strategy in ("dense", "blockwise"):
        arrays = [jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32) for shape in RIGHT]
        run_it = functools.partial(attention, *arrays, config=AttentionConfig(strategy))
        np.testing.assert_array_equal(run_it(**{name: order}), run_it(**{name: jnp.asarray(order, jnp.int32)}))
    for wrong in ([[0.5] * 6] * 2, [[0] * 6, [0] * 5], [[2**31] * 6] * 2, [["a"] * 6] * 2):
        with pytest.raises(RingRLError, match=rf"^attention {name}: expected an int32 array .*\.$"):
            run(**{name: wrong})
    with pytest.raises(RingRLError, match=rf"^attention {name} have shape \(6,\); expected \(2, 6\)"):
        run(**{name: [0] * 6})


def decode(shapes=((2, 1, 4, 8), (2, 2, 6, 8), (2, 2, 6, 8)), dtype=jnp.float32, **changes):
    query, key, value = (jnp.zeros(shape, dtype) for shape in shapes)
    labels = {"query_positions": [[5], [5]], "key_positions": [list(range(6))] * 2}
    labels |= {"query_segments": [[0], [0]], "key_segments": [[0] * 6] * 2}
    return decode_attention(query, key, value, **{**labels, **changes})


def test_decoding_is_checked_as_well():
    assert decode().shape == (2, 1, 4, 8)
    with pytest.raises(RingRLError, match=r"^decode_attention query is int32"):
        decode(dtype=jnp.int32)
    with pytest.raises(RingRLError, match=r"^decode_attention shapes do not fit: .*K dividing H\.$"):
        decode(shapes=((2, 1, 4, 8), (2, 3, 6, 8), (2, 3, 6, 8)))
    with pytest.raises(RingRLError, match=r"^decode_attention key_positions have shape \(2, 5\); expected \(2, 6\)"):
        decode(key_positions=[list(range(5))] * 2)
    with pytest.raises(RingRLError, match=r"^decode_attention query_segments are float32; expected int32"):
        decode(query_segments=np.zeros((2, 1), np.float32))
    with pytest.raises(RingRLError, match=r"^decode_attention window=0"):
        decode(window=0)
