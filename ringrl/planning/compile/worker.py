"""Compilation of a plan in a separate process.

`python -m ringrl.planning.compile.worker plan.json report.json [cache folder]`

A refusal for lack of memory is a result, and part of the report; any other error ends this process with the error as
the last line.
"""

import dataclasses
import hashlib
import importlib.metadata
import inspect
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ringrl.agents import SequenceAgent, make_agent
from ringrl.errors import RingRLError
from ringrl.files import write_atomically
from ringrl.planning.cluster import topology
from ringrl.planning.cluster.compilers import install_command
from ringrl.planning.cluster.topology import topology_mesh
from ringrl.planning.compile import buffers, transfers
from ringrl.planning.compile.process import ERROR_EXIT_CODE
from ringrl.planning.compile.step import lower_step
from ringrl.planning.hlo import collectives, liveness, overlap, parser, places
from ringrl.planning.plan import Memory, Plan, Report, plan_from_json, report_from_json
from ringrl.training.compiler_flags import compiler_flags

REFUSALS = ("RESOURCE_EXHAUSTED", "exceeds available", "Ran out of memory")
FLAG_VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
_UNTRIED = "Couldn't find output tile sizes"
PACKAGES = {"tpu": ("libtpu",), "cuda": ("jax-cuda13-pjrt", "jax-cuda12-pjrt"), "cpu": ("jaxlib",)}


def planned_agent(plan: Plan) -> SequenceAgent:
    """The agent that `ringrl train` would make for the plan, on a mesh of its target's devices.

    A single device of another machine needs a mesh of size one as its description.
    """
    here = plan.target.platform == "cpu"
    alone = here and plan.target.devices == 1 and not plan.attention.strategy.is_sharded
    return make_agent(
        plan.agent,
        plan.model,
        plan.attention,
        plan.data.spec,
        context=plan.context,
        compute_dtype=jnp.dtype(plan.training.precision.value),
        mesh=None if alone else topology_mesh(plan.target.topology, **plan.sizes),
    )


def compile_here(plan: Plan, cache: Path | None = None) -> Report:
    """Trace the plan's step and compile it with its target's compiler, unless the result is in `cache`.

    Raises RingRLError for a missing compiler and for a plan that fits no mesh, and any compiler error other than a
    refusal.
    """
    began = time.perf_counter()
    compilers = _compilers(plan.target.platform)
    agent = planned_agent(plan)
    lowered = lower_step(agent, plan.training, plan.chains, plan.tokens // plan.tokens_per_step)
    device = _device(agent)
    flags = {**compiler_flags(agent.mesh), **plan.compiler_options}
    environment = {name: os.environ[name] for name in FLAG_VARIABLES if os.environ.get(name)}
    asked = (lowered.as_text(), _order(agent), plan.target.topology, str(device), str(compilers), str(flags))
    program = _digest(*asked, str(environment), _hash_sources())
    stored = None if cache is None else cache / f"{program}.json"
    if stored is not None and (known := _read(stored)) is not None:
        # Limits belong to the target, which a user may change, and are not part of the program.
        return dataclasses.replace(_judge(known, plan), cached=True)
    report = Report(
        tokens=plan.tokens,
        accepted=True,
        device_kind=device.device_kind,
        devices=plan.target.devices,
        compilers=compilers,
        flags=flags,
        environment=environment,
        program=program,
    )
    try:
        compiled, flags = _compile(lowered, flags)
    except jax.errors.JaxRuntimeError as error:
        if not any(word in str(error) for word in REFUSALS):
            raise
        report = dataclasses.replace(report, accepted=False, refusal=_first_line(str(error)))
    else:
        module = parser.parse(compiled.as_text())
        report = dataclasses.replace(
            report,
            flags=flags,
            memory=_memory(compiled.memory_analysis()),
            buffers=buffers.largest_buffers(module),
            transfers=transfers.find_transfers(module),
        )
    report = dataclasses.replace(
        report,
        seconds=time.perf_counter() - began,
        peak_host_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )
    if stored is not None:
        stored.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(stored, report.to_json())
    return _judge(report, plan)


def _compile(lowered: Any, flags: dict[str, bool | int]) -> tuple[Any, dict[str, bool | int]]:
    """The compiled program and its flags: without a GPU for autotuning, XLA may choose an unsupported kernel."""
    try:
        return lowered.compile(compiler_options=flags or None), flags
    except jax.errors.JaxRuntimeError as error:
        if _UNTRIED not in str(error):
            raise
    flags = {**flags, "xla_gpu_enable_triton_gemm": False}  # use cuBLAS, as autotuning would
    return lowered.compile(compiler_options=flags), flags


def _judge(report: Report, plan: Plan) -> Report:
    """Accept only if the reported total is within the target's memory: a GPU's compiler never refuses."""
    fits = report.accepted and report.memory is not None and report.memory.total <= plan.target.memory
    refusal = report.refusal
    if report.accepted and not fits and report.memory is not None:
        gibibytes = report.memory.total / 2**30, plan.target.memory / 2**30
        refusal = "the compiler reports {:.2f} GiB, and a device has {:.2f} GiB".format(*gibibytes)
    return dataclasses.replace(report, accepted=fits, refusal=refusal, limit=plan.target.memory)


def _memory(stats: Any) -> Memory:
    return Memory(
        arguments=stats.argument_size_in_bytes,
        outputs=stats.output_size_in_bytes,
        aliased=stats.alias_size_in_bytes,
        temporaries=stats.temp_size_in_bytes,
        code=stats.generated_code_size_in_bytes,
        host=stats.host_temp_size_in_bytes + stats.host_argument_size_in_bytes + stats.host_output_size_in_bytes,
    )


def _device(agent: SequenceAgent) -> Any:
    return jax.devices()[0] if agent.mesh is None else agent.mesh.devices.flat[0]


def _compilers(platform: str) -> dict[str, str]:
    """Versions of JAX and of the target's compiler; raises RingRLError if they are incompatible."""
    found = {"jax": jax.__version__}
    for package in PACKAGES[platform]:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    if len(found) == 1:
        raise RingRLError(f"The compiler for {platform} has no version: install it anew: {install_command(platform)}")
    own = next((version for package, version in found.items() if package.startswith("jax-cuda")), jax.__version__)
    if own != jax.__version__:
        raise RingRLError(
            f"JAX is {jax.__version__} and its CUDA plugin {own}: install the same version of both: "
            f"{install_command(platform)}"
        )
    return found


def _digest(*texts: str) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:32]


def _order(agent: SequenceAgent) -> str:
    """The order of the mesh's devices, because a program's text has only its axes."""
    return "" if agent.mesh is None else str([device.id for device in agent.mesh.devices.flat])


def _hash_sources() -> str:
    """A digest of the modules that describe devices and read programs, which invalidates reports by older versions."""
    modules = (buffers, collectives, liveness, overlap, parser, places, topology, transfers)
    return "".join(inspect.getsource(module) for module in modules)


def _read(path: Path) -> Report | None:
    """The stored report, or None if there is none that this version can read."""
    try:
        return report_from_json(path.read_text())
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _first_line(text: str) -> str:
    """The first line of the compiler's message."""
    return text.strip().splitlines()[0]


def main() -> None:
    """Entry point of the separate process: reads a plan's file, writes a report's file."""
    plan_path, report_path, *cache = (Path(word) for word in sys.argv[1:])
    plan = plan_from_json(plan_path.read_text())
    if plan.target.platform == "cpu":
        jax.config.update("jax_num_cpu_devices", plan.target.devices)
    try:
        report = compile_here(plan, cache[0] if cache else None)
    except RingRLError as error:
        print(error, file=sys.stderr)
        sys.exit(ERROR_EXIT_CODE)
    write_atomically(report_path, report.to_json())


if __name__ == "__main__":
    main()
