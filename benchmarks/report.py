"""Tables of measured figures: printed as they are made, saved, and gathered in two pages.

    python benchmarks/engine.py --save      # prints its table, and keeps it in benchmarks/results
    python -m benchmarks.report             # writes docs/results.md and benchmarks/RESULTS.md
    python -m benchmarks.report --check     # fails where they are not what is kept

`docs/results.md` has what a reader wants first, RESULTS.md what programs say of programs.

A program makes a `Table`, adds rows and calls `save` with what `add_save_flag` has read.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import pathlib
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax

from hrm_jax.fields import ConfigError, from_mapping, to_mapping
from hrm_jax.files import read_json, write_json, write_text

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks" / "results"
FIRST, OTHERS = "docs/results.md", "benchmarks/RESULTS.md"  # pages

# Sections in this order; `hrm_step` stands for `hrm_step_gpu` too. Those not named come last.
ORDER = {
    FIRST: (
        *("sudoku", "presets", "maze", "domino", "latin", "arc", "spanish", "language"),
        *("better_answers_mix", "engine", "hrm_step", "rl", "relational"),
        *("lora", "branches", "infinito", "infinito_nets", "scheduler"),
    ),
    OTHERS: (
        *("attention", "gpu_program", "scaling", "data_pipeline", "puzzle_table", "maze_building"),
        *("better_answers",),
    ),
}

_HOW = """`python -m benchmarks.report` writes this page from `benchmarks/results/*.json`, where the
programs leave their tables (`--save`). Every section names the command that gives its figures.
Medians; what is compared was measured in turn in one process.
"""
HEADS = {
    FIRST: f"""# Results

What was measured, by whom on what, and what has not been. What programs say of programs (kernels,
bytes, collectives) is in `benchmarks/RESULTS.md`.

{_HOW}""",
    OTHERS: f"""# Further measurements

What a reader wants first is in [docs/results.md](../docs/results.md); here are the programs' own
tables.

{_HOW}""",
}

_ON_A_GPU = (
    "All that wants a GPU but the training of `:paper`, tests first, is one command there: "
    "`bash benchmarks/gpu.sh`."
)


class Wanted(NamedTuple):
    """A table that the project is meant to have: measured on a GPU, with a column, if so said."""

    name: str
    what: str
    command: str
    gpu: bool = False
    column: str = ""

    def measured(self, tables: Mapping[str, Saved]) -> bool:
        """Whether it is among those that are saved."""
        found = tables.get(self.name)
        return (
            found is not None
            and (not self.gpu or found.machine.gpu is not None)
            and (not self.column or self.column in found.columns)
        )


WANTED = (
    Wanted(
        "attention",
        "attention by every engine, on a GPU",
        "python benchmarks/attention.py --save",
        gpu=True,
    ),
    Wanted(
        "hrm_step_gpu",
        "the HRM step and evaluation at the paper's sizes, on a GPU",
        "python benchmarks/hrm_step.py --preset=paper --save=hrm_step_gpu",
        gpu=True,
    ),
    Wanted(
        "sudoku_paper",
        "Sudoku trained at the paper's sizes, on a GPU",
        "python benchmarks/seeds.py --config=configs/sudoku.py:paper --seeds=0 --save=sudoku_paper "
        "-- --config.data.train_csv=train.csv --config.data.test_csv=test.csv "
        "--config.data.subsample=1000",
        gpu=True,
    ),
    Wanted(
        "better_answers",
        "votes and more steps on 9×9 Sudokus and the hardest real ones",
        "python benchmarks/better_answers.py --workdir=runs/sudoku --data=hard.csv --votes=8 "
        "--last=3 --save",
    ),
    Wanted(
        "scaling",
        "operations and bytes of a step on many devices",
        "python benchmarks/scaling.py --save",
    ),
    Wanted(
        "gpu_program",
        "a step as XLA's GPU compiler makes it: kernels, bytes, memory",
        "python benchmarks/gpu_program.py --save",
    ),
    Wanted(
        "scaling_gpu",
        "the same as compiled for GPUs",
        "python benchmarks/scaling.py --compiler=gpu --save=scaling_gpu",
    ),
    Wanted(
        "puzzle_table",
        "the time of a step against the size of the puzzle table, on an idle machine",
        "python benchmarks/puzzle_table.py --save",
        column="step ms",
    ),
    Wanted(
        "engine_gpu",
        "the inference engine on a GPU",
        "python benchmarks/engine.py --alone --save=engine_gpu",
        gpu=True,
    ),
    *(
        Wanted(
            f"{name}_seeds",
            f"the laptop preset of {what}, three seeds",
            f"python benchmarks/seeds.py --config=configs/{name}.py:laptop --figures={figures} "
            f"--save={name}_seeds",
        )
        for name, what, figures in (
            ("maze", "mazes", "eval/optimal,eval/valid"),
            ("domino", "dominoes", "eval/optimal,eval/legal"),
            ("arc", "ARC", "eval/pass_at_1,eval/pass_at_2"),
            ("spanish_numbers", "Spanish numbers", "eval/exact_match"),
            ("spanish_lm", "Spanish prose", "eval/bits_per_byte"),
        )
    ),
)


@dataclasses.dataclass(frozen=True)
class Machine:
    """Processor and the cores of it that could be used; kind and number of GPUs in use."""

    cpu: str
    cores: int
    gpu: str | None = None
    gpus: int = 0


@dataclasses.dataclass(frozen=True)
class Versions:
    """Versions of what was loaded."""

    python: str
    jax: str
    jaxlib: str | None = None
    flax: str | None = None
    torch: str | None = None
    transformers: str | None = None


@dataclasses.dataclass(frozen=True)
class Saved:
    """A table with where it comes from, as in its file.

    Attributes:
        title: Heading of its section.
        columns: Heads of the columns.
        rows: Cells in Markdown, as many in each row as there are columns.
        notes: Paragraphs in Markdown.
        command: What was typed.
        date: Day, UTC.
        machine: Where it ran.
        versions: With what.
        commit: Of the project, with "-dirty" where files differed from it; None if not known.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    command: str
    date: str
    machine: Machine
    versions: Versions
    commit: str | None = None


def read(path: pathlib.Path) -> Saved:
    """Reads a saved table.

    Raises:
        ValueError: The file is no JSON, or not of this form; the message names file and field.
    """
    saved = from_mapping(Saved, read_json(path), f"{path}: table")
    for number, cells in enumerate(saved.rows):
        if len(cells) != len(saved.columns):
            raise ConfigError(
                f"{path}: table.rows[{number}]: expected {len(saved.columns)} cells, one for each "
                f"of the columns, got {len(cells)}"
            )
    try:
        datetime.date.fromisoformat(saved.date)
    except ValueError as error:
        raise ConfigError(f"{path}: table.date: expected YYYY-MM-DD, got {saved.date!r}") from error
    return saved


def row(cells: Iterable[str]) -> str:
    """A line of a Markdown table; cells may hold Markdown, `|` and line ends."""
    # Backslashes before a bar are doubled, so that the one that escapes the bar is not escaped.
    escaped = (re.sub(r"(\\*)\|", r"\1\1\\|", " ".join(cell.splitlines())) for cell in cells)
    return f"| {' | '.join(escaped)} |"


def header(columns: Iterable[str]) -> str:
    """The first two lines of a Markdown table."""
    columns = tuple(columns)
    return f"{row(columns)}\n|{'---|' * len(columns)}"


def machine() -> Machine:
    """The machine that this runs on."""
    try:
        models = re.search(r"model name\s*:\s*(.+)", pathlib.Path("/proc/cpuinfo").read_text())
    except OSError:  # not Linux
        models = None
    cpu = models[1] if models else platform.processor() or platform.machine()
    usable = getattr(os, "sched_getaffinity", None)  # not on macOS
    cores = len(usable(0)) if usable else os.cpu_count() or 1
    gpus = [device for device in jax.devices() if device.platform != "cpu"]
    return Machine(cpu, cores, gpus[0].device_kind if gpus else None, len(gpus))


def versions() -> Versions:
    """Versions of Python and of what has been imported."""
    names = {field.name for field in dataclasses.fields(Versions)} & sys.modules.keys()
    found = {name: str(sys.modules[name].__version__) for name in names}
    return Versions(python=platform.python_version(), **found)


def commit() -> str | None:
    """The commit that is checked out, "-dirty" if files differ from it; None outside of git."""
    # These change while one program after the other leaves its table.
    but = [f":(exclude){path}" for path in ("benchmarks/results", FIRST, OTHERS)]

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", *arguments]
        return subprocess.run(
            command, cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.strip()

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        return f"{head}-dirty" if git("status", "--porcelain", "--", ".", *but) else head
    except (OSError, subprocess.CalledProcessError):
        return None


def command() -> str:
    """What was typed to start this program."""
    program, *arguments = sys.argv
    return shlex.join(["python", f"benchmarks/{pathlib.Path(program).name}", *arguments])


class Table:
    """A table that is printed line by line while it is measured.

    Args:
        name: Name of its file where `--save` gives no other.
        title: Heading of its section.
        columns: Heads of the columns.
        notes: Paragraphs about it, printed first; more may be appended until it is saved.
    """

    def __init__(
        self, name: str, title: str, columns: Iterable[str], notes: Iterable[str] = ()
    ) -> None:
        self.name, self.title = name, title
        self.columns, self.notes = tuple(columns), list(notes)
        self.rows: list[tuple[str, ...]] = []
        self._commit = commit()  # of the code that runs: files may change meanwhile
        print("\n" + "\n\n".join([title, *self.notes, header(self.columns)]), flush=True)

    def add(self, *cells: object) -> None:
        """Prints a row and keeps it; cells that are no strings are turned into them.

        Raises:
            ValueError: There are not as many cells as columns.
        """
        if len(cells) != len(self.columns):
            raise ValueError(
                f"table {self.name!r}: expected {len(self.columns)} cells, got {len(cells)}"
            )
        self.rows.append(tuple(map(str, cells)))
        print(row(self.rows[-1]), flush=True)

    def save(self, name: str | None, folder: pathlib.Path = FOLDER) -> None:
        """Writes `<name>.json`, atomically, in place of what was there.

        Args:
            name: What `--save` gave. None saves nothing, "" takes the table's own name.
            folder: Where to.
        """
        if name is None:
            return
        saved = Saved(
            title=self.title,
            columns=self.columns,
            rows=tuple(self.rows),
            notes=tuple(self.notes),
            command=command(),
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
            machine=machine(),
            versions=versions(),
            commit=self._commit,
        )
        path = folder / f"{name or self.name}.json"
        write_json(path, to_mapping(saved))
        print(f"\nsaved: {path}", flush=True)


def _name(text: str) -> str:
    if not re.fullmatch(r"\w*", text):
        raise argparse.ArgumentTypeError(f"{text!r}: expected letters, digits and _")
    return text


def add_save_flag(parser: argparse.ArgumentParser) -> None:
    """Adds `--save[=name]`: None without it, "" where it stands alone."""
    parser.add_argument(
        "--save",
        nargs="?",
        type=_name,
        const="",
        metavar="NAME",
        help="keep the table in benchmarks/results, under a name of its own if given",
    )


def _section(saved: Saved) -> str:
    on, used = saved.machine, saved.versions
    hardware = f"{on.cpu}, {on.cores} cores"
    if on.gpu:
        hardware = f"{on.gpus} × {on.gpu}; {hardware}"
    labels = {"python": "Python", "jax": "JAX", "flax": "Flax", "torch": "PyTorch"}
    software = ", ".join(
        f"{labels.get(name, name)} {version}"
        for name, version in to_mapping(used).items()
        if version
    )
    origin = [hardware, software, saved.date]
    if saved.commit:
        origin.append(f"commit {saved.commit}")
    lines = "\n".join([header(saved.columns), *map(row, saved.rows)])
    paragraphs = [f"## {saved.title}", f"`{saved.command}`\\\n{'; '.join(origin)}", lines]
    return "\n\n".join([*paragraphs, *saved.notes]) + "\n"


def _place(name: str) -> tuple[str, int]:
    """The page of a table, and its place there: the longest name in `ORDER` that begins it."""
    found = [
        (len(first), page, number)
        for page, names in ORDER.items()
        for number, first in enumerate(names)
        if f"{name}_".startswith(f"{first}_")
    ]
    return max(found)[1:] if found else (OTHERS, len(ORDER[OTHERS]))


def render(folder: pathlib.Path) -> dict[str, str]:
    """The text of each page, from the tables that are saved in a folder.

    Raises:
        ValueError: A file is damaged or not a table; the message names it and the field.
    """
    tables = {path.stem: read(path) for path in sorted(folder.glob("*.json"))}
    parts = {page: [head] for page, head in HEADS.items()}
    for name in sorted(tables, key=lambda name: (_place(name)[1], name)):
        parts[_place(name)[0]].append(_section(tables[name]))
    absent = [f"- {x.what}: `{x.command}`" for x in WANTED if not x.measured(tables)]
    if absent:
        parts[FIRST].append("\n".join(["## Not measured", "", _ON_A_GPU, "", *absent, ""]))
    return {page: "\n".join(sections) for page, sections in parts.items()}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, fail where it differs")
    args = parser.parse_args(argv)
    try:
        pages = render(FOLDER)
    except ValueError as error:
        parser.error(str(error))
    for name, text in pages.items():
        page = ROOT / name
        if not args.check:
            write_text(page, text)
        elif not page.exists() or page.read_text(encoding="utf-8") != text:
            print(f"{page} is not what {FOLDER} gives: run python -m benchmarks.report")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
