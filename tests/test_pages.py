"""README and docs as pages: links, languages, the site. `tests/pages.py` runs their code."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
RUN = {"bash", "python", "yaml"}  # what `tests/pages.py` knows


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    missing = [
        link for link in links
        if "://" not in link and not (page.parent / link.partition("#")[0]).exists()
    ]  # fmt: skip
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_says_its_language_so_that_it_is_run(page):
    fences = re.findall(r"^ *```(.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert all(close == "" for close in fences[1::2])
    assert set(fences[::2]) <= RUN | {""}  # "" is no code: trees of files


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize(
    ("page", "what", "lines"),
    [("own_task.md", "class Parity(Task)", 60), ("environments.md", "class Landing(Env", 40)],
)
def test_what_is_one_s_own_is_short(page, what, lines):
    programs = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    (program,) = (program for program in programs if what in program)
    assert len(program.splitlines()) <= lines


def test_site_builds_without_broken_links(tmp_path):
    pytest.importorskip("zensical")
    pytest.importorskip("mkdocstrings")
    shutil.copyfile(ROOT / "zensical.toml", tmp_path / "zensical.toml")
    for name in ("docs", "hrm_jax"):
        shutil.copytree(ROOT / name, tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    reference = (tmp_path / "site" / "reference" / "index.html").read_text()
    for name in ("hrm_jax.trained.load.load", "hrm_jax.tasks.base.Task.step"):
        assert f'id="{name}"' in reference
