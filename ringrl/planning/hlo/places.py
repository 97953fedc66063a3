"""Descriptions of program locations in RingRL's terms, from JAX's names (`op_name`)."""

import re

_RECOMPUTED = "rematted_computation"
_NOISE = re.compile(
    r"^jit\(train_step\)/|\b(?:shard_map|while|body|closed_call|checkpoint|rematted_computation|custom_vjp_call)/"
    r"|cond/branch_\d+_fun/|\b(?:transpose\()?jvp\(\)\)?/"
)

_PUT_PIECE = re.compile(r"attention/while/body/closed_call/jit\(dynamic_update_index_in_dim\)/dynamic_update_slice$")
_STACKED = re.compile(r"jvp\(\)\)?/while/body/(?:jit\(dynamic_update_index_in_dim\)/)?dynamic_update_slice$")
_READ_BACK = re.compile(r"jit\(dynamic_index_in_dim\)/\w+$")
OF_RING = "ring: "
GOING_HOME = f"{OF_RING}gradients home"
KEPT = "kept of every layer for the backward pass"
GATHERED = "parameters gathered for a layer"
_SIGNS = (  # in this order
    ("/home/", "gradients of keys and values on their way home"),
    ("/gradients/hop/", "gradients of keys and values on the ring"),
    ("/hop/", "keys and values on the ring"),
    ("bkrd,bktd->bkrt", "scores of a pair of attention blocks"),
    ("/optimizer/", "the optimizer's update"),
    ("jvp(loss)", "loss"),
    ("jit(_take)", "embedding of time steps"),
    ("jvp()/concatenate", "rotary angles"),
    ("reduce_scatter", "gradients of a layer's parameters"),
    ("all_gather", GATHERED),
)


def describe_transfer(kind: str, place: str, loop: str, float_arrays: int) -> str:
    """Describe the data of a collective of this kind and origin: `float_arrays` arrays, besides labels.

    `loop` is the origin of its loop, in which compilers may share computations of several passes.
    """
    which = direction(place if not loop or "transpose(" in loop else loop)
    if "/home/" in place:
        return GOING_HOME
    if "/hop/" in place:
        if "/gradients/" in place and float_arrays <= 2:
            return f"{OF_RING}gradients, {which}"
        if which == "backward" and float_arrays > 2:
            return f"{OF_RING}keys, values and their gradients, {which}"
        return f"{OF_RING}keys and values, {which}"
    if kind == "all-to-all":
        return f"heads exchanged, {which}"
    owner = "a layer" if in_a_layer(place) else "embedding and output"
    if "all_gather" in place and "attention" in place:
        return f"labels of all heads' tokens, {which}"
    if "all_gather" in place:
        return f"parameters of {owner}, {which}"
    if "reduce_scatter" in place or (kind == "all-reduce" and not place and "transpose(" in loop):
        owner = "a layer" if loop else owner  # a reduce-scatter that became an all-reduce has lost its name
        return f"gradients of parameters of {owner}"
    if place.endswith(("optimizer", "reduce_sum")) or "/optimizer/" in place:
        return "norms"
    if kind == "all-reduce":  # compilers merge these, and keep the name of one, or none
        return "means, norms and gradients of small parameters"
    return shorten_origin(place)


def describe_array(place: str, shape: str) -> str:
    """Describe an array of this shape and origin: `f32[2,8192]`."""
    which, rank = direction(place), shape.count(",") + 1
    for sign, words in _SIGNS:
        if sign in place:
            return words
    if "/attention/" in place:
        return "gradients of keys and values" if _PUT_PIECE.search(place) else f"attention, {which}"
    if _STACKED.search(place):
        return "gradients of parameters" if which == "backward" else KEPT
    if which == "forward again" and rank == 2 and place.endswith("convert_element_type"):
        return GATHERED
    if which == "backward" and rank == 2 and in_a_layer(place):
        return "gradients of a layer's parameters"
    if "/feedforward/" in place:
        return f"feed-forward, {which}"
    if in_a_layer(place) and place.endswith("dot_general"):
        return f"queries, keys, values and their like, {which}"
    if in_a_layer(place) and place.endswith("add_any"):
        return "gradients of a layer's input"
    if in_a_layer(place) and _READ_BACK.search(place):
        return "a layer's input"
    if in_a_layer(place):
        return f"a layer's activations, {which}"
    return shorten_origin(place)


def direction(place: str) -> str:
    """The pass (forward or backward) that an origin belongs to."""
    if _RECOMPUTED in place:
        return "forward again"
    return "backward" if "transpose(" in place else "forward"


def in_a_layer(place: str) -> bool:
    """Whether an origin is in the scan over layers, unrolled or not."""
    return re.search(r"jvp\(\)\)?/(?:while/body|closed_call|checkpoint)", place) is not None


def shorten_origin(place: str) -> str:
    """The origin without parts that are meaningless to a reader of the model's code."""
    previous = None
    while previous != place:
        previous, place = place, _NOISE.sub("", place)
    return place or "the program"
