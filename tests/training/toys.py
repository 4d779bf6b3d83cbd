"""Three tasks that no code for puzzles or text helps: what the contract must carry."""

import os
import pathlib
import signal
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec

from hrm_jax.data.identity import Identity
from hrm_jax.data.pipeline import Draws, batch_iterator, empty_batches
from hrm_jax.optim.build import OptimizerConfig, build_optimizer
from hrm_jax.tasks.base import RunConfig, State, Task, pair
from hrm_jax.tasks.supervised import SupervisedTrainer, apply_gradients
from hrm_jax.training import loop
from hrm_jax.training.sharding import make_mesh

RULE = OptimizerConfig(name="adamw", learning_rate=0.1, warmup_steps=2, ema=0.5)


class _Toy(Task):
    identity = Identity("toy", "1", None, {}, {})
    kill_at = 0

    def __init__(self, **fields):
        cadence = {"log_every": 1, "eval_every": 3, "checkpoint_every": 2, "tensorboard": False}
        self.config = RunConfig(task="toy", steps=7, batch_size=8, **cadence, **fields)

    def evaluate(self, state):
        if int(state.step) == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"eval/norm": float(optax.global_norm(state.averaged))}


class Walkers(_Toy):
    """An agent on a line: environments in the rows, a replay buffer of its own layout, and several
    updates in a step, on data that it makes itself."""

    updates = 3

    def init(self, key):
        params = {"w": jnp.zeros(4), "b": jnp.float32(0)}
        optimizer = build_optimizer(RULE, self.config.steps, self.updates)
        return State(
            step=jnp.int32(0),
            params=params,
            opt_state=optimizer.init(params),
            key=key,
            ema=jax.tree.map(jnp.copy, params),
            rows={"place": jnp.arange(8.0), "age": jnp.zeros(8, jnp.int32)},
            carry={"seen": jnp.zeros((16, 4)), "reward": jnp.zeros(16), "next": jnp.int32(0)},
        )

    def carry_spec(self, carry):
        divided = PartitionSpec(("data", "fsdp"))
        return {"seen": divided, "reward": divided, "next": PartitionSpec()}

    def batches(self):
        return empty_batches()

    def step(self, state, batch):
        assert batch == {}
        act_key, draw_key = jax.random.split(jax.random.fold_in(state.key, state.step))
        place = state.rows["place"]
        seen = jnp.stack([place, jnp.sin(place), jnp.cos(place), jnp.ones(8)], axis=1)
        move = seen @ state.params["w"] + jax.random.normal(act_key, (8,))
        slots = (state.carry["next"] + jnp.arange(8)) % 16
        carry = {
            "seen": state.carry["seen"].at[slots].set(seen),
            "reward": state.carry["reward"].at[slots].set(-jnp.abs(place + move)),
            "next": state.carry["next"] + 8,
        }
        rows = {"place": place + jnp.clip(move, -1, 1), "age": state.rows["age"] + 1}
        state = state.replace(rows=rows, carry=carry)

        def update(state, key):
            some = jax.random.randint(key, (8,), 0, 16)

            def loss(params):
                value = carry["seen"][some] @ params["w"] + params["b"]
                return jnp.mean((value - carry["reward"][some]) ** 2)

            total, grads = jax.value_and_grad(loss)(state.params)
            state, metrics = apply_gradients(state, grads, RULE, self.config.steps, self.updates)
            return state, {**metrics, "loss": pair(total, 1)}

        state, metrics = jax.lax.scan(update, state, jax.random.split(draw_key, self.updates))
        return state, jax.tree.map(lambda x: x.sum(0), metrics)


class _Numbers(Draws):
    def batch(self, index, items, epochs):
        x = np.float32(items[:, None] * np.arange(1, 5) % 7 - 3)
        return {"x": x, "y": x.sum(1) ** 2}


class _Regression(_Toy):
    """Rows of numbers."""

    def batches(self):
        return batch_iterator(_Numbers(100, 8, 0, jax.process_index(), jax.process_count()))

    def step(self, state, batch):
        return self.trainer.step(state, batch)


class Adapters(_Regression):
    """Base weights that are never trained nor saved, and small ones beside them that are."""

    base_seed = 0

    def __init__(self, **fields):
        super().__init__(**fields)
        self.trainer = SupervisedTrainer(RULE, self.config.steps, self.loss)

    def init(self, key):
        down = jax.random.normal(key, (4, 2))
        return self.trainer.init(key, {"down": down, "up": jnp.zeros((2, 64))})

    def frozen(self, place):
        random = np.random.default_rng(self.base_seed)
        return {"base": place(random.normal(size=(4, 64)).astype(np.float32))}

    def loss(self, variables, batch, carry, key, step):
        params = variables["params"]
        kernel = variables["frozen"]["base"] + params["down"] @ params["up"]
        value = jnp.tanh(batch["x"] @ kernel).mean(1)
        total = jnp.sum((value - batch["y"]) ** 2)
        return total, (carry, {"loss": pair(total, len(value))})


class Memory(_Regression):
    """Reads a memory that it writes to, from microbatch to microbatch and from step to step."""

    def __init__(self, **fields):
        super().__init__(microbatch_size=4, **fields)
        self.trainer = SupervisedTrainer(RULE, self.config.steps, self.loss, 4)

    def init(self, key):
        return self.trainer.init(
            key, {"w": jnp.ones(4)}, rows=jnp.zeros(8), carry={"slots": jnp.zeros((3, 4))}
        )

    def loss(self, variables, batch, carry, key, step):
        slots = carry.rest["slots"]
        read = jax.nn.softmax(batch["x"] @ slots.T) @ slots
        value = (batch["x"] + read) @ variables["params"]["w"] + 0.1 * carry.rows
        total = jnp.sum((value - batch["y"]) ** 2)
        slots = jnp.concatenate([slots[1:], batch["x"].mean(0, keepdims=True)])
        carry = carry._replace(rows=jax.lax.stop_gradient(value), rest={"slots": slots})
        return total, (carry, {"loss": pair(total, len(value))})

    def weights(self, state):
        return {"params": state.averaged, "memory": state.carry}


TOYS = {"walkers": Walkers, "adapters": Adapters, "memory": Memory}

if __name__ == "__main__":  # trains until it kills itself
    name, workdir, devices = sys.argv[1:]
    loop.make_mesh = lambda config: make_mesh(config, jax.devices()[: int(devices)])
    task = TOYS[name]()
    task.kill_at = 6
    loop.run(task, pathlib.Path(workdir), progress=False)
