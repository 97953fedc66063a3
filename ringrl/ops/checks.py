"""Checks of the arguments of attention: what does not fit raises an error of one line, which says what would fit."""

import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ringrl.errors import RingRLError

FLOATS = ("bfloat16", "float16", "float32", "float64")


def check_arrays(what: str, **arrays: jax.Array) -> None:
    """Raises RingRLError for arrays that are no floats, or not all of one dtype."""
    for name, array in arrays.items():
        if not hasattr(array, "dtype"):
            raise RingRLError(f"{what} {name} is a {type(array).__name__}; expected an array: use jnp.asarray({name}).")
        if str(array.dtype) not in FLOATS:
            raise RingRLError(
                f"{what} {name} is {array.dtype}; expected one of {', '.join(FLOATS)}: use {name}.astype(jnp.float32)."
            )
    if len({str(array.dtype) for array in arrays.values()}) > 1:
        found = ", ".join(f"{name} {array.dtype}" for name, array in arrays.items())
        raise RingRLError(f"{what} takes arrays of one dtype, not {found}: cast them to one.")


def check_operands(query: jax.Array, key: jax.Array, value: jax.Array, dropout_rate: float) -> None:
    """Raises RingRLError where shapes, dtypes or the dropout rate of `attention` do not fit."""
    check_arrays("attention", query=query, key=key, value=value)
    fits = query.ndim == key.ndim == 4 and key.shape == value.shape and _divides(key.shape[2], query.shape[2])
    if not fits or (query.shape[:2], query.shape[3]) != (key.shape[:2], key.shape[3]):
        raise RingRLError(
            f"attention shapes do not fit: query {query.shape}, key {key.shape}, value {value.shape}; "
            "expected (B, S, H, D), (B, S, K, D), (B, S, K, D) with K dividing H."
        )
    if not 0.0 <= dropout_rate < 1.0:
        raise RingRLError(f"attention dropout_rate={dropout_rate} is not in [0, 1).")


def _divides(key_heads: int, heads: int) -> bool:
    return heads % key_heads == 0 if key_heads else heads == 0


def checked_window(what: str, window: int | None) -> int | None:
    """The window as an int.

    Raises RingRLError for one that is no whole number, and for one that holds not even the query's own position.
    """
    if window is None:
        return None
    try:
        whole = operator.index(window)
    except TypeError:
        whole = None
    if whole is None or isinstance(window, bool):
        raise RingRLError(f"{what} window={window}: use a whole number of tokens, or None for no window.")
    if whole < 1:
        raise RingRLError(f"{what} window={window}: use at least 1, or None for no window.")
    return whole


def int32_labels(what: str, name: str, values: Any, shape: tuple[int, ...]) -> Any:
    """Positions or segments as an int32 array of this shape; nested lists of whole numbers are taken too.

    Raises RingRLError for another shape, and for arrays of another dtype, which JAX would narrow without a word.
    """
    if not hasattr(values, "dtype"):
        values = _as_int32(what, name, values)
    if values.shape != shape:
        raise RingRLError(f"{what} {name} have shape {values.shape}; expected {shape}, one a token.")
    if values.dtype != jnp.int32:
        raise RingRLError(f"{what} {name} are {values.dtype}; expected int32: use {name}.astype(jnp.int32).")
    return values


def _as_int32(what: str, name: str, values: Sequence) -> np.ndarray:
    expected = f"{what} {name}: expected an int32 array of one number a token, or as many whole numbers in lists"
    try:
        array = np.asarray(values)
    except ValueError:  # rows of different lengths
        raise RingRLError(f"{expected}; the lists are of different lengths.") from None
    if array.size and array.dtype.kind != "i":
        raise RingRLError(f"{expected}; not {type(values).__name__} of {array.dtype}.")
    limits = np.iinfo(np.int32)
    if array.size and not (limits.min <= array.min() and array.max() <= limits.max):
        raise RingRLError(f"{expected}; not beyond 32 bits.")
    return array.astype(np.int32)
