"""Dense attention against loops that anyone can check."""

import jax
import numpy as np

from ringrl.ops.dropout import dropout_multiplier, dropout_seed


def attention_in_loops(case, query, key, value):
    """softmax(q k / sqrt(D)) v, one query at a time, over the keys that the rule allows."""
    chains, tokens, heads, head_size = query.shape
    every_position = np.broadcast_to(np.arange(tokens), (chains, tokens))
    seed = dropout_seed(jax.random.key(7))
    keep = np.asarray(
        dropout_multiplier(seed, case.dropout, np.arange(chains), np.arange(heads), every_position, every_position)
    )
    output = np.zeros(query.shape)
    for chain in range(chains):
        for token in range(tokens):
            others = [other for other in range(tokens) if case.allowed(chain, token, other)]
            if not others:
                continue
            at = case.positions[chain]
            for head in range(heads):
                key_head = head * key.shape[2] // heads
                scores = np.array([query[chain, token, head] @ key[chain, other, key_head] for other in others])
                weights = np.exp(scores / np.sqrt(head_size))
                weights /= weights.sum()
                weights *= keep[chain, head, at[token], at[others]]
                output[chain, token, head] = weights @ value[chain, others, key_head]
    return output


def test_dense_attention_equals_loops(case):
    with jax.enable_x64(True):
        arrays = case.arrays()
        computed = jax.jit(lambda *arrays: case.attend("dense", *arrays))(*arrays)
        expected = attention_in_loops(case, *map(np.asarray, arrays))
        assert computed.dtype == np.float64
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(computed, expected, atol=1e-12, rtol=0)


def test_cases_hold_rows_that_attend_to_nothing_and_rows_that_attend_to_all(make_case):
    """The comparison above says something about both."""
    padded = make_case(True, None, "padded", 4, True, 0.0, (4, 4))
    full = make_case(False, None, "one", 4, True, 0.0, (4, 4))

    def row(case, chain, token):
        return [case.allowed(chain, token, other) for other in range(13)]

    assert not any(row(padded, 2, 5))
    assert all(row(full, 0, 5))
