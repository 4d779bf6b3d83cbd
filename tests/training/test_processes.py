"""What processes that train together agree upon, and what is left to say when one is killed."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from hrm_jax.fields import ConfigError
from hrm_jax.tasks.base import State
from hrm_jax.training import processes
from hrm_jax.training.sharding import for_evaluation, make_mesh
from hrm_jax.training.signals import SharedSignal


def test_alone_everything_is_agreed_upon():
    value = {"eval/x": [0.1, 2]}
    assert processes.agreed(value) is value
    assert processes.any_of(3) == 3
    assert processes.is_first()
    processes.require_same("data", value)
    with processes.first_before_others("x"):
        pass
    assert SharedSignal(make_mesh(), [15, 2]).after_step() == 15


@pytest.fixture
def second_of_two(monkeypatch):
    """This process is the second; `first` is what the first one has."""

    def pretend(first):
        first = list(first)
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        monkeypatch.setattr(jax, "process_index", lambda: 1)
        monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", lambda _: first.pop(0))
        monkeypatch.setattr(
            multihost_utils, "process_allgather", lambda x: np.stack([first.pop(0), x])
        )

    return pretend


def test_the_first_process_decides(second_of_two):
    text = b'{"eval/x": 0.25}'
    second_of_two([np.int32(len(text)), np.frombuffer(text, np.uint8)])
    assert processes.agreed({"eval/x": 0.26}) == {"eval/x": 0.25}


@pytest.mark.parametrize(("first", "expected"), [(0, 2), (15, 15)])
def test_one_is_enough(first, expected, second_of_two):
    second_of_two([np.int32(first)])
    assert processes.any_of(2) == expected


def test_other_values_are_refused(second_of_two):
    second_of_two([np.uint32(1)])
    with pytest.raises(ConfigError, match=r"processes \[1\] have another configuration than 0"):
        processes.require_same("configuration", {"steps": 4})


def test_all_of_the_flags_or_none():
    with pytest.raises(ConfigError, match=r"--num_processes and --process_id missing; give all"):
        processes.start("localhost:1")
    with pytest.raises(ConfigError, match=r"--coordinator missing; give all three or none"):
        processes.start(None, 2, 0)


def test_a_state_off_any_mesh_is_evaluated_as_it_is():
    state = State(step=0, params={"w": jax.numpy.ones(3)}, opt_state=(), key=jax.random.key(0))
    assert for_evaluation(state) is state


CODE = """
import sys
from hrm_jax.training import processes
processes._say_if_killed(7)
print("up", flush=True)
if sys.argv[1] == "leaves":
    processes.leave()
sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["killed", "leaves"])
def test_a_process_that_is_killed_says_so_and_one_that_leaves_does_not(end):
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, end],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "up\n"
    if end == "killed":
        process.kill()
    _, said = process.communicate(timeout=60)  # the shell has this pipe too: it has ended
    if end == "killed":
        assert "error: process 0 of 1 was ended from outside." in said
        assert "had not been heard of for 7 s" in said
        assert said.rstrip().endswith(processes.AGAIN)
    else:
        assert process.returncode == 3
        assert said == ""
