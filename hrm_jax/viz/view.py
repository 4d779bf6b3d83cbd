"""A page to browse puzzles and what a model thinks of them."""

from __future__ import annotations

import os
import pathlib

from tqdm import tqdm

from hrm_jax.models.act import Halting
from hrm_jax.paths import path_of
from hrm_jax.puzzles import PUZZLES
from hrm_jax.trained.browse import examples, puzzle_of, trace_puzzles
from hrm_jax.trained.load import load
from hrm_jax.viz.page import MAX_EXAMPLES, write_page

WITH_MODEL = 200  # puzzles by default, if a model thinks about each


def write_view(
    output: str | os.PathLike[str],
    workdir: str | os.PathLike[str] | None = None,
    dataset: str | os.PathLike[str] | None = None,
    *,
    split: str = "test",
    num: int | None = None,
    checkpoint: str | int = "last",
    max_steps: int | None = None,
    halting: Halting = "q",
    kind: str | None = None,
    title: str | None = None,
) -> pathlib.Path:
    """Writes one HTML file that needs neither server nor network; returns its path.

    Args:
        output: File to write, atomically.
        workdir: A run, whose model thinks about each puzzle; None shows the puzzles alone.
        dataset: Data set folder or CSV file; None takes the run's own puzzles.
        split: "train" or "test".
        num: The first so many; by default 200, or all without a run.
        checkpoint: As in `load`.
        max_steps: ACT steps; may exceed those of training.
        halting: As in `evaluate`.
        kind: What the tokens mean, one of `hrm_jax.viz.page.KINDS`; None takes it from the run, or
            guesses from length and vocabulary.
        title: Heading of the page.

    Raises:
        ValueError: What was given does not fit.
    """
    if not (workdir or dataset):
        raise ValueError("give --workdir (a run), --dataset (a folder or CSV file) or both")
    for name, value in (("num", num), ("max_steps", max_steps)):
        if value is not None and value < 1:
            raise ValueError(f"--{name}: expected at least 1, got {value}")
    of_a_run = {
        "checkpoint": checkpoint != "last",
        "max_steps": max_steps,
        "halting": halting != "q",
    }
    if not workdir and (without := [name for name, given in of_a_run.items() if given]):
        raise ValueError(f"--{without[0]} has no effect without --workdir, a run")
    output = path_of(output)
    workdir, dataset = (path_of(x) if x else None for x in (workdir, dataset))
    if output.is_dir():
        raise ValueError(f"--output={output}: is a folder; expected the name of an .html file")
    model = load(workdir, checkpoint) if workdir else None
    puzzle = PUZZLES.get(kind or "") or puzzle_of(workdir, dataset)
    puzzles, names = examples(workdir, dataset, split, puzzle)
    num = min(len(puzzles), num or (WITH_MODEL if model else MAX_EXAMPLES))
    if num > MAX_EXAMPLES:
        raise ValueError(f"--num={num}: a page shows up to {MAX_EXAMPLES} puzzles")
    steps = None
    if model and workdir:
        meta, config = puzzles.metadata, model.config
        if (meta.seq_len, meta.vocab_size) != (config.seq_len, config.vocab_size):
            raise ValueError(
                f"{dataset}: {meta.seq_len} tokens of a vocabulary of {meta.vocab_size}, but "
                f"the model was trained on {config.seq_len} of {config.vocab_size}"
            )
        identifiers = puzzles.example_identifiers()[:num]
        if (identifiers >= config.num_puzzle_identifiers).any():
            raise ValueError(
                f"{dataset}: puzzle identifier {identifiers.max()} is not one of the "
                f"{config.num_puzzle_identifiers} that the model knows"
            )
        with tqdm(total=num, desc="thinking", unit="puzzle", disable=None) as bar:
            steps = trace_puzzles(
                config,
                model.variables,
                puzzles.inputs[:num],
                identifiers,
                max_steps=max_steps or model.max_steps,
                halting=halting,
                loss=model.loss,
                progress=lambda done: bar.update(done - bar.n),
            )
    source = " on ".join(str(x) for x in (workdir, dataset) if x)
    title = title or f"{source}, {split} puzzles"
    kind = kind or (puzzle.name if puzzle else None)
    return write_page(output, puzzles, steps, num=num, kind=kind, title=title, names=names)
