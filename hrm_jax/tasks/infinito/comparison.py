"""A learnt schedule beside those that nobody has to learn: `scheduler.json`."""

from __future__ import annotations

import json
import logging
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.stats

from hrm_jax.files import write_text
from hrm_jax.tasks.infinito.environment import MODES
from hrm_jax.tasks.infinito.policies import DRAWN, FROZEN, LEARNT, Row

if TYPE_CHECKING:
    from hrm_jax.tasks.infinito.scheduler import SchedulerTask

log = logging.getLogger("hrm_jax")

FILE = "scheduler.json"
_COLUMNS = ("policy", "return", "95% interval", "perplexity", "Φ (0-10)", "Φ measured", "memory")


def interval(values: npt.ArrayLike) -> tuple[float, float]:
    """95% of the mean (Student's t)."""
    given = np.asarray(values, np.float64)
    half = scipy.stats.t.ppf(0.975, len(given) - 1) * scipy.stats.sem(given)
    return float(given.mean() - half), float(given.mean() + half)


def entry(found: Row, reward: str, returns: npt.NDArray[Any]) -> dict[str, Any]:
    """A row as `scheduler.json` has it."""
    shares = [float(np.mean(found.actions == number)) for number in range(len(MODES))]
    return {
        "name": found.name,
        "reward": reward,
        "mean": float(returns.mean()),
        "interval": list(interval(returns)),
        "returns": returns.tolist(),
        **{name: float(values.mean()) for name, values in found.finals.items()},
        "actions": None if found.name == FROZEN else dict(zip(MODES, shares, strict=True)),
    }


def table(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines with a row for each entry, the best first."""
    lines = [
        f"  {_COLUMNS[0]:<12} {_COLUMNS[1]:>8} {_COLUMNS[2]:>18} "
        + " ".join(f"{x:>11}" for x in _COLUMNS[3:])
    ]
    for one in sorted(entries, key=lambda x: -x["mean"]):
        low, high = one["interval"]
        lines.append(
            f"  {one['name']:<12} {one['mean']:>8.2f} {f'{low:.2f} to {high:.2f}':>18} "
            f"{one['perplexity']:>11.3f} {one['phi_objective']:>11.2f} "
            f"{one['phi_meter']:>11.4f} {one['memory_use']:>11.0%}"
        )
    return lines


def verdict(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the learnt schedule, by its likeliest actions and drawn, beats with intervals apart, and
    what it does not."""
    others = [x for x in entries if x["name"] not in (LEARNT, DRAWN)]
    lines = []
    for own in (x for x in entries if x not in others):
        kinds: dict[str, list[str]] = {"better than": [], "worse than": [], "not apart from": []}
        for one in others:
            if own["interval"][0] > one["interval"][1]:
                kinds["better than"].append(one["name"])
            elif own["interval"][1] < one["interval"][0]:
                kinds["worse than"].append(one["name"])
            else:
                kinds["not apart from"].append(one["name"])
        told = [f"{kind} {', '.join(names)}" for kind, names in kinds.items() if names]
        lines += [f"{own['name']} is {'; '.join(told)}."] if told else []
    return lines


def compare(task: SchedulerTask, learnt: Sequence[Row], frozen: Any, folder: pathlib.Path) -> str:
    """Tries the other policies on the same orders, writes `scheduler.json`, and says what came of
    it."""
    config = task.config
    entries = [entry(x, config.reward, task.returns(x)) for x in learnt]
    given = {"orders": config.eval_episodes, "eval_seed": config.eval_seed, "policies": entries}

    def write() -> None:  # after each, for they take a while and may be interrupted
        write_text(folder / FILE, json.dumps(given, indent=2, ensure_ascii=False) + "\n")

    write()
    for name in config.policies:
        log.info("Comparing with the policy %s.", name)
        found = task.row(name, frozen)
        entries.append(entry(found, config.reward, task.returns(found)))
        write()
    run, weights_file = (shlex.quote(str(x)) for x in (folder, folder / "policy.safetensors"))
    return "\n".join(
        [
            f"Return on {config.eval_episodes} unseen orders of the text ({config.reward}), and "
            "what was trained:",
            *table(entries),
            *verdict(entries),
            "",
            f"Files: {folder}/{FILE}, metrics.jsonl, plots/, checkpoints/, best/, config.json",
            "Next:",
            f"  python launch/analyze.py --workdir={run}",
            f"  python launch/play.py --workdir={run}",
            f"  python launch/export.py --workdir={run} --format=safetensors "
            f"--output={weights_file}",
        ]
    )
