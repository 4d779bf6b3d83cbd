"""Compiles programs for a GPU on a machine that has none.

XLA's GPU compiler, Triton and NVIDIA's assembler need no GPU, only its description: what comes out
can be read (kernels, memory, collectives, registers), but not run. They are installed by
`pip install -e '.[gpu_compiler]'`; without them programs can still be lowered for CUDA.

What cannot be known here is what XLA decides by trial on the device: which of its products of
matrices are done by cuBLAS and which by its own kernels.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import (
    AbstractDevice,
    AbstractMesh,
    AxisType,
    Mesh,
    NamedSharding,
    PartitionSpec,
)

KIND = "NVIDIA H200"

# What XLA asks a device for. Figures: NVIDIA H200's data sheet and the CUDA programming guide's
# table of compute capability 9.0.
_DESCRIPTION = f"""
gpu_device_info {{
  threads_per_block_limit: 1024  threads_per_warp: 32  threads_per_core_limit: 2048
  shared_memory_per_block: 49152  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  registers_per_core_limit: 65536  registers_per_block_limit: 65536
  core_count: 132  fpus_per_core: 128  clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
  memory_bandwidth: 4800000000000  device_memory_size: 150754820096  l2_cache_size: 52428800
  cuda_compute_capability {{ major: 9 minor: 0 }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
runtime_version {{ major: 13 }}
device_description_str: "{KIND}"
"""


def devices(count: int = 1) -> list[jax.Device]:
    """So many H200s of one machine, to compile for.

    Raises:
        RuntimeError: The compiler is not installed, or could not be loaded.
    """
    try:
        topology = topologies.get_topology_desc(
            platform="cuda",
            topology_name=KIND,
            target_config=_DESCRIPTION,
            topology=f"1x1x{count}",
        )
    except NotImplementedError as error:
        raise RuntimeError(
            "there is no GPU compiler: pip install -e '.[gpu_compiler]' (Linux), and set "
            "JAX_PLATFORMS=cpu where there is no GPU"
        ) from error
    return list(topology.devices)


@contextlib.contextmanager
def target() -> Iterator[None]:
    """Within it, programs are traced and lowered for an H200 (`lowering_platforms=("cuda",)`).

    JAX 0.11 looks for a GPU while it lowers kernels; this names one.
    """
    device = AbstractDevice(KIND, 132, "gpu")
    mesh = AbstractMesh((1,), ("data",), (AxisType.Auto,), abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh):
        yield


def compile_for_gpu(
    function: Callable[..., Any], *args: Any, dump: pathlib.Path | None = None, **options: Any
) -> Any:
    """Compiles a function for one H200.

    Args:
        function: A function of arrays.
        *args: Arrays or their shapes (`jax.ShapeDtypeStruct`).
        dump: Folder for what the compiler writes of its work, or None.
        **options: Of `jax.jit`.

    Returns:
        A compiled program, as of `jax.jit(function).lower(*args).compile()`: its text and its
        memory can be asked for.

    Raises:
        RuntimeError: As for `devices`.
    """
    whole = NamedSharding(Mesh(np.array(devices()), ("data",)), PartitionSpec())
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=whole), args
    )
    with target():
        lowered = jax.jit(function, **options).trace(*shapes).lower(lowering_platforms=("cuda",))
    return compiled(lowered, {} if dump is None else {"xla_dump_to": str(dump)})


def compiled(lowered: Any, options: dict[str, Any] | None = None) -> Any:
    """`lowered.compile(options)` anew: the compilation cache, which keeps programs for devices that
    are not there too, cannot load them, and warns of each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Error reading persistent compilation cache")
        return lowered.compile(options)


class Resources(NamedTuple):
    """What a program (a block of threads) of a kernel takes.

    Attributes:
        threads: Of a program.
        registers: Of a thread, of 255.
        spilled: Bytes of a thread that found no register, loaded and stored in memory.
    """

    threads: int
    registers: int
    spilled: int


def kernel_resources(function: Callable[..., Any], *args: Any) -> dict[str, Resources]:
    """Compiles a function, and asks NVIDIA's assembler what each of its kernels takes.

    Args:
        function, *args: As for `compile_for_gpu`.

    Returns:
        Resources by the kernel's name.

    Raises:
        RuntimeError: As for `devices`; or the compiler does not write PTX down (JAX 0.11's).
    """
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        compile_for_gpu(function, *args, dump=pathlib.Path(folder))
        for path in sorted(pathlib.Path(folder).glob("*.ptx")):
            text = path.read_text()
            chip = re.search(r"^\.target (\w+)", text, re.MULTILINE)
            threads = re.search(r"\.(?:reqntid|maxntid) (\d+)", text)
            if chip is None or threads is None:  # constants only
                continue
            command = [_assembler(), "-v", f"-arch={chip[1]}", str(path), "-o", os.devnull]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
            name = re.findall(r"entry function '(\w+)'", said)[0]
            registers = re.findall(r"Used (\d+) registers", said)[0]
            spilled = sum(int(n) for n in re.findall(r"(\d+) bytes spill", said))
            found[name] = Resources(int(threads[1]), int(registers), spilled)
    if not found:
        raise RuntimeError(f"the compiler of JAX {jax.__version__} has written no PTX down")
    return found


def _assembler() -> str:
    """Where ptxas is: among Python's packages, or on the path."""
    for folder in sys.path:
        for path in pathlib.Path(folder or ".").glob("nvidia/*/bin/ptxas"):
            return str(path)
    found = shutil.which("ptxas")
    if found is None:
        raise RuntimeError("ptxas was not found: pip install -e '.[gpu_compiler]'")
    return found
