"""What more thinking is worth: a table of figures for the same weights, with what they cost.

    python benchmarks/better_answers.py --workdir=runs/a --workdir=runs/hints --data=hard.csv \\
        --max_steps=32 --votes=8 --last=3

For each run, on the same puzzles: plain answers; more ACT steps than the run evaluates with; votes
under random symmetries; only those votes that obey the rules; the newest checkpoints voting
together. Passes are ACT steps of all votes together, mean over the puzzles.
Runs are named by their folders, trained with hints or not. Without --data, each run is evaluated on
its own test puzzles.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from report import Table, add_save_flag

from hrm_jax.trained.evaluate import evaluate
from hrm_jax.training.workdir import read_config

COLUMNS = ("run", "answers", "puzzles solved", "blanks right", "passes a puzzle", "puzzles")


def rows_of(
    workdir: str, data: str | None, options: Mapping[str, Any]
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Evaluates one run in every way: what was done, the prefix of its figures, the figures.

    Args:
        workdir: The run's folder.
        data: Puzzles to evaluate on, None for the run's own.
        options: max_steps, votes and last as of the command line; limit, slots and halting.
    """
    common = {name: options[name] for name in ("limit", "slots", "halting")}
    more, votes, last = options["max_steps"], options["votes"], options["last"]
    ways = [
        ("", {"votes": votes}),
        (f", at most {more} steps", {"votes": votes, "max_steps": more}),
    ]
    if last > 1:
        ways.append((f" × {last} checkpoints", {"last": last}))
        every = {"votes": votes, "last": last, "max_steps": more}
        ways.append((f" × {last} checkpoints, at most {more} steps", every))
    for note, way in ways:
        figures = evaluate(workdir, data, verify=True, **way, **common)
        if "last" not in way:
            yield f"plain{note}", "eval", figures
        if "voted/votes" in figures:
            name = f"{way.get('votes', 1)} votes{note}"
            yield name, "voted", figures
            yield f"{name}, verified", "verified", figures


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", action="append", required=True, help="may be given again")
    parser.add_argument("--data", help="CSV file or data set folder")
    parser.add_argument("--max_steps", type=int, default=32, help="ACT steps beyond the usual")
    parser.add_argument("--votes", type=int, default=8)
    parser.add_argument("--last", type=int, default=1, help="checkpoints that vote together")
    parser.add_argument("--limit", type=int, help="only the first so many puzzles")
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--halting", choices=("q", "fixed"), default="q")
    add_save_flag(parser)
    args = parser.parse_args(argv)
    puzzles = args.data or "each run's own test puzzles"
    table = Table("better_answers", "What more thinking is worth", COLUMNS, [f"On {puzzles}."])
    for workdir in args.workdir:
        hints = read_config(workdir)["data"].get("hints", 0)
        name = pathlib.Path(workdir).name + (f" (hints {hints:g})" if hints else "")
        for what, prefix, figures in rows_of(workdir, args.data, vars(args)):
            table.add(
                name,
                what,
                f"{figures[f'{prefix}/exact_accuracy']:.2%}",
                f"{figures[f'{prefix}/blank_accuracy']:.2%}",
                f"{figures[f'{prefix}/steps']:.1f}",
                f"{figures['eval/puzzles']:,}",
            )
    table.save(args.save)


if __name__ == "__main__":
    main()
