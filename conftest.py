"""Runs before any test imports JAX: several CPU devices, and shapes checked at run time."""

import json
import os
import pathlib
import tempfile

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
    _FAST_COMPILING if os.environ["JAX_PLATFORMS"] == "cpu" else "--xla_gpu_autotune_level=0",
])  # fmt: skip

# Many tests compile the same small programs, some of them in processes of their own. They are kept
# for the next time where HRM_JAX_TEST_COMPILED names a folder; a program's name is its content.
if "PYTEST_XDIST_WORKER" not in os.environ:
    if not (_KEPT := os.environ.get("HRM_JAX_TEST_COMPILED", "")):
        _COMPILED = tempfile.TemporaryDirectory(prefix="hrm_jax_tests_", ignore_cleanup_errors=True)
        _KEPT = _COMPILED.name
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _KEPT
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "0"

import compiled  # noqa: E402, F401
from flax import struct  # noqa: E402
from jaxtyping import _import_hook, install_import_hook  # noqa: E402
from pages import PAGES  # noqa: E402
from slipcover import pytest_plugin  # noqa: E402

# JAX also rebuilds these from shapes and shardings, which are no arrays.
struct.PyTreeNode.__no_type_check__ = True


class _Loader(_import_hook._JaxtypingLoader):
    """Loads a module whose shapes are checked and whose lines are counted, if they are."""

    def get_code(self, fullname):  # type: ignore[no-untyped-def]
        code, lines = super().get_code(fullname), pytest_plugin._slipcover_instance
        return code if lines is None else lines.instrument(code)


_import_hook._JaxtypingLoader = _Loader

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
    "rl",
)
install_import_hook([f"hrm_jax.{room}" for room in CHECKED], "beartype.beartype")

pytest_collect_file = PAGES.pytest()  # README and docs are run, too


def pytest_terminal_summary(terminalreporter) -> None:  # type: ignore[no-untyped-def]
    """Says how many lines the tests of all workers ran (python -m slipcover -m pytest -n 2)."""
    merged = pathlib.Path(os.environ.get("SLIPCOVER_COVERAGE_DIR", ""), "merged.json")
    if merged.is_file():
        covered = json.loads(merged.read_text())["summary"]["percent_covered"]
        terminalreporter.write_line(f"coverage: {covered:.2f} % of lines, by file in coverage.txt")
