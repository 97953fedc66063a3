"""Kinds of masks: a kind that holds is the mask, and every layout of full or end-padded chains needs no other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.ops import Layout, dealing_order
from ringrl.ops.kernels.kinds import Kind, first_that_holds, kinds_that_hold
from ringrl.ops.masks import Labels, attention_mask
from ringrl.ops.operands import LocalOptions

OPTIONS = LocalOptions(causal=True, window=None, dropout_rate=0.0, query_block_size=4, key_block_size=4)
DEVICES, STEPS = 4, 48
EXPECTED = {  # by layout: keys of an earlier device, the device's own, and of a later one
    Layout.contiguous: (Kind.full, Kind.causal, Kind.masked),
    Layout.striped: (Kind.causal, Kind.causal, Kind.strict),
    Layout.zigzag: (Kind.early_keys, Kind.causal, Kind.late_queries),
}


def mask_of(kind: Kind, queries: int, keys: int) -> np.ndarray:
    """The definition, said with indices."""
    row, column = np.arange(queries)[:, None], np.arange(keys)[None, :]
    return {
        Kind.masked: row < 0 * column,
        Kind.early_keys: row * 0 + column < keys // 2,
        Kind.late_queries: row + 0 * column >= queries // 2,
        Kind.strict: column < row,
        Kind.causal: column <= row,
        Kind.full: row + column >= 0,
    }[kind]


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.vmap, in_axes=(None, 0, 0, 0, 0))
def held(options: LocalOptions, query_positions, query_segments, key_positions, key_segments):
    """For many pairs of blocks: whether each kind holds, the first that does, and the mask."""
    labels = Labels(query_positions, query_segments), Labels(key_positions, key_segments)
    holds = kinds_that_hold(options, *labels)
    mask = attention_mask(*labels, causal=options.causal, window=options.window)
    return {kind.name: value for kind, value in holds.items()}, first_that_holds(holds), mask


def random_labels(pairs: int, chains: int, tokens: int, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Positions and segments of both blocks: evenly spaced or shuffled, of one segment or of several, padded or not."""
    sizes = (pairs, chains, 1)

    def positions() -> np.ndarray:
        evenly = generator.integers(0, 12, sizes) + generator.integers(1, 4, (pairs, 1, 1)) * np.arange(tokens)
        shuffled = generator.permuted(evenly, axis=2)
        return np.where(generator.random(sizes) < 0.1, shuffled, evenly)

    def segments(positions: np.ndarray) -> np.ndarray:
        found = np.where(generator.random(sizes) < 0.2, positions // 8, generator.integers(0, 1.05 * np.ones(sizes)))
        found = np.where(positions >= generator.integers(6, 40, sizes), -1, found)
        return np.where(generator.random(found.shape) < 0.01, -1, found)

    queries, keys = positions(), positions()
    same = generator.random(sizes) < 0.3
    keys = np.where(same, queries, keys)
    query_segments, key_segments = segments(queries), segments(keys)
    key_segments = np.where(same, query_segments, key_segments)
    return tuple(np.asarray(label, np.int32) for label in (queries, query_segments, keys, key_segments))


@pytest.mark.parametrize(("causal", "window"), [(True, None), (False, None), (True, 9), (False, 9)])
@pytest.mark.parametrize("tokens", [6, 3])
def test_a_kind_that_holds_is_the_mask(causal: bool, window: int | None, tokens: int) -> None:
    options = OPTIONS._replace(causal=causal, window=window)
    labels = random_labels(20_000, 2, tokens, np.random.default_rng(0))
    holds, _, mask = jax.tree.map(np.asarray, held(options, *labels))
    counted = labels[1][..., None] >= 0  # rows of padding may be anything
    for name, held_by in holds.items():
        if name == "mixed":
            assert held_by.all()
            continue
        expected = mask_of(Kind[name], tokens, tokens)
        differs = ((mask != expected) & counted).any(axis=(1, 2, 3))
        assert not (held_by & differs).any(), name
        assert held_by.sum() > 20, f"{name}: too few to tell"
        assert (~held_by).sum() > 20
    halved = {"early_keys", "late_queries"} if tokens % 2 == 0 else set()
    triangles = {"causal", "strict"} if causal else set()
    assert set(holds) == {"masked", "full", "mixed"} | halved | triangles


def dealt(layout: Layout, lengths: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Positions and segments (chains, devices, tokens) of chains that are padded at their end."""
    order = dealing_order(layout, STEPS, DEVICES)
    positions = np.broadcast_to(order, (len(lengths), len(order))).astype(np.int32)
    segments = np.where(positions < np.asarray(lengths)[:, None], 0, -1).astype(np.int32)
    return tuple(label.reshape(len(lengths), DEVICES, -1) for label in (positions, segments))


def kinds_between(layout: Layout, lengths: tuple[int, ...], options: LocalOptions = OPTIONS) -> dict:
    """The kind for each pair of devices: whose queries, whose keys."""
    positions, segments = dealt(layout, lengths)
    queries, keys = map(np.ravel, np.indices((DEVICES, DEVICES)))
    labels = (np.moveaxis(label[:, devices], 1, 0) for devices in (queries, keys) for label in (positions, segments))
    holds, first, _ = held(options, *map(jnp.asarray, labels))
    names = [kind for kind in Kind if kind.name in holds]
    return {pair: names[index] for pair, index in zip(zip(queries, keys, strict=True), first, strict=True)}


@pytest.mark.parametrize("layout", Layout)
def test_full_chains_need_the_fast_kinds_alone(layout: Layout) -> None:
    found = kinds_between(layout, (STEPS, STEPS))
    earlier, own, later = EXPECTED[layout]
    for (query_device, key_device), kind in found.items():
        expected = own if query_device == key_device else earlier if key_device < query_device else later
        assert kind is expected, (query_device, key_device)


@pytest.mark.parametrize("layout", Layout)
def test_chains_padded_at_their_end_need_no_other(layout: Layout) -> None:
    for length in range(1, STEPS + 1):
        found = kinds_between(layout, (length, STEPS, max(1, length // 2)))
        assert Kind.mixed not in found.values(), length
    assert set(kinds_between(layout, (0,)).values()) == {Kind.masked}


@pytest.mark.parametrize("layout", Layout)
def test_what_cuts_through_a_block_is_mixed(layout: Layout) -> None:
    assert Kind.mixed in kinds_between(layout, (STEPS,), OPTIONS._replace(window=3)).values()
    assert Kind.mixed not in kinds_between(layout, (STEPS,), OPTIONS._replace(window=STEPS)).values()
    assert set(kinds_between(layout, (STEPS,), OPTIONS._replace(causal=False)).values()) == {Kind.full}
    assert Kind.mixed in kinds_between(layout, (STEPS - 1,), OPTIONS._replace(causal=False)).values()
