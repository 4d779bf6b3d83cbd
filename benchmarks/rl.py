"""Speed of training by PPO on CartPole, side by side with Stable-Baselines3 and rejax.

    python benchmarks/rl.py [--rejax=venv/bin/python] [--seconds=10] [--save=rl]

All train networks of the same sizes on as many environments, with the same rollouts, epochs and
minibatches (those of `configs/ppo.py:cartpole`), one after the other and around again; but for
Stable-Baselines3 with its own defaults: one environment, rollouts of 2,048 steps, 10 epochs of
minibatches of 64. A rate is of environment steps in training, updates included, after what had to
be compiled. rejax pins versions of its own and is run by the Python of another virtual environment;
Stable-Baselines3 steps its environments in one process, as its `DummyVecEnv` does. What is missing
is said so.

Returns are of 100 episodes with the likeliest actions, of a policy that was not trained, and of
one that acts at random: what trained ones are to be compared with (`benchmarks/seeds.py`).
"""

from __future__ import annotations

import argparse
import functools
import json
import pathlib
import statistics
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from report import ROOT, Table, add_save_flag

from hrm_jax import tasks
from hrm_jax.compilation import jit
from hrm_jax.rl.rollout import episodes

sys.path.insert(0, str(ROOT / "configs"))

_REJAX = """
import json, sys, time, jax
from rejax import PPO
given = json.loads(sys.argv[1])
per = given["num_envs"] * given["num_steps"]
agent = PPO.create(env="CartPole-v1", total_timesteps=per * given["iterations"],
    eval_freq=per * given["iterations"], skip_initial_evaluation=True,
    agent_kwargs={"hidden_layer_sizes": given["hidden"], "activation": "tanh"},
    **{k: given[k] for k in ("num_envs", "num_steps", "num_epochs", "num_minibatches",
       "learning_rate", "gamma", "gae_lambda", "ent_coef", "max_grad_norm")})
agent = agent.replace(eval_callback=lambda *_: ())  # no evaluation, as in the others
state = agent.init_state(jax.random.key(0))
train = jax.jit(lambda state: agent.train(train_state=state)[0]).lower(state).compile()
rates, end = [], time.perf_counter() + given["seconds"]
while time.perf_counter() < end or not rates:
    start = time.perf_counter()
    state = jax.block_until_ready(train(state))
    rates.append(per * given["iterations"] / (time.perf_counter() - start))
print(json.dumps(sorted(rates)[len(rates) // 2]))
"""


def settings(config: Any) -> dict[str, Any]:
    """The numbers that all three share, under rejax' names."""
    return {
        "num_envs": config.batch_size,
        "num_steps": config.rollout_steps,
        "num_epochs": config.epochs,
        "num_minibatches": config.minibatches,
        "hidden": list(config.model.hidden),
        "learning_rate": config.optimizer.learning_rate,
        "gamma": config.gamma,
        "gae_lambda": config.gae_lambda,
        "ent_coef": config.entropy_weight,
        "max_grad_norm": config.optimizer.clip_norm,
        "iterations": config.iterations,
    }


def ours(config: Any, seconds: float) -> float:
    """Environment steps a second, median over steps of the loop."""
    task = tasks.build(config)
    state = jit(task.init)(jax.random.key(0))
    step = jit(task.step, donate_argnums=0).lower(state, {}).compile()
    each, rates = task.steps_per_environment * config.batch_size, []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not rates:
        start = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, {}))
        rates.append(each / (time.perf_counter() - start))
    return statistics.median(rates)


def stable_baselines(config: Any, seconds: float, defaults: bool = False) -> float | None:
    """The same of Stable-Baselines3, or with what it takes by default; None where it is not
    installed."""
    try:
        from stable_baselines3 import PPO
        from stable_baselines3.common.env_util import make_vec_env
    except ImportError:
        return None
    if defaults:
        agent = PPO("MlpPolicy", "CartPole-v1", device="cpu")
        return _rate_of(agent, agent.n_steps, seconds)
    steps = config.rollout_steps * config.batch_size
    agent = PPO(
        "MlpPolicy",
        make_vec_env("CartPole-v1", n_envs=config.batch_size),
        n_steps=config.rollout_steps,
        batch_size=steps // config.minibatches,
        n_epochs=config.epochs,
        learning_rate=config.optimizer.learning_rate,
        policy_kwargs={"net_arch": list(config.model.hidden)},
        device="cpu",
    )
    return _rate_of(agent, steps, seconds)


def _rate_of(agent: Any, steps: int, seconds: float) -> float:
    agent.learn(steps)
    rates, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or not rates:
        start = time.perf_counter()
        agent.learn(steps)
        rates.append(steps / (time.perf_counter() - start))
    return statistics.median(rates)


def rejax(python: str | None, config: Any, seconds: float) -> float | None:
    """The same of rejax in another Python; None where none is given."""
    if python is None:
        return None
    given = json.dumps({**settings(config), "seconds": seconds})
    done = subprocess.run([python, "-c", _REJAX, given], check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout))


def controls(config: Any) -> dict[str, float]:
    """Mean returns of policies that have learnt nothing."""
    task = tasks.build(config)
    weights = task.weights(jit(task.init)(jax.random.key(0)))
    key = jax.random.key(1)
    space, found = task.environment.action_space, {}
    policies = {
        "untrained": lambda seen: task.act(weights, seen),
        # What is seen differs from step to step, and so does what is drawn.
        "random": lambda seen: jax.vmap(space.sample)(
            jax.vmap(
                lambda x: jax.random.fold_in(key, jax.lax.bitcast_convert_type(x[0], jnp.int32))
            )(seen)
        ),
    }
    for name, act in policies.items():
        play = functools.partial(episodes, task.environment, act, number=100, max_steps=100_000)
        played = jit(play)(jax.random.key(0))
        found[name] = float(np.mean(played.total))
    return found


def main(argv: list[str] | None = None) -> None:
    import ppo  # the config file

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rejax", help="a Python that has rejax installed")
    parser.add_argument("--seconds", type=float, default=10, help="for each, in each round")
    parser.add_argument("--rounds", type=int, default=3)
    add_save_flag(parser)
    args = parser.parse_args(argv)
    if args.rejax and not pathlib.Path(args.rejax).is_file():
        parser.error(f"--rejax={args.rejax}: no such file")
    config = tasks.parse(ppo.get_config("cartpole").to_dict())
    programs = {
        "hrm_jax": ours,
        "Stable-Baselines3": stable_baselines,
        "Stable-Baselines3, its defaults": functools.partial(stable_baselines, defaults=True),
        "rejax": lambda config, seconds: rejax(args.rejax, config, seconds),
    }
    rates: dict[str, list[float | None]] = {name: [] for name in programs}
    for _ in range(args.rounds):
        for name, program in programs.items():
            rates[name].append(program(config, args.seconds))
    note = "Environment steps a second in training, median of each round; the ratio is of medians."
    table = Table("rl", "PPO on CartPole", ("program", "steps/s", "hrm_jax is", "rounds"), [note])
    mine = statistics.median(rates["hrm_jax"])
    for name, found in rates.items():
        if None in found:
            table.add(name, "not installed", "—", "—")
            continue
        median = statistics.median(found)
        told = ", ".join(f"{rate:,.0f}" for rate in found)
        table.add(name, f"{median:,.0f}", f"{mine / median:.1f}×", told)
    for name, value in controls(config).items():
        table.add(f"{name} policy, return of 100 episodes", f"{value:.1f}", "—", "—")
    table.save(args.save)


if __name__ == "__main__":
    main()
