"""The notebooks run from top to bottom."""

import pathlib
import sys

import pytest

NOTEBOOKS = sorted((pathlib.Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, monkeypatch, tmp_path):
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    manager = pytest.importorskip("jupyter_client.kernelspec").KernelSpecManager()
    manager.ensure_native_kernel = True
    monkeypatch.setenv("HRM_JAX_NOTEBOOK_STEPS", "600")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("XLA_FLAGS")  # one device: the notebook as its reader runs it
    notebook = nbformat.read(path, as_version=4)
    client.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    text = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])
    )
    solved = int(text.split(" of 64 obey the rules")[0].split()[-1])
    assert solved > 4, f"the model learnt too little: {solved} of 64 ({sys.version})"
