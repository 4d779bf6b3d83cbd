"""The learnt schedule of a language model's training against those that nobody has to learn.

    python benchmarks/scheduler.py
    python benchmarks/scheduler.py --seeds=0,1 --rewards=balance --runs=runs/schedulers

Trains `configs/infinito_scheduler.py:laptop` for each of the guide's rewards and each seed, in
`--runs`, where runs that are there already go on or are taken as they are. All policies are then
tried on the same unseen orders of the text; one that nobody learns does the same whatever the
reward is, so its episodes are run once and counted three times. Intervals are 95% of the mean over
the orders (Student's t), of a learnt schedule after taking the mean over its training seeds; of
those, the interval of the mean over the seeds is told too, and their range.
"""

from __future__ import annotations

import argparse
import pathlib
import tempfile
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from report import Table, add_save_flag

from hrm_jax import experiment, tasks
from hrm_jax.compilation import divide_cpu, run_in_main_thread
from hrm_jax.tasks.infinito import comparison
from hrm_jax.tasks.infinito.environment import REWARDS
from hrm_jax.tasks.infinito.policies import DRAWN, FROZEN, LEARNT, POLICIES
from hrm_jax.tasks.infinito.scheduler import SchedulerTask
from hrm_jax.trained.load import read_base
from hrm_jax.training.sharding import make_mesh

_CONFIG = pathlib.Path(__file__).parents[1] / "configs" / "infinito_scheduler.py"
_TOLD = ("perplexity", "phi_objective", "phi_meter", "memory_use")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rewards", default=",".join(REWARDS), help="commas between")
    parser.add_argument("--seeds", default="0,1,2,3,4", help="commas between")
    parser.add_argument("--steps", type=int, default=0, help="0 for the preset's")
    parser.add_argument("--runs", default="", help="folder for the runs; '' throws them away")
    add_save_flag(parser)
    args = parser.parse_args(argv)
    run_in_main_thread()
    config = tasks.file_config(_CONFIG, "laptop").to_dict() | {"policies": ()}
    if args.steps:
        config |= dict.fromkeys(("steps", "eval_every", "checkpoint_every"), args.steps)
    divide_cpu(config["mesh"]["cpu_devices"])
    base = read_base(config["language"]["model"])
    seeds, names = [int(x) for x in args.seeds.split(",")], args.rewards.split(",")
    learnt: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as made:
        for name in names:
            for seed in seeds:
                folder = pathlib.Path(args.runs or made) / f"{name}_{seed}"
                given = {**config, "reward": name, "seed": seed}
                result = experiment.train(given, folder, progress=False, base=base)
                learnt[name].append(dict(result.figures))
                print(f"{name}, seed {seed}: {result.figures['eval/return']:.2f}", flush=True)

    task = SchedulerTask(tasks.parse(config), base=base)
    mesh = make_mesh()
    frozen = task.frozen(lambda x: jax.device_put(x, NamedSharding(mesh, PartitionSpec())))
    with jax.set_mesh(mesh):
        rows = [task.row(name, frozen) for name in (*POLICIES, FROZEN)]
    notes = [
        f"{jax.devices()[0].device_kind}; {config['steps']} rollouts of {config['rollout_steps']} "
        f"steps of {config['batch_size']} environments, training seeds {args.seeds}; returns of "
        f"{config['eval_episodes']} unseen orders, {config['max_steps']} steps each."
    ]
    columns = (
        "reward",
        "policy",
        "return",
        "95% interval",
        "over the seeds: 95%; range",
        "perplexity of a byte",
    )
    table = Table(
        "scheduler",
        "Schedules of a language model's training",
        (*columns, "Φ (0 to 10)", "Φ measured", "memory in use"),
        notes,
    )
    for name in names:
        entries = [comparison.entry(x, name, task.returns(x, REWARDS[name])) for x in rows]
        for policy, how in ((LEARNT, ""), (DRAWN, "_drawn")):
            by_seed = np.array([x[f"eval/returns{how}"] for x in learnt[name]])
            means = by_seed.mean(axis=1)
            told = [comparison.interval(means)] if len(means) > 1 else []
            told += [(means.min(), means.max())]
            entries.append(
                {
                    "name": policy,
                    "mean": float(by_seed.mean()),
                    "interval": comparison.interval(by_seed.mean(axis=0)),
                    "seeds": "; ".join(f"{low:.2f} to {high:.2f}" for low, high in told),
                    **{x: np.mean([y[f"eval/{x}{how}"] for y in learnt[name]]) for x in _TOLD},
                }
            )
        table.notes += [f"{name}: {x}" for x in comparison.verdict(entries)]
        for one in sorted(entries, key=lambda x: -x["mean"]):
            low, high = one["interval"]
            table.add(
                *(name, one["name"], f"{one['mean']:.2f}", f"{low:.2f} to {high:.2f}"),
                one.get("seeds", ""),
                *(f"{one['perplexity']:.3f}", f"{one['phi_objective']:.2f}"),
                *(f"{one['phi_meter']:.4f}", f"{one['memory_use']:.0%}"),
            )
    print("", *table.notes[1:], sep="\n")
    table.save(args.save)


if __name__ == "__main__":
    main()
