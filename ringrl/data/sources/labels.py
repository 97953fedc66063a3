"""Labels of the task and the policy of an episode in a data set: a number, a name, or a one-hot vector of a number."""

from collections.abc import Sequence
from typing import Any

import numpy as np

LARGEST_TASK = (1 << 31) - 1
Label = int | str


def to_label(value: Any) -> Label | None:
    """Convert a label to an integer or a text; None if `value` has no meaning.

    Integers stay integers and one-hot vectors become one; other numbers and vectors become text.
    """
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if value is None or isinstance(value, str | dict):
        return value if isinstance(value, str) else None
    try:
        values = np.asarray(value)
    except ValueError:  # rows of different lengths
        return None
    if not values.size:
        return None
    if values.size == 1:
        (one,) = values.reshape(-1).tolist()
        if values.dtype.kind in "OSU":
            return None if one is value else to_label(one)
        if values.dtype.kind not in "biuf" or one != one:
            return None
        return int(one) if float(one).is_integer() else f"{one:g}"
    if values.dtype.kind in "biuf":
        ones = np.flatnonzero(values.reshape(-1))
        if len(ones) == 1 and values.reshape(-1)[ones[0]] == 1:
            return int(ones[0])
        return f"[{' '.join(f'{number:g}' for number in values.reshape(-1).tolist())}]"
    return None


def policy_name(value: Any) -> str:
    """The name of the policy in `value`: a text or an integer; "" for anything else, such as the policy's output."""
    label = to_label(value)
    if isinstance(label, int) or isinstance(value, str | bytes):
        return str(label)
    return str(label) if label is not None and np.asarray(value).dtype.kind in "OSU" else ""


def number_tasks(labels: Sequence[Label | None]) -> tuple[list[int], list[str] | None]:
    """A task number for each episode, and the tasks' names if the labels are not the numbers themselves.

    If every label is a number that fits into a store, these are the tasks, 0 for a missing label. Else tasks are
    numbered from 0 in the order of their labels, numbers before texts.
    """
    known = [0 if label is None else label for label in labels]
    if all(isinstance(label, int) and 0 <= label <= LARGEST_TASK for label in known):
        return [int(label) for label in known], None
    named = ["unnamed" if label is None else label for label in labels]
    order = sorted(set(named), key=lambda label: (isinstance(label, str), label))
    numbers = {label: number for number, label in enumerate(order)}
    return [numbers[label] for label in named], [str(label) for label in order]
