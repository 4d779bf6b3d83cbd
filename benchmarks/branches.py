"""What adapters of branches do for their own branch, and what those of other branches do for it.

    python launch/train_branch.py --all --lora
    python launch/train_branch.py --branch physics --lora --lr=1e-12 --output=var/control
    python benchmarks/branches.py --control=var/control

Reads `var/central_models/<branch>/current` (or --models) and answers, for each branch, with the
held-out records of its training: nats per token of the answers for the model alone, with the
branch's own adapter, and with each of the others. The settings of `configs/branch.py` were chosen
on physics, which is why the means are told without it too. The control was trained at a learning
rate of next to 0: its B is 0, and it must be where the model alone is.
"""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

import jax
import numpy as np
from report import Table, add_save_flag

from hrm_jax.branches import CONFIG, METRICS
from hrm_jax.compilation import run_in_main_thread
from hrm_jax.data.text.branches import packaged_branches
from hrm_jax.engine.language import LanguageModel
from hrm_jax.files import read_json
from hrm_jax.interop.peft import load_adapter
from hrm_jax.layers import lora
from hrm_jax.tasks.language.instruct import InstructTask
from hrm_jax.tasks.language.instruct_config import InstructConfig, InstructData
from hrm_jax.trained.load import read_base

CHOSEN_ON = "physics"
COLUMNS = (
    *("branch", "model alone", "own adapter", "change", "others' mean", "others' best"),
    *("others that are better", "answers that end", "seconds"),
)


def held_out(settings: dict[str, Any], base: LanguageModel) -> tuple[InstructTask, Any]:
    """The held-out records of a training, and the task that scores them."""
    given = settings["training_params"]
    root = pathlib.Path(settings["data_path"]).parents[2]
    where = "" if root == packaged_branches() else str(root)
    data = InstructData(
        branch=settings["branch"],
        root=where,
        held_out=given["held_out"],
        length=given["max_seq_length"],
    )
    sizes = {"batch_size": given["batch_size"]}
    config = InstructConfig(task="instruct", model=settings["model"], data=data, **sizes)
    task = InstructTask(config, base=base)
    return task, task.held_out()[0]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="var/central_models", help="folder of the branches")
    parser.add_argument("--control", help="the output of a training whose B stays 0")
    add_save_flag(parser)
    args = parser.parse_args(argv)
    run_in_main_thread()

    folders = sorted(x.parent for x in pathlib.Path(args.models).glob(f"*/current/{METRICS}"))
    if len(folders) < 2:
        parser.error(f"--models: {args.models}: expected the branches of train_branch.py --all")
    settings = {x.parent.name: read_json(x / CONFIG) for x in folders}
    metrics = {x.parent.name: read_json(x / METRICS) for x in folders}
    models = sorted({x["model"] for x in settings.values()})
    if len(models) > 1:
        parser.error(f"--models: {args.models}: trained from {' and '.join(models)}, expected one")
    base = read_base(models[0])
    params = base.variables["params"]

    def adapters(folder: pathlib.Path) -> Any:
        config, trained = load_adapter(folder, params)
        return lora.variables(config, params, trained)["lora"]

    known = {x.parent.name: adapters(x) for x in folders}
    names = list(known)
    alone, losses = np.zeros(len(names)), np.zeros((len(names), len(names)))
    for row, name in enumerate(names):
        task, batch = held_out(settings[name], base)
        alone[row] = task.mean_loss(params, None, batch)
        losses[row] = [task.mean_loss(params, known[x], batch) for x in names]
        if abs(losses[row, row] - metrics[name]["eval/loss"]) > 1e-3:
            raise SystemExit(f"{name}: {losses[row, row]}, but its training said {metrics[name]}")

    own = np.diagonal(losses)
    apart = ~np.eye(len(names), dtype=bool)
    others = np.array([losses[i, apart[i]] for i in range(len(names))])
    better = (others < own[:, None]).sum(axis=1)
    unseen = np.array([name != CHOSEN_ON for name in names])
    ends = np.array([metrics[name]["eval/stops"] for name in names])
    notes = [
        f"{jax.devices()[0].device_kind}; nats per token of the held-out answers. Better than the "
        f"model alone: {(own < alone).sum()} of {len(names)} branches; own adapter the best of "
        f"all: {(better == 0).sum()}; better than the mean of the others: "
        f"{(own < others.mean(axis=1)).sum()}; better than another branch's adapter: "
        f"{(others > own[:, None]).mean():.1%} of all pairs.",
        f"Without {CHOSEN_ON}, on which the settings were chosen: {alone[unseen].mean():.3f} to "
        f"{own[unseen].mean():.3f} ({(own[unseen] / alone[unseen] - 1).mean():+.1%}), "
        f"{ends[unseen].mean():.1%} of answers end by themselves.",
    ]
    table = Table("branches", f"{len(names)} branches", COLUMNS, notes)
    for row, name in enumerate(names):
        table.add(
            name,
            f"{alone[row]:.3f}",
            f"{own[row]:.3f}",
            f"{own[row] / alone[row] - 1:+.1%}",
            f"{others[row].mean():.3f}",
            f"{others[row].min():.3f}",
            int(better[row]),
            f"{ends[row]:.0%}",
            f"{metrics[name]['seconds']:.0f}",
        )
    if args.control:
        folder = pathlib.Path(args.control) / "current"
        found, said = read_json(folder / METRICS), read_json(folder / CONFIG)
        task, batch = held_out(said, base)
        loss = task.mean_loss(params, adapters(folder), batch)
        before = task.mean_loss(params, None, batch)
        table.add(
            f"control ({said['branch']})",
            f"{before:.3f}",
            f"{loss:.3f}",
            f"{loss / before - 1:+.1%}",
            *("", "", ""),
            f"{found['eval/stops']:.0%}",
            f"{found['seconds']:.0f}",
        )
    table.save(args.save)


if __name__ == "__main__":
    main()
