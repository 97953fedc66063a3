"""Who may attend to whom, and that a block is skipped only where nobody may."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ringrl.ops.bounds import block_is_masked
from ringrl.ops.masks import Labels, attention_mask

# Sizes and window are few, so that few programs are compiled.
QUERIES, KEYS, CHAINS = 3, 4, 2
jitted_mask, jitted_block = (
    jax.jit(fn, static_argnames=("causal", "window")) for fn in (attention_mask, block_is_masked)
)


def labels(tokens):
    positions, segments = (
        arrays(np.int32, (CHAINS, tokens), elements=st.integers(*limits)) for limits in ((0, 12), (-1, 2))
    )
    return st.builds(Labels, positions, segments)


@settings(max_examples=300, deadline=None)
@given(labels(QUERIES), labels(KEYS), st.booleans(), st.sampled_from([None, 1, 4]))
def test_a_skipped_block_has_no_pair(queries, keys, causal, window):
    if jitted_block(queries, keys, causal=causal, window=window):
        assert not jitted_mask(queries, keys, causal=causal, window=window).any()


def blocks_skipped(size, tokens, segments=None, **options):
    """Which pairs of blocks are skipped, as a picture: one row a block of queries."""
    positions = np.arange(tokens, dtype=np.int32)
    segments = np.zeros(tokens, np.int32) if segments is None else np.int32(segments)
    parts = [slice(start, start + size) for start in range(0, tokens, size)]
    blocks = [Labels(positions[None, part], segments[None, part]) for part in parts]
    return ["".join("-" if jitted_block(row, column, **options) else "x" for column in blocks) for row in blocks]


def test_blocks_skipped_by_causality_window_and_segments():
    assert blocks_skipped(4, 16, causal=True, window=None) == ["x---", "xx--", "xxx-", "xxxx"]
    assert blocks_skipped(4, 16, causal=False, window=None) == ["xxxx"] * 4
    assert blocks_skipped(4, 16, causal=True, window=5) == ["x---", "xx--", "-xx-", "--xx"]
    assert blocks_skipped(4, 16, causal=False, window=2) == ["xx--", "xxx-", "-xxx", "--xx"]
    assert blocks_skipped(4, 16, causal=False, window=1) == ["x---", "-x--", "--x-", "---x"]
    segments = np.repeat([0, 1, 1, -1], 4)
    assert blocks_skipped(4, 16, segments, causal=False, window=None) == ["x---", "-xx-", "-xx-", "----"]
    segments[:2] = segments[8] = -1  # padding within a block does not widen its bounds
    assert blocks_skipped(4, 16, segments, causal=True, window=None) == ["x---", "-x--", "-xx-", "----"]


def test_a_block_is_kept_when_one_chain_needs_it():
    positions = np.array([[0, 1], [0, 1]], np.int32)
    later = positions + 2
    segments = np.array([[0, 0], [-1, -1]], np.int32)
    masked = functools.partial(jitted_block, causal=True, window=None)
    early, late = Labels(positions, segments), Labels(later, segments)
    assert masked(early, late)
    assert not masked(late, early)
    assert not masked(*jax.tree.map(lambda label: label[::-1], (late, early)))


@pytest.mark.parametrize(
    ("causal", "window", "rows"),
    [
        (True, None, ["x...", "xx..", "xxx.", "...."]),
        (True, 2, ["x...", "xx..", ".xx.", "...."]),
        (False, 2, ["xx..", "xxx.", ".xx.", "...."]),
    ],
)
def test_the_mask_by_hand(causal, window, rows):
    tokens = Labels(np.arange(4, dtype=np.int32)[None], np.array([[0, 0, 0, -1]], np.int32))
    mask = jitted_mask(tokens, tokens, causal=causal, window=window)
    assert ["".join(".x"[int(pair)] for pair in row) for row in mask[0]] == rows
