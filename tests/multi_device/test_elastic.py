"""A checkpoint outlives the mesh that wrote it: every array comes back bit for bit, in the shardings asked for."""

import asyncio
import dataclasses
import itertools
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding
from orbax.checkpoint._src.serialization import serialization

from ringrl.errors import RingRLError
from ringrl.parallel import make_mesh
from ringrl.training.checkpoint import Checkpointer, restore_parameters
from ringrl.training.state import TrainState

QUICK = {"xla_backend_optimization_level": 0}
OPTIMIZER = optax.adam(1e-2)
MESHES = {"ring=8": {"ring": 8}, "fsdp=2 x ring=2": {"fsdp": 2, "ring": 2}, "one device": None}


def shardings(tree, mesh):
    """Matrices split over every axis of the mesh, all the rest whole; no mesh is one device."""

    def sharding(leaf):
        if mesh is None:
            return SingleDeviceSharding(jax.devices()[0])
        return NamedSharding(mesh, PartitionSpec(None, mesh.axis_names) if leaf.ndim == 2 else PartitionSpec())

    return jax.tree.map(sharding, tree)


def fresh(seed, mesh, width=16):
    random = np.random.default_rng(seed)
    params = {"in": {"kernel": random.normal(size=(3, width)).astype(np.float32), "bias": np.zeros(width, np.float32)}}
    params["out"] = {"kernel": random.normal(size=(5, width)).astype(jnp.bfloat16)}
    counters = [jnp.asarray(value, jnp.int32) for value in range(3)]
    state = TrainState(params, OPTIMIZER.init(params), counters[0], jax.random.key(seed), counters[1], counters[2])
    # Unlike device_put, this may spread what each process has over the devices of all.
    return jax.jit(lambda tree: tree, out_shardings=shardings(state, mesh), compiler_options=QUICK)(state)


@jax.jit(donate_argnums=0, compiler_options=QUICK)
def advance(state):
    """An update that moves every array, and donates what it is given."""
    keys = iter(jax.random.split(jax.random.fold_in(state.key, state.step), 8))
    gradients = jax.tree.map(lambda leaf: leaf + jax.random.normal(next(keys), leaf.shape, leaf.dtype), state.params)
    with jax.numpy_dtype_promotion("standard"):
        updates, optimizer_state = OPTIMIZER.update(gradients, state.optimizer_state)
    params = optax.apply_updates(state.params, updates)
    return dataclasses.replace(state, params=params, optimizer_state=optimizer_state, step=state.step + 1)


def on_host(state):
    def copy(leaf):
        leaf = jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        return np.array(leaf, copy=True)

    return jax.tree.map(copy, state)


def assert_same(actual, expected):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def meshes():
    return {name: None if sizes is None else make_mesh(**sizes) for name, sizes in MESHES.items()}


def test_eight_devices_four_one_and_eight_again(tmp_path, meshes):
    state = advance(fresh(0, meshes["ring=8"]))
    saved = on_host(state)
    course = ("ring=8", "fsdp=2 x ring=2", "one device", "ring=8")
    for step, (_, to) in enumerate(itertools.pairwise(course), 1):
        checkpointer = Checkpointer(tmp_path / to)
        checkpointer.save(step, state, {})
        like = fresh(99, meshes[to])
        state, _ = checkpointer.restore("last", like=like)
        assert_same(on_host(state), saved)
        for restored, wanted in zip(jax.tree.leaves(state), jax.tree.leaves(like), strict=True):
            assert restored.sharding == wanted.sharding
            assert type(restored.sharding) is type(wanted.sharding)
            assert restored.dtype == wanted.dtype
    params, metadata = restore_parameters(tmp_path / "ring=8")
    assert isinstance(params["in"]["kernel"], np.ndarray)
    assert_same(params, saved.params)
    assert metadata["step"] == 3


@pytest.mark.parametrize("mesh", ["ring=8", "fsdp=2 x ring=2"])
def test_donated_shards_do_not_change_what_is_being_written(tmp_path, meshes, monkeypatch, mesh):
    ready, write = threading.Event(), serialization.async_serialize_from_host

    async def wait_and_write(*arguments, **options):
        assert await asyncio.to_thread(ready.wait, 60)
        return await write(*arguments, **options)

    monkeypatch.setattr(serialization, "async_serialize_from_host", wait_and_write)
    checkpointer = Checkpointer(tmp_path)
    state = advance(fresh(0, meshes[mesh]))
    saved = on_host(advance(fresh(0, meshes[mesh])))
    checkpointer.save(1, state, {})
    for _ in range(3):
        state = advance(state)
    jax.block_until_ready(state)
    ready.set()
    restored, _ = checkpointer.restore(like=state)
    assert_same(on_host(restored), saved)
    assert not np.array_equal(on_host(state).params["in"]["kernel"], saved.params["in"]["kernel"])


def test_another_width_that_the_mesh_does_not_divide_is_another_model_and_not_damage(tmp_path, meshes):
    checkpointer = Checkpointer(tmp_path, warn=pytest.fail)
    checkpointer.save(1, fresh(0, None, width=6), {})
    with pytest.raises(RingRLError, match=r"another model: params/in/bias is float32\[6\], here float32\[16\]"):
        checkpointer.restore(like=fresh(0, meshes["ring=8"]))


PROGRAM = """
    import sys
    folder, index, port = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    import jax
    jax.config.update("jax_num_cpu_devices", 4)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", 2, index)

    import numpy as np
    sys.path.insert(0, sys.argv[4])
    import test_elastic as shared
    from ringrl.parallel import make_mesh
    from ringrl.training import checkpoint
    from ringrl.training.agreement import agree_any

    mesh = make_mesh(fsdp=2, ring=4)
    whole = jax.jit(lambda tree: tree, out_shardings=shared.NamedSharding(mesh, shared.PartitionSpec()))
    on_host = lambda state: shared.on_host(jax.tree.map(lambda leaf: leaf.addressable_data(0), whole(state)))

    assert agree_any(index == 1) and not agree_any(False)
    checkpointer = checkpoint.Checkpointer(folder, warn=lambda line: print(line, flush=True))
    state, kept = shared.fresh(0, mesh), {}
    for step in range(1, 21):
        state = shared.advance(state)  # its collectives run while the checkpoint before is written
        if step % 5 == 0:
            kept[step] = on_host(state)
            checkpointer.save(step, state, {})
    for step in (15, 20):
        restored, _ = checkpointer.restore(step, like=shared.fresh(9, mesh))
        shared.assert_same(on_host(restored), kept[step])
        assert jax.tree.map(lambda leaf: leaf.sharding, restored) == shared.shardings(state, mesh)

    verify = checkpoint.verify_arrays

    def damaged_here(path, checksums):
        if "20" in path.parent.name and index == 1:
            raise ValueError("seen by process 1 alone")
        verify(path, checksums)

    checkpoint.verify_arrays = damaged_here
    print("restored", checkpointer.restore("last", like=state)[1]["step"], flush=True)

    def full(step, size):
        raise OSError(28, "No space left on device")

    checkpointer._folder.begin = full
    try:
        checkpointer.save(25, state, {})
    except shared.RingRLError as error:
        print(error, flush=True)
    np.save(f"{folder}/kernel_{index}.npy", kept[15].params["in"]["kernel"])
"""


@pytest.mark.scale
def test_two_processes_write_one_checkpoint_and_agree_on_which_to_read(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path)]
    processes = [
        subprocess.Popen(
            [*command, str(index), str(port), str(Path(__file__).parent)], stdout=subprocess.PIPE, text=True
        )
        for index in range(2)
    ]
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    for output, damage, full in zip(
        outputs,
        ("another process cannot read it", "seen by process 1 alone"),
        ("Cannot save the checkpoint of step 25", "Process 0 cannot save the checkpoint of step 25"),
        strict=True,
    ):
        lines = [line for line in output.splitlines() if not line.startswith("[Gloo]")]
        assert len(lines) == 3, output
        assert damage in lines[0]
        assert lines[1] == "restored 15"
        assert full in lines[2]
    restored, _ = restore_parameters(tmp_path, 15)
    np.testing.assert_array_equal(restored["in"]["kernel"], np.load(tmp_path / "kernel_0.npy"))
