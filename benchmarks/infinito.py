"""What λ does: INFINITO's language model trained with and without Φ in its objective.

    python benchmarks/infinito.py
    python benchmarks/infinito.py --lambdas=0,1 --seeds=0 --steps=50 --plot=plots/infinito.png
    python benchmarks/infinito.py --kind=nets --low=0.8 --lambdas=0,0.6 --save=infinito_nets
    python benchmarks/infinito.py --kept --plot=docs/assets/infinito.png    # of the kept table

Trains `configs/infinito_base.py:laptop` for each λ and seed, and tells of each λ the mean over
seeds and its 95% interval (Student's t): perplexity of held-out text, Φ as it is trained, Φ as it
is measured (geometric, under projections that no objective has seen) with its controls, memory in
use, what the memory saves, and what samples repeat; Φ in nats, but for the trained one by nets or
components, which is 0 to 1. The first row is the base before any training,
the second a network of the same sizes with random weights, in which the meter sees text alone.

If the trained Φ rises and the measured one does not, the note says so.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import scipy.stats
from matplotlib.figure import Figure
from report import FOLDER, Table, add_save_flag, read

from hrm_jax import experiment, tasks
from hrm_jax.compilation import run_in_main_thread
from hrm_jax.engine.language import LanguageModel
from hrm_jax.files import atomic_path
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
PANELS = {  # of the figure, and the columns in each
    "Φ trained": ("Φ trained",),
    "Φ measured, nats": ("Φ measured", "time shuffled", "permuted"),
    "perplexity of a byte": ("perplexity",),
    "share of repeated 4-grams": ("repeated",),
}


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
    parser.add_argument("--kind", default="gaussian", help="of the Φ that is trained (phi.kind)")
    parser.add_argument(
        "--low", type=float, help="end of the band (phi_low); default: the preset's"
    )
    parser.add_argument("--plot", type=pathlib.Path, help="file for a figure of the table")
    parser.add_argument("--kept", action="store_true", help="draw the kept table, train nothing")
    add_save_flag(parser)
    args = parser.parse_args(argv)
    if args.kept:
        given = {k for k, v in vars(args).items() if v != parser.get_default(k)}
        if given != {"kept", "plot"}:
            parser.error("--kept: expected --plot, and no other flag")
        kept = read(FOLDER / "infinito.json")
        draw(kept.columns, kept.rows, args.plot)
        return
    run_in_main_thread()
    config = tasks.file_config(_CONFIG, "laptop").to_dict()
    many = {"steps": args.steps, "batch_size": args.batch}
    many |= {"eval_every": args.steps, "checkpoint_every": args.steps}
    config |= {**many, "phi": {**config["phi"], "kind": args.kind}}
    if args.low is not None:
        config["phi_low"] = args.low
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
            if not value:
                given.pop("phi_low")  # there is no band
            with tempfile.TemporaryDirectory() as folder:
                result = experiment.train(given, folder, progress=False, base=base)
            rows.setdefault(f"λ {value:g}", []).append(row(dict(result.figures)))
            print(f"λ {value:g}, seed {seed}: {rows[f'λ {value:g}'][-1]}", flush=True)

    notes = [
        f"{jax.devices()[0].device_kind}; {args.steps} steps of {args.batch} texts, seeds "
        f"{args.seeds}; Φ trained by phi.kind={args.kind} above {config['phi_low']:g}.",
        *verdicts(rows),
    ]
    names = [*FIGURES, SAVED]
    title = "Φ in the objective" + (", by four learnt nets" if args.kind == "nets" else "")
    table = Table("infinito", title, ("", *(FIGURES.get(x, x) for x in names)), notes)
    for name, found in rows.items():
        table.add(name, *(interval([one[x] for one in found]) for x in names))
    if args.plot is not None:
        draw(table.columns, table.rows, args.plot)
    table.save(args.save)


def draw(columns: Sequence[str], rows: Sequence[Sequence[str]], path: pathlib.Path) -> None:
    """A figure of the table's rows of λ, with their intervals, and the base as a line."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    known = {row[0]: row for row in rows}
    lambdas = [name for name in known if name.startswith("λ")]
    at = [float(name.removeprefix("λ ")) for name in lambdas]
    for axes, (label, names) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
        for name, colour in zip(names, ("#0072b2", "#d55e00", "#009e73"), strict=False):
            column = columns.index(name)
            cells = [[float(x) for x in known[y][column].split("±")] for y in lambdas]
            half = [x[1] if len(x) > 1 else 0.0 for x in cells]
            axes.errorbar(
                at, [x[0] for x in cells], half, fmt="o-", color=colour, capsize=3, label=name
            )
        base = float(known["base"][columns.index(names[0])])
        axes.axhline(base, color="#555555", linestyle=":", label="base, untrained")
        axes.set(xlabel="λ", ylabel=label, xticks=at)
        axes.set_ylim(bottom=0, top=None if label.startswith("Φ") else 2 * base)
        axes.legend(frameon=False, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as made:
        figure.savefig(made, format="png", dpi=120)


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
