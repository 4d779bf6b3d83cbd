"""What λ does: INFINITO's language model trained with and without Φ in its objective.

    python benchmarks/infinito.py
    python benchmarks/infinito.py --lambdas=0,1 --seeds=0 --steps=50

Trains `configs/infinito_base.py:laptop` for each λ and seed, and tells of each λ the mean over
seeds and its 95% interval (Student's t): perplexity of held-out text, Φ as it is trained, Φ as it
is measured (geometric, under projections that no objective has seen) with its controls, memory in
use, what the memory saves, and what samples repeat. The first row is the base before any training,
the second a network of the same sizes with random weights, in which the meter sees text alone.

If the trained Φ rises and the measured one does not, the note says so.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import pathlib
import tempfile
from typing import Any

import jax
import numpy as np
import scipy.stats
from report import Table, add_save_flag

from hrm_jax import experiment, tasks
from hrm_jax.compilation import run_in_main_thread
from hrm_jax.engine.language import LanguageModel
from hrm_jax.models import language
from hrm_jax.tasks.infinito.task import InfinitoTask
from hrm_jax.trained.load import read_base

_CONFIG = pathlib.Path(__file__).parents[1] / "configs" / "infinito_base.py"
FIGURES = {
    "perplexity": "perplexity",
    "phi_objective": "Φ trained",
    "phi_meter": "Φ measured",
    "phi_meter_time_shuffled": "time shuffled",
    "phi_meter_permuted": "permuted",
    "phi_meter_gaussian": "Gaussian",
    "phi_meter_rescaled": "rescaled",
    "o_information": "O-information",
    "memory_use": "memory in use",
    "repetition": "repeated",
}
SAVED = "memory saves, bits/byte"


def preset() -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("infinito_base", _CONFIG)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    values: dict[str, Any] = module.get_config("laptop").to_dict()
    return values


def row(figures: dict[str, Any]) -> dict[str, float]:
    found = {name: float(figures[f"eval/{name}"]) for name in FIGURES}
    return {**found, SAVED: figures["eval/bits_per_byte_no_memory"] - figures["eval/bits_per_byte"]}


def interval(values: list[float]) -> str:
    """The mean and half of its 95% interval."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:.4f}"
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * scipy.stats.sem(values)
    return f"{mean:.4f} ± {half:.4f}"


def untrained(config: dict[str, Any], base: LanguageModel) -> dict[str, Any]:
    """Figures before any training."""
    task = InfinitoTask(tasks.parse(config), base=base)
    state = task.init(jax.random.key(0))
    return dict(task.evaluate(state.replace(frozen=base.variables["params"])))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lambdas", default="0,0.3,0.6,1.0", help="commas between")
    parser.add_argument("--seeds", default="0,1,2", help="commas between")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch", type=int, default=8, help="texts of a step")
    add_save_flag(parser)
    args = parser.parse_args(argv)
    run_in_main_thread()
    config = preset()
    many = {"steps": args.steps, "batch_size": args.batch}
    many |= {"eval_every": args.steps, "checkpoint_every": args.steps}
    config |= many
    base = read_base(config["model"])
    random = language.init(base.config, jax.random.key(1))
    alone = {
        "base": row(untrained(config, base)),
        "random weights": row(
            untrained(config, dataclasses.replace(base, variables={"params": random}))
        ),
    }
    rows: dict[str, list[dict[str, float]]] = {name: [one] for name, one in alone.items()}
    for value in map(float, args.lambdas.split(",")):
        for seed in map(int, args.seeds.split(",")):
            given = {**config, "lambda_phi": value, "seed": seed}
            with tempfile.TemporaryDirectory() as folder:
                result = experiment.train(given, folder, progress=False, base=base)
            rows.setdefault(f"λ {value:g}", []).append(row(dict(result.figures)))
            print(f"λ {value:g}, seed {seed}: {rows[f'λ {value:g}'][-1]}", flush=True)

    notes = [
        f"{jax.devices()[0].device_kind}; {args.steps} steps of {args.batch} texts, seeds "
        f"{args.seeds}; nats, but for the perplexity of a byte.",
        *verdicts(rows),
    ]
    names = [*FIGURES, SAVED]
    table = Table(
        "infinito", "Φ in the objective", ("", *(FIGURES.get(x, x) for x in names)), notes
    )
    for name, found in rows.items():
        table.add(name, *(interval([one[x] for one in found]) for x in names))
    table.save(args.save)


def verdicts(rows: dict[str, list[dict[str, float]]]) -> list[str]:
    """Whether what is measured follows what is trained, by seeds side by side."""
    plain = rows.get("λ 0")
    found = []
    for name, ones in rows.items():
        if plain is None or not name.startswith("λ") or name == "λ 0" or len(ones) < 2:
            continue
        trained, measured, lost = (
            [one[x] - other[x] for one, other in zip(ones, plain, strict=True)]
            for x in ("phi_objective", "phi_meter", "perplexity")
        )
        half = scipy.stats.t.ppf(0.975, len(ones) - 1) * scipy.stats.sem(measured)
        rises = np.mean(measured) - half > 0
        follows = "rises with it" if rises else "does not rise with it"
        found.append(
            f"{name} against λ 0, seed by seed: Φ trained {interval(trained)}, Φ measured "
            f"{interval(measured)}, which {follows}; perplexity {interval(lost)}."
        )
    return found


if __name__ == "__main__":
    main()
