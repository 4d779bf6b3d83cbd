"""Runs before any test imports JAX: several CPU devices, and shapes checked at run time."""

import os
import tempfile

import pytest

DEVICES = 4
os.environ["JAX_PLATFORMS"] = os.environ.get("HRM_JAX_TEST_PLATFORM", "cpu")
# Small programs that are compiled once and run a few times: compiling is most of the work.
_FAST_COMPILING = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false"  # a third of the time
)
os.environ["XLA_FLAGS"] = " ".join([
    os.environ.get("XLA_FLAGS", ""),
    f"--xla_force_host_platform_device_count={DEVICES}",
    _FAST_COMPILING if os.environ["JAX_PLATFORMS"] == "cpu" else "",
])  # fmt: skip

# Many tests compile the same small programs, some of them in processes of their own.
_COMPILED = tempfile.TemporaryDirectory(prefix="hrm_jax_tests_", ignore_cleanup_errors=True)
os.environ["JAX_COMPILATION_CACHE_DIR"] = _COMPILED.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "0"

from flax import struct  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402
from pages import PAGES  # noqa: E402

# JAX also rebuilds these from shapes and shardings, which are no arrays.
struct.PyTreeNode.__no_type_check__ = True

# Not the rooms of data and puzzles: numba cannot compile functions that are wrapped.
CHECKED = (
    "kernels",
    "layers",
    "optim",
    "models",
    "tasks",
    "training",
    "interop",
    "engine",
    "trained",
    "server",
    "viz",
    "puzzles.drawing",
)
install_import_hook([f"hrm_jax.{room}" for room in CHECKED], "beartype.beartype")

pytest_collect_file = PAGES.pytest()  # README and docs are run, too

# Tracing which lines run doubles the time of all Python code. These run again and at length what
# quicker tests cover.
UNTRACED = (
    "benchmarks/test_programs.py",
    "models/test_parity.py",
    "optim/test_optim.py",
    "tasks/test_every_field.py",
    "test_lowering.py",
    "training/test_contract.py",
    "training/test_mesh.py",
    "training/test_tables.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.as_posix().endswith(UNTRACED):
            item.add_marker("no_cover")
