"""Makes a page to browse puzzles and a model's steps: launch/view.py --workdir=runs/sudoku."""

import argparse
import pathlib
import sys

from tqdm import tqdm

import hrm_jax
from hrm_jax.puzzles import PUZZLES
from hrm_jax.trained.browse import examples, loss_of_run, puzzle_of, trace_puzzles
from hrm_jax.training.checkpoints import CheckpointError
from hrm_jax.training.workdir import checkpoint
from hrm_jax.viz.page import KINDS, MAX_EXAMPLES, write_page

_WITH_MODEL = 200  # puzzles by default, if a model thinks about each


def _write(args: argparse.Namespace) -> pathlib.Path:
    if not (args.workdir or args.dataset):
        raise ValueError("give --workdir (a run), --dataset (a folder or CSV file) or both")
    for name in ("num", "max_steps"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name}: expected at least 1, got {value}")
    output = pathlib.Path(args.output)
    if output.is_dir():
        raise ValueError(f"--output={output}: is a folder; expected the name of an .html file")
    model = hrm_jax.load(args.workdir, args.checkpoint) if args.workdir else None
    puzzle = PUZZLES.get(args.kind) or puzzle_of(args.workdir, args.dataset)
    puzzles, names = examples(args.workdir, args.dataset, args.split, puzzle)
    num = min(len(puzzles), args.num or (_WITH_MODEL if model else MAX_EXAMPLES))
    if num > MAX_EXAMPLES:
        raise ValueError(f"--num={num}: a page shows up to {MAX_EXAMPLES} puzzles")
    steps = None
    if model:
        meta, config = puzzles.metadata, model.config
        if (meta.seq_len, meta.vocab_size) != (config.seq_len, config.vocab_size):
            raise ValueError(
                f"{args.dataset}: {meta.seq_len} tokens of a vocabulary of {meta.vocab_size}, but "
                f"the model was trained on {config.seq_len} of {config.vocab_size}"
            )
        identifiers = puzzles.example_identifiers()[:num]
        if (identifiers >= config.num_puzzle_identifiers).any():
            raise ValueError(
                f"{args.dataset}: puzzle identifier {identifiers.max()} is not one of the "
                f"{config.num_puzzle_identifiers} that the model knows"
            )
        with tqdm(total=num, desc="thinking", unit="puzzle", disable=None) as bar:
            steps = trace_puzzles(
                config,
                model.variables,
                puzzles.inputs[:num],
                identifiers,
                max_steps=args.max_steps or model.max_steps,
                halting=args.halting,
                loss=loss_of_run(args.workdir),
                progress=lambda done: bar.update(done - bar.n),
            )
    source = " on ".join(str(x) for x in (args.workdir, args.dataset) if x)
    title = args.title or f"{source}, {args.split} puzzles"
    kind = args.kind or (puzzle.name if puzzle else None)
    return write_page(output, puzzles, steps, num=num, kind=kind, title=title, names=names)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", help="a run: shows what its model thinks")
    parser.add_argument(
        "--dataset", help="data set folder or CSV file; default: the run's own puzzles"
    )
    parser.add_argument("--split", choices=("train", "test"), default="test")
    parser.add_argument(
        "--num", type=int, help=f"the first so many; default {_WITH_MODEL}, or all without a run"
    )
    parser.add_argument(
        "--checkpoint", type=checkpoint, default="last", help="last, best or a step"
    )
    parser.add_argument("--max_steps", type=int, help="ACT steps; may exceed that of training")
    parser.add_argument("--halting", choices=("q", "fixed"), default="q")
    parser.add_argument(
        "--kind",
        choices=KINDS,
        help="what the tokens mean; default: guessed from length and vocabulary",
    )
    parser.add_argument("--title", help="heading of the page")
    parser.add_argument("--output", default="view.html")
    args = parser.parse_args(argv)
    try:
        path = _write(args).resolve()
    except (ValueError, OSError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(path)
    print(f"Open it in a browser: {path.as_uri()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
