"""What JAX does not publish: it is there, and the programs made of it are those that cuDNN and TPUs expect."""

import collections
import functools
import inspect
import re

import jax
import jax.numpy as jnp
import pytest

from ringrl.errors import RingRLError
from ringrl.ops import Kernel
from ringrl.ops.dropout import DropoutKeys
from ringrl.ops.kernels import KERNELS, Logsumexp, Rows, cudnn, private
from ringrl.ops.kernels.fused import FusedRows
from ringrl.ops.masks import Labels
from ringrl.ops.operands import KeyBlock, LocalOptions, QueryBlock

CHAINS, TOKENS, HEADS, KEY_HEADS, HEAD_SIZE = 1, 512, 4, 2, 64


@pytest.fixture(autouse=True)
def forgotten():
    """What was found missing is not remembered from test to test."""
    private.missing.cache_clear()
    yield
    private.missing.cache_clear()


@pytest.mark.parametrize("kernel", [Kernel.cudnn, Kernel.pallas])
def test_this_jax_has_it_all(kernel: Kernel) -> None:
    assert private.missing(kernel) is None


@pytest.mark.parametrize("kernel", [Kernel.cudnn, Kernel.pallas])
def test_a_jax_that_lacks_some_is_refused(monkeypatch: pytest.MonkeyPatch, kernel: Kernel) -> None:
    parts = {Kernel.cudnn: private.cudnn_parts, Kernel.pallas: private.splash_parts}[kernel]
    (module, name, parameters), *_ = private.NAMES[kernel]
    for entry, reason in (
        ((module, "gone", ""), f"has no {module}.gone"),
        ((f"{module}.gone", name, ""), f"has no {module}.gone.{name}"),
        ((module, name, f"{parameters} gone"), f"'s {module}.{name} has no parameter gone"),
        ((module, name, parameters.split()[-1]), f"'s {module}.{name} needs a parameter {parameters.split()[0]}"),
    ):
        private.missing.cache_clear()
        monkeypatch.setitem(private.NAMES, kernel, (entry,))
        with pytest.raises(RingRLError) as caught:
            parts()
        assert str(caught.value) == (
            f"attention.kernel={kernel}: JAX {jax.__version__}"
            f"{reason if reason.startswith(chr(39)) else f' {reason}'}; use attention.kernel=xla."
        )
    private.missing.cache_clear()
    monkeypatch.setattr(jax, "__version_info__", (0, 10, 1))
    assert "older than 0.10.2" in str(private.missing(kernel))


BEFORE_0_12, FROM_0_12 = (words.split() for words in private.NAMES[Kernel.cudnn][1][2].split("|"))


@pytest.mark.parametrize("names", [BEFORE_0_12, FROM_0_12], ids=["before_0_12", "from_0_12"])
def test_the_backward_rule_is_given_what_it_takes_apart(monkeypatch: pytest.MonkeyPatch, names: list[str]) -> None:
    """Of both signatures: all of the parameters, and residuals in the order in which that JAX unpacks them."""
    taken = {}

    def rule(**arguments) -> tuple:
        taken.update(arguments)
        return ("query", "key", "value", *[None] * 8)

    keywords = inspect.Parameter.KEYWORD_ONLY
    rule.__signature__ = inspect.Signature([inspect.Parameter(name, keywords) for name in names])
    module, name, _ = private.NAMES[Kernel.cudnn][1]
    monkeypatch.setattr(f"{module}.{name}", rule)
    monkeypatch.setattr(f"{module}.check_cudnn_version", lambda: 91000)
    assert private.missing(Kernel.cudnn) is None
    query, output, output_gradient = (jnp.full((1, 4, 2, 8), value, jnp.bfloat16) for value in (1, 2, 3))
    rows = FusedRows(jnp.full((1, 4, 2), 0.3), jnp.zeros((1, 4, 2)), output_gradient, output)
    assert cudnn.backward(query, query, query, rows, causal=True) == ("query", "key", "value")

    assert list(taken) == names
    assert taken["mask_type"] is private.cudnn_parts().masks.CAUSAL
    *arrays, logsumexp, given_output = taken["res"]
    # query, key, value; bias, two lengths, two offsets, two page tables; arguments of a function of the scores
    assert [getattr(array, "size", array) for array in arrays] == [64] * 3 + [0] * 7 + [()] * ("score_mod" in names)
    assert (logsumexp.shape, logsumexp.dtype) == ((1, 2, 4), jnp.float32)
    assert given_output is output
    assert taken["grad_output"] is output_gradient


def programs(kernel: Kernel, platform: str) -> list[str]:
    """StableHLO of a forward and a backward part, lowered for a platform that is not here."""
    options = LocalOptions(True, None, 0.0, 128, 128, kernel)

    def array(heads: int, dtype=jnp.bfloat16) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((CHAINS, TOKENS, heads, HEAD_SIZE), dtype)

    def integers(*shape: int, dtype=jnp.int32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype)

    labels = Labels(integers(CHAINS, TOKENS), integers(CHAINS, TOKENS))
    dropout = DropoutKeys(integers(2, dtype=jnp.uint32), integers(CHAINS), integers(HEADS))
    keys = KeyBlock(array(KEY_HEADS), array(KEY_HEADS), labels)
    arguments = (QueryBlock(array(HEADS), labels), keys, dropout)
    row = jax.ShapeDtypeStruct((CHAINS, TOKENS, HEADS), jnp.float32)
    rows = Rows(Logsumexp(row, row), row, array(HEADS), array(HEADS, jnp.float32))
    calls = (KERNELS[kernel].forward, arguments), (KERNELS[kernel].backward, (*arguments, rows))
    traced = [jax.jit(functools.partial(call, options)).trace(*given) for call, given in calls]
    return [program.lower(lowering_platforms=(platform,)).as_text() for program in traced]


def shape(tokens: int, heads: int) -> str:
    return f"tensor<{CHAINS}x{tokens}x{heads}x{HEAD_SIZE}xbf16>"


def test_cudnn_is_called_with_its_masks_and_the_logsumexp_of_whole_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    fused, *_ = private.NAMES[Kernel.cudnn][0]
    monkeypatch.setattr(f"{fused}.check_cudnn_version", lambda: 91000)
    half = TOKENS // 2
    sizes = [(TOKENS, half), (half, TOKENS), (TOKENS, TOKENS), (TOKENS, TOKENS), (TOKENS, TOKENS)]  # as kinds go
    masks = ["NO_MASK", "NO_MASK", "CAUSAL", "CAUSAL", "NO_MASK"]
    for text, name in zip(programs(Kernel.cudnn, "cuda"), ("fmhaSoftmax", "fmhaSoftmaxBackward"), strict=True):
        calls = [line for line in text.splitlines() if "__cudnn$" in line]
        assert [re.findall(r"@__cudnn\$(\w+)", line) for line in calls] == [[name]] * 5
        assert [re.findall(r"mask_type\W+22\W+22(\w+)\\22", line) for line in calls] == [[mask] for mask in masks]
        for line, (queries, keys) in zip(calls, sizes, strict=True):
            assert re.search(r"fmha_scale\W+22\W+0\.125\D", line), line
            operands = [shape(queries, HEADS), shape(keys, KEY_HEADS), shape(keys, KEY_HEADS)]
            if "Backward" in name:
                logsumexp = f"tensor<{CHAINS}x{HEADS}x{queries}xf32>"
                operands += [logsumexp, shape(queries, HEADS), shape(queries, HEADS)]
            assert f": ({', '.join(operands)}) -> (" in line


def test_splash_attention_is_called_forward_and_backward() -> None:
    forward, backward = programs(Kernel.pallas, "tpu")
    calls = {"dq_no_residuals": 5, "dkv_no_residuals": 5}  # one for each kind
    for text, expected in ((forward, {"fwd_residuals": 4}), (backward, calls)):  # forward, both triangles are one
        names = re.findall(r'kernel_name = "splash_mha_(\w+)"', text)
        assert text.count("@tpu_custom_call") == len(names)
        assert collections.Counter(names) == expected
