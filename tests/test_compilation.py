"""How programs are compiled and run."""

import subprocess
import sys

import pytest

_RUN = """
import resource, sys
from hrm_jax.compilation import compile_step, jit, run_in_main_thread
run_in_main_thread()
import jax.numpy as jnp

@jit
def program(x):  # with a buffer of 128 MiB
    return jnp.sin(jnp.cos(x @ x.T) @ x).sum()

x = jnp.ones((5792, 8))
if sys.argv[1] == "keep":
    program = compile_step(program, x)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    program(x).block_until_ready()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(min([faults() for _ in range(6)][2:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_kept_memory_is_not_fetched_anew():
    def faults(how):
        command = [sys.executable, "-c", _RUN, how]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert faults("leave") > 10_000
    assert faults("keep") < 1_000
