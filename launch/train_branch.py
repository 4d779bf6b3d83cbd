"""Adapts a language model to branches of knowledge: train_branch.py --branch physics --lora."""

from __future__ import annotations

import argparse
import logging
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax

from hrm_jax import tasks
from hrm_jax.branches import InterruptedTraining, Trained, train_branch
from hrm_jax.compilation import run_in_main_thread
from hrm_jax.data.text.branches import branch_names, inspect_branch, packaged_branches
from hrm_jax.fields import ConfigError
from hrm_jax.paths import expanded
from hrm_jax.trained.load import read_base
from hrm_jax.trained.pretrained import PRETRAINED
from hrm_jax.training.checkpoints import CheckpointError, hear_one_error
from hrm_jax.training.loop import NonFiniteError

_CONFIG = pathlib.Path(__file__).parents[1] / "configs" / "branch.py"
_ERRORS = (ValueError, OSError, ImportError, CheckpointError, NonFiniteError)
_COLUMNS = ("eval/base_loss", "eval/loss", "eval/base_perplexity", "eval/perplexity", "eval/stops")


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__)
    what = found.add_mutually_exclusive_group(required=True)
    what.add_argument("--list-branches", action="store_true", help="list what there is, and end")
    what.add_argument("--branch", help="the branch to train")
    what.add_argument("--all", action="store_true", help="train all branches, one after the other")
    found.add_argument("--only", help="of --all: these alone, commas between")
    found.add_argument("--skip", help="of --all: all but these")
    found.add_argument("--root", type=expanded, help="folder of the branches; default: packaged")
    found.add_argument(
        "--model",
        type=expanded,
        default="spanish-gpt2",
        help="folder of Hugging Face's, workdir, or the name of a packaged model (the default)",
    )
    found.add_argument("--lora", action="store_true", help="train adapters, not all weights")
    found.add_argument("--epochs", type=int, help="default 3, of the packaged model more")
    found.add_argument("--batch-size", type=int, help="rows of a step")
    found.add_argument("--lr", type=float, help="learning rate; default 2e-4, of the packaged more")
    found.add_argument("--max-seq-length", type=int, help="tokens of a row")
    found.add_argument(
        "--output",
        type=expanded,
        help="default var/central_models/<branch>; of --all the folder above",
    )
    found.add_argument("--logs", type=expanded, default="var/central_logs", help="folder of logs")
    found.add_argument("--resume", action="store_true", help="go on, and leave what is finished")
    found.add_argument("--merged", action="store_true", help="write the merged model too")
    found.add_argument("--quick-test", action="store_true", help="then show held-out answers")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 1 where a branch failed, 2 for bad input."""
    args = parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout, force=True)
    logging.getLogger("hrm_jax").setLevel(logging.INFO)
    hear_one_error()
    try:
        refuse_unused(args)
        root = pathlib.Path(args.root) if args.root else packaged_branches()
        if args.list_branches:
            return list_branches(root)
        if args.all:
            return train_all(args, chosen(branch_names(root), args.only, args.skip))
        trained = train(
            args, args.branch, pathlib.Path(args.output or f"var/central_models/{args.branch}")
        )
    except InterruptedTraining as error:
        print("Saved. To go on, run the same command with --resume.")
        return 128 + int(error.args[0])
    except _ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    show([trained], {})
    return 0


def refuse_unused(args: argparse.Namespace) -> None:
    """A flag that another one leaves without effect is an error."""
    for name in ("only", "skip"):
        if getattr(args, name) is not None and not args.all:
            raise ConfigError(f"--{name}: has no effect without --all")
    if args.merged and not args.lora:
        raise ConfigError("--merged: has no effect without --lora: the model itself is trained")
    if args.list_branches:
        usual = parser().parse_args(["--list-branches"])
        for name, value in vars(args).items():
            if name != "root" and value != getattr(usual, name):
                raise ConfigError(f"--{name.replace('_', '-')}: has no effect: branches are listed")


def list_branches(root: pathlib.Path) -> int:
    """Prints a table; returns 1 where a branch cannot be used."""
    wrong = []
    print(f"{'branch':28}{'files':>6}{'rows':>8}{'unique':>8}{'invalid':>9}{'bytes':>12}")
    for name in branch_names(root):
        try:
            x = inspect_branch(root, name)
        except _ERRORS as error:
            print(f"{name:28}{'cannot be read':>25}")
            wrong.append(str(error))
            continue
        found = x.found
        print(
            f"{name:28}{x.files:>6}{found.rows:>8}{len(found):>8}{len(found.invalid):>9}{x.bytes:>12}"
        )
        wrong += found.invalid[:1]
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def chosen(names: list[str], only: str | None, skip: str | None) -> list[str]:
    """The branches of --all."""
    for flag, given in (("--only", only), ("--skip", skip)):
        unknown = [x for x in (given or "").split(",") if x and x not in names]
        if unknown:
            raise ConfigError(
                f"{flag}: there is no branch {unknown[0]!r}; known: {', '.join(names)}"
            )
    kept = [x for x in names if not only or x in only.split(",")]
    kept = [x for x in kept if not skip or x not in skip.split(",")]
    if not kept:
        raise ConfigError("--only and --skip: leave no branch to train")
    return kept


def configuration(args: argparse.Namespace, branch: str) -> dict[str, Any]:
    """That of configs/branch.py, with what the flags say."""
    preset = ("laptop" if args.model in PRETRAINED else "paper") + ("" if args.lora else "_full")
    config = tasks.file_config(_CONFIG, preset)
    config.model, config.data.branch = args.model, branch
    if args.root:
        config.data.root = args.root
    if args.epochs is not None:
        config.epochs = args.epochs
    if args.batch_size is not None:
        config.batch_size = args.batch_size
    if args.lr is not None:
        config.optimizer.learning_rate = args.lr
    if args.max_seq_length is not None:
        config.data.length = args.max_seq_length
    values: dict[str, Any] = config.to_dict()
    return values


def train(args: argparse.Namespace, branch: str, output: pathlib.Path, base: Any = None) -> Trained:
    trained = train_branch(
        configuration(args, branch),
        output,
        args.logs,
        base=base,
        resume=args.resume,
        merged=args.merged,
        samples=args.quick_test,
        progress=sys.stderr.isatty(),
    )
    if args.quick_test:
        known = f"{branch}: was trained already; answers are shown after a training"
        print("\n".join(trained.samples) if trained.new else known)
    return trained


def train_all(args: argparse.Namespace, names: list[str]) -> int:
    """Trains branches in this process; the model is read once, and programs are compiled once."""
    done: list[Trained] = []
    failed: dict[str, str] = {}
    base = read_base(args.model)
    start = time.perf_counter()
    for number, name in enumerate(names, 1):
        print(f"[{number}/{len(names)}] {name}", flush=True)
        try:
            output = pathlib.Path(args.output or "var/central_models") / name
            done.append(train(args, name, output, base))
        except InterruptedTraining:
            show(done, failed)
            raise
        except (*_ERRORS, jax.errors.JaxRuntimeError) as error:
            failed[name] = str(error)
            print(f"{name}: error: {error}", file=sys.stderr)
    show(done, failed)
    print(f"{len(done)} trained, {len(failed)} failed, {time.perf_counter() - start:.0f} s")
    return 1 if failed else 0


def show(done: Sequence[Trained], failed: dict[str, str]) -> None:
    """Prints the summary."""
    titles = ("base loss", "loss", "base ppl", "ppl", "stops", "seconds")
    print(f"{'branch':28}" + "".join(f"{title:>11}" for title in titles))
    for x in done:
        values = [*(x.metrics[name] for name in _COLUMNS), x.metrics["seconds"]]
        note = "" if x.new else "   (was trained already)"
        print(f"{x.branch:28}" + "".join(f"{value:11.3f}" for value in values) + note)
    for name, error in failed.items():
        print(f"{name:28}   failed: {error.splitlines()[0]}")
    if done:
        print("\n".join(["Written:", *(f"  {x.folder}" for x in done if x.new)]))


if __name__ == "__main__":
    run_in_main_thread()
    sys.exit(main())
