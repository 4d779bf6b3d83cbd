"""How programs are compiled and run."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax.compilation import hoist_constants

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


_DIVIDED = """
import logging, sys, tempfile
import jax
from hrm_jax import experiment
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
assert jax.local_device_count() == 1
kept = jax.numpy.ones(2) if sys.argv[1] == "arrays" else None
config = {"task": "ppo", "environment": "Catch", "steps": 1, "batch_size": 4, "rollout_steps": 8,
          "iterations": 1, "minibatches": 1, "epochs": 1, "eval_episodes": 4,
          "mesh": {"cpu_devices": 2}, "tensorboard": False}
result = experiment.train(config, tempfile.mkdtemp(), progress=False)
print("devices:", len(jax.tree.leaves(result.state.params)[0].sharding.device_set))
"""


@pytest.mark.slow
def test_a_cpu_is_divided_before_there_are_arrays(child):
    flags = {**child(), "XLA_FLAGS": ""}

    def said(how, environment=flags):
        command = [sys.executable, "-c", _DIVIDED, how]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert said("nothing").endswith("devices: 2\n")
    for kept in (said("arrays"), said("nothing", child())):
        assert "JAX has 1 CPU devices already, not the 2 asked for." in kept
        assert kept.endswith("devices: 1\n")


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_kept_memory_is_not_fetched_anew():
    def faults(how):
        command = [sys.executable, "-c", _RUN, how]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert faults("leave") > 10_000
    assert faults("keep") < 1_000


def test_arrays_that_a_function_closes_over_become_arguments():
    ours, given = jnp.arange(1000.0), np.arange(1000.0, dtype=np.float32)

    def function(key, scale):
        return {"a": ours, "b": scale * given, "c": jax.random.normal(key, (2,))}

    args = jax.random.key(0), jnp.float32(3.0)
    hoisted, arrays = hoist_constants(function, *args)
    assert [array.shape for array in arrays] == [(1000,)] * 2
    assert 'dense<"0x' in jax.jit(function).lower(*args).as_text()
    assert 'dense<"0x' not in jax.jit(hoisted).lower(arrays, *args).as_text()
    jax.tree.map(np.testing.assert_array_equal, jax.jit(hoisted)(arrays, *args), function(*args))
