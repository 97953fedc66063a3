"""Dense attention against loops that anyone can check."""

import jax
import numpy as np

from ringrl.ops.dropout import DropoutKeys, dropout_multiplier, dropout_seed


def dropout_by_position(case):
    """(B, H, S, S): what a weight is multiplied by, given the positions of its query and key."""
    chains, tokens, heads = 3, 13, 4
    positions = np.broadcast_to(np.arange(tokens), (chains, tokens))
    keys = DropoutKeys(dropout_seed(jax.random.key(7)), np.arange(chains), np.arange(heads))
    return np.asarray(dropout_multiplier(keys, case.dropout, positions, positions))


def attention_in_loops(case, labels, keep, query, key, value):
    """softmax(q k / sqrt(D)) v, one query at a time, over the keys that the rule allows."""
    chains, tokens, heads, head_size = query.shape
    output = np.zeros(query.shape)
    for chain in range(chains):
        at = labels.positions[chain]
        for token in range(tokens):
            others = [other for other in range(tokens) if case.allowed(labels, chain, token, other)]
            if not others:
                continue
            for head in range(heads):
                key_head = head * key.shape[2] // heads
                scores = np.array([query[chain, token, head] @ key[chain, other, key_head] for other in others])
                weights = np.exp(scores / np.sqrt(head_size))
                weights /= weights.sum()
                weights *= keep[chain, head, at[token], at[others]]
                output[chain, token, head] = weights @ value[chain, others, key_head]
    return output


def test_dense_attention_equals_loops(case, all_labels):
    keep = dropout_by_position(case)
    for name, labels in all_labels.items():
        with jax.enable_x64(True):
            computed = case.gradients("dense", labels, np.float64)[0]
            query, key, value = map(np.asarray, case.arrays())
        expected = attention_in_loops(case, labels, keep, query, key, value)
        assert computed.dtype == np.float64
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(computed, expected, atol=1e-12, rtol=0, err_msg=name)


def test_cases_hold_rows_that_attend_to_nothing_and_rows_that_attend_to_all(causal_case, labels):
    """The comparison above says something about both."""

    def row(labels, chain, token):
        return [causal_case.allowed(labels, chain, token, other) for other in range(13)]

    assert not any(row(labels("padded"), 2, 5))
    assert all(row(labels("one", permuted=False), 0, 12))
