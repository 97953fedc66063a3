"""Which kernel serves: by device, dtype, head size and features; and what is said where it does not."""

import logging
import types

import jax
import jax.numpy as jnp
import pytest

from ringrl.errors import RingRLError
from ringrl.ops import AttentionConfig, Kernel, attention
from ringrl.ops.kernels import choose_kernel, computing_device, private
from ringrl.ops.notes import forget_notes
from ringrl.ops.operands import LocalOptions

CPU = types.SimpleNamespace(platform="cpu")
TPU, OLD_TPU = (types.SimpleNamespace(platform="tpu", device_kind=kind) for kind in ("TPU v4", "TPU v3"))
AMD = types.SimpleNamespace(platform="gpu", compute_capability="gfx942")
V100, A100, H100, B200 = (
    types.SimpleNamespace(platform="gpu", compute_capability=version) for version in ("7.0", "8.0", "9.0", "10.0")
)
BFLOAT16 = jnp.bfloat16


@pytest.fixture(autouse=True)
def cudnn_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "cudnn_is_loaded", lambda: True)
    forget_notes()


def choose(kernel: str, device, dtype=BFLOAT16, head_size: int = 64, tokens: int = 512, **options) -> Kernel:
    local = LocalOptions(True, None, 0.0, 512, 512, Kernel(kernel))._replace(**options)
    return choose_kernel(local, device, jax.ShapeDtypeStruct((1, tokens, 4, head_size), dtype), tokens)


@pytest.mark.parametrize(
    ("expected", "device", "arguments"),
    [
        ("xla", CPU, {}),
        ("cudnn", A100, {}),
        ("cudnn", H100, {"dtype": jnp.float16, "head_size": 256, "tokens": 77}),
        ("xla", A100, {"head_size": 256}),
        ("xla", B200, {"head_size": 256}),
        ("cudnn", B200, {"head_size": 128}),
        ("xla", A100, {"head_size": 60}),
        ("xla", A100, {"dtype": jnp.float32}),
        ("xla", A100, {"dropout_rate": 0.1}),
        ("xla", A100, {"window": 100}),
        ("xla", V100, {}),
        ("xla", AMD, {}),
        ("pallas", TPU, {}),
        ("pallas", TPU, {"dtype": jnp.float32, "causal": False}),
        ("xla", TPU, {"dtype": jnp.float16}),
        ("xla", TPU, {"tokens": 384}),
        ("xla", OLD_TPU, {}),
        ("xla", TPU, {"dropout_rate": 0.1}),
    ],
)
def test_auto_takes_the_fastest_that_serves(expected: str, device, arguments: dict) -> None:
    assert choose("auto", device, **arguments) == expected


@pytest.mark.parametrize(
    ("kernel", "device", "arguments", "reason"),
    [
        ("cudnn", CPU, {}, "needs an NVIDIA GPU and the device is a cpu"),
        ("cudnn", AMD, {}, "needs an NVIDIA GPU"),
        ("cudnn", V100, {}, "compute capability 8.0 .* has 7.0"),
        ("cudnn", A100, {"dtype": jnp.float32}, "bfloat16 or float16, not float32"),
        ("cudnn", A100, {"head_size": 132}, "multiple of 8, up to 128 here, and it is 132"),
        ("cudnn", A100, {"dropout_rate": 0.5}, "no dropout"),
        ("pallas", A100, {}, "needs a TPU and the device is a gpu"),
        ("pallas", OLD_TPU, {}, "needs a TPU v4 or later and the device is a TPU v3"),
        ("pallas", TPU, {"tokens": 640}, "multiple of 256 tokens on each device, and there are 640"),
    ],
)
def test_what_cannot_serve_is_refused_when_asked_for(kernel: str, device, arguments: dict, reason: str) -> None:
    with pytest.raises(RingRLError, match=f"^attention.kernel={kernel}: .*{reason}.*; use attention.kernel=xla"):
        choose(kernel, device, **arguments)


def test_cudnn_serves_a_window_when_asked_for() -> None:
    assert choose("cudnn", A100, window=100) == "cudnn"


def test_cudnn_must_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "cudnn_is_loaded", lambda: False)
    assert choose("auto", A100) == "xla"
    with pytest.raises(RingRLError, match="cuDNN is not installed"):
        choose("cudnn", A100)


def test_each_reason_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            choose("auto", CPU)
            choose("auto", A100, head_size=60)
        choose("xla", CPU)
        choose("auto", A100)
    assert [record.getMessage() for record in caplog.records] == [
        "attention.kernel=auto: xla, because no fused kernel serves the platform cpu.",
        "attention.kernel=auto: xla, because cudnn needs a head size that is a multiple of 8, up to 128 here, "
        "and it is 60.",
        "attention.kernel=auto: cudnn.",
    ]


@pytest.mark.parametrize("kernel", ["cudnn", "pallas"])
def test_attention_refuses_a_kernel_that_this_device_lacks(kernel: str) -> None:
    x = jnp.zeros((1, 8, 2, 8), BFLOAT16)
    with pytest.raises(RingRLError, match=f"attention.kernel={kernel}: .*the device is a cpu"):
        attention(x, x, x, config=AttentionConfig("blockwise", kernel=kernel))
    with pytest.raises(RingRLError, match=f"attention.kernel={kernel}: attention.strategy=dense"):
        AttentionConfig("dense", kernel=kernel)


def test_the_device_is_that_of_the_mesh_or_the_default() -> None:
    last = jax.devices()[-1]
    assert computing_device(jax.make_mesh((1,), ("ring",), devices=[last])) == last
    assert computing_device(None) == jax.devices()[0]
    with jax.default_device(last):
        assert computing_device(None) == last
    with jax.default_device("cpu"):
        assert computing_device(None) == jax.devices()[0]
