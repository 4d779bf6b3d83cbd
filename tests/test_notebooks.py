"""The notebooks run from top to bottom, with few steps."""

import json
import pathlib
import re

import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "notebooks"
# Steps, and what is printed.
EXPECTED = {
    "adapt": (12, r"[\d.]+ before, [\d.]+ after(.|\n)*adapter_model\.safetensors: [\d,]+ bytes"),
    "infinito": (4, r"phi_meter(.|\n)*memory_use: \[(.|\n)*best of 5 policies: \w+, return -?\d"),
    "sudoku": (60, r"\d+ of 64 obey the rules"),
    "mazes": (40, r"verified: [\d.]+% shortest paths"),
    "rl": (2, r"falling right, falling left: \[[01] [01]\](.|\n)*interquartile mean [\d.]+, from"),
    "spanish": (40, r"[1-4]\.\d+ bits per byte(.|\n)*\[True, True, True, True\]"),
}


def test_every_notebook_is_tried():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_notebook_is_clean_and_opens_in_colab(name):
    notebook = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    assert "colab" in notebook["metadata"]
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    assert sum('git", "clone' in "".join(cell["source"]) for cell in code) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", EXPECTED)
def test_notebook_runs(name, monkeypatch, tmp_path):
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    manager = pytest.importorskip("jupyter_client.kernelspec").KernelSpecManager()
    manager.ensure_native_kernel = True
    steps, printed = EXPECTED[name]
    monkeypatch.setenv("HRM_JAX_NOTEBOOK_STEPS", str(steps))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("XLA_FLAGS")  # one device: the notebook as its reader runs it
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    client.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(output.get("text", "") for output in outputs)
    assert re.search(printed, text), text
    assert not any(
        output.get("name") == "stderr" and "Warning" in output.text for output in outputs
    )
