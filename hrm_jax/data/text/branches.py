"""Branches: a folder of instructions for each field of knowledge."""

from __future__ import annotations

import dataclasses
import difflib
import pathlib

import hrm_jax.data
from hrm_jax.data.errors import DataError
from hrm_jax.data.text.instructions import SUFFIXES, Instructions, read_instructions

_DATA = ("training", "data")


def packaged_branches() -> pathlib.Path:
    """The folder of the branches that come with the package."""
    return pathlib.Path(hrm_jax.data.__path__[0]) / "branches"


def branch_names(root: pathlib.Path) -> list[str]:
    """Names of the branches in a folder, sorted: those of its folders that have `training/data/`;
    `DataError` where there is none."""
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; expected one with a folder per branch")
    names = sorted(x.name for x in root.iterdir() if x.joinpath(*_DATA).is_dir())
    if not names:
        raise DataError(
            f"{root}: there are no branches in it; expected <branch>/training/data/*.jsonl"
        )
    return names


def branch_folder(root: pathlib.Path, branch: str) -> pathlib.Path:
    """The folder with a branch's records; a `DataError` says what is missing, and a hint."""
    folder = root / branch
    data = folder.joinpath(*_DATA)
    if not folder.is_dir() or "/" in branch or branch in ("", ".", ".."):
        near = difflib.get_close_matches(branch, branch_names(root), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"{root}: there is no branch {branch!r}{hint} (--list-branches shows all)")
    if not data.is_dir():
        loose = sorted(x for x in folder.rglob("*") if x.name.endswith(SUFFIXES))
        hint = f"; move {loose[0]} there" if loose else ""
        raise DataError(f"{data}: there is no such folder, in which records are expected{hint}")
    if not _files(data):
        raise DataError(f"{data}: there is no .jsonl in it; expected one record a line")
    return data


@dataclasses.dataclass(frozen=True)
class Branch:
    """What a branch's folder holds."""

    name: str
    files: int
    bytes: int
    found: Instructions


def inspect_branch(root: pathlib.Path, name: str) -> Branch:
    """Reads all records of a branch; invalid rows are kept count of, `DataError` for the rest."""
    folder = branch_folder(root, name)
    files = _files(folder)
    found = read_instructions(str(folder), branch=name, invalid="keep")
    return Branch(name, len(files), sum(x.stat().st_size for x in files), found)


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    return [x for x in folder.rglob("*") if x.name.endswith(SUFFIXES) and x.is_file()]
