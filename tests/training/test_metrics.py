"""Event files, read back by TensorBoard's own reader; what is known of devices."""

import io
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ringrl.errors import RingRLError
from ringrl.parallel import make_mesh
from ringrl.training import device as device_module
from ringrl.training import metrics as metrics_module
from ringrl.training.device import (
    available_bytes,
    check_memory,
    check_state_memory,
    device_name,
    memory_in_use,
    needed_bytes,
    peak_flops,
)
from ringrl.training.metrics import TensorBoardLogger


def read(directory):
    events = EventAccumulator(str(directory), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    return events


def test_everything_opens_in_tensorboards_reader(tmp_path):
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().plot([1, 2], [3, 4])
    frames = np.random.default_rng(0).integers(0, 255, (3, 8, 12, 3), dtype=np.uint8)
    with TensorBoardLogger(tmp_path) as logger:
        for step in (1, 2):
            logger.scalars({"train/loss": 1.0 / step, "train/skipped": np.float32(0)}, step)
        logger.histograms({"layer": {"kernel": jnp.arange(10.0)}, "bad": jnp.full((2,), jnp.nan)}, 2)
        logger.text("config", "seed: 0\nname: x")
        logger.figure("curves", figure, 2)
        logger.video("rollout", frames, 2)
        logger.layout({"evaluation": {"return": ["evaluation/(first|last)$"]}})
        logger.hparams({"model": {"width": 64, "remat": "none"}, "seed": 0, "resume": None}, {"final/last": 2.5}, 2)
    events = read(tmp_path)
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 1.0), (2, 0.5)]
    assert [(e.step, e.value) for e in events.Scalars("final/last")] == [(2, 2.5)], "at the last step"
    assert b"evaluation/(first|last)$" in events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    assert events.Tags()["histograms"] == ["parameters/layer/kernel"]
    histogram = events.Histograms("parameters/layer/kernel")[0].histogram_value
    assert (histogram.min, histogram.max, histogram.num) == (0.0, 9.0, 10)
    assert b"seed: 0" in events.Tensors("config/text_summary")[0].tensor_proto.string_val[0]
    with Image.open(io.BytesIO(events.Images("rollout")[0].encoded_image_string)) as video:
        assert (video.format, video.n_frames, video.size) == ("GIF", 3, (12, 8))
    curves = events.Images("curves")[0]
    with Image.open(io.BytesIO(curves.encoded_image_string)) as image:
        assert image.size == (curves.width, curves.height) == (200, 100)
    assert set(events.PluginTagToContent("hparams")) == {
        "_hparams_/session_start_info",
        "_hparams_/session_end_info",
    }


def test_tensorboard_lists_what_differs_between_runs_first(tmp_path):
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams.backend_context import Context

    for run, rate in (("a", 0.1), ("b", 0.2)):
        with TensorBoardLogger(tmp_path / run) as logger:
            logger.scalars({"evaluation/last": rate}, 3)
            values = {"agent": {"name": "at"}, "seed": 0, "training": {"learning_rate": rate, "steps": 3}}
            logger.hparams(values, {"final/last": rate}, 3)
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(tmp_path))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(tmp_path))
    context, request = Context(TBContext(data_provider=provider)), RequestContext()
    content = context.hparams_metadata(request, "")
    experiment = context.experiment_from_metadata(request, "", True, content, [])
    names = [info.name for info in experiment.hparam_infos]
    assert names == ["training.learning_rate", "agent.name", "seed", "training.steps"]
    assert {info.name.tag for info in experiment.metric_infos} == {"evaluation/last", "final/last"}


@pytest.mark.parametrize("spec", [(), ("ring",), ("ring", "fsdp"), (None, ("fsdp", "ring"))])
def test_every_number_of_a_sharded_array_counts_once(spec):
    mesh = make_mesh(fsdp=2, ring=2)
    values = jnp.arange(32, dtype=jnp.bfloat16).reshape(8, 4)
    array = jax.device_put(values, NamedSharding(mesh, PartitionSpec(*spec)))
    np.testing.assert_array_equal(np.sort(metrics_module._own_values(array)), np.arange(32))


def test_resuming_hides_what_was_logged_after_the_checkpoint(tmp_path):
    with TensorBoardLogger(tmp_path) as logger:
        for step in (1, 2, 3):
            logger.scalars({"loss": float(step)}, step)
    with TensorBoardLogger(tmp_path, resumed_at=2) as logger:
        logger.scalars({"loss": 20.0}, 2)
    assert [(e.step, e.value) for e in read(tmp_path).Scalars("loss")] == [(1, 1.0), (2, 20.0)]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RingRLError, match=r"Cannot write TensorBoard events in .*file"):
        TensorBoardLogger(tmp_path / "file")


def test_a_full_disk_is_one_line(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    logger._events._py_recordio_writer._writer.close()
    with open("/dev/full", "wb") as full:
        logger._events._py_recordio_writer._writer = os.fdopen(os.dup(full.fileno()), "wb", buffering=0)
        with pytest.raises(RingRLError, match="No space left on device"):
            logger.scalars({"loss": 1.0}, 1)
    logger._events._py_recordio_writer._writer.close()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("NVIDIA H200", 989.4e12),
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA H200 NVL", 835.5e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835.5e12),
        ("NVIDIA GH200 480GB", 989.4e12),
        ("NVIDIA B200", 2250e12),
        ("NVIDIA GB200", 2500e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A10", 125e12),
        ("NVIDIA A10G", None),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40", 181e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("Tesla V100-SXM2-16GB", 125e12),
        ("TPU v3", 61.5e12),
        ("TPU v4", 275e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5", 459e12),
        ("TPU v5p", 459e12),
        ("TPU v6 lite", 918e12),
        ("TPU v6e", 918e12),
        ("TPU7x", 1153.5e12),
        ("cpu", None),
    ],
)
def test_peaks(kind, expected):
    assert peak_flops(kind) == expected


def test_the_compiled_step_is_weighed_before_it_runs():
    size = 256
    compiled = jax.jit(lambda x: x @ x).lower(jax.ShapeDtypeStruct((size, size), jnp.float32)).compile()
    needed = needed_bytes(compiled)
    assert 2 * size**2 * 4 <= needed < 4 * size**2 * 4
    device = jax.devices("cpu")[0]
    check_memory(compiled, device, steps=100, available=needed)
    with pytest.raises(RingRLError) as caught:
        check_memory(compiled, device, steps=100, available=needed - 1)
    message = str(caught.value)
    for part in ("chains of 100 steps", "GiB", device_name(device), "chain.trajectories", "training.batch_size"):
        assert part in message
    for part in ("attention.strategy=blockwise", "model.remat=layer"):
        assert part in message
    assert "\n" not in message
    assert available_bytes(device) > 0


def test_a_state_is_weighed_before_it_is_made():
    device = jax.devices("cpu")[0]
    check_state_memory(40, device, available=40)
    with pytest.raises(RingRLError, match=r"Model larger than memory allows: .* choose a smaller model"):
        check_state_memory(40, device, available=39)


class Device:
    """A device with an accelerator's memory statistics."""

    def __init__(self, statistics):
        self.memory_stats = lambda: statistics


def test_the_fullest_device_counts():
    devices = [Device({"bytes_in_use": 5, "peak_bytes_in_use": 7}), Device({"bytes_in_use": 3, "peak_bytes_in_use": 9})]
    memory = memory_in_use(devices)
    assert (memory["bytes_in_use"], memory["peak_bytes"]) == (5.0, 9.0)
    assert memory_in_use([Device(None), Device({"num_allocs": 1})]).keys() == {"host_resident"}


def test_the_memory_that_the_process_holds():
    before = memory_in_use()["host_resident"]
    held = np.ones(2**26, np.uint8)
    assert memory_in_use()["host_resident"] - before > 0.9 * held.nbytes


@pytest.mark.parametrize("version", [1, 2])
def test_a_containers_limit_counts(tmp_path, version):
    names = {
        1: ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }
    limit, used, cache = names[version]
    (tmp_path / limit).parent.mkdir(exist_ok=True)
    (tmp_path / limit).write_text("1000\n")
    (tmp_path / used).write_text("700\n")
    (tmp_path / limit).with_name("memory.stat").write_text(f"anon 500\n{cache} 200\n")
    assert device_module._container_free_bytes(tmp_path) == 500
    (tmp_path / limit).write_text("max\n")
    assert device_module._container_free_bytes(tmp_path) is None


def test_training_needs_none_of_the_heavy_packages():
    code = (
        "import sys; import ringrl.training.loop, ringrl.training.metrics;"
        "print([n for n in ('gymnasium', 'mujoco', 'minari', 'hydra', 'ringrl.data', 'ringrl.evaluation')"
        " if n in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
