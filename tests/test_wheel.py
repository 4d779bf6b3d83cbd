"""A wheel gives a working library, outside of the clone."""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import venv

import pytest

import hrm_jax

ROOT = pathlib.Path(__file__).parents[1]
PROGRAM = """
import pathlib, hrm_jax
assert pathlib.Path(hrm_jax.__file__).is_relative_to(pathlib.Path("env").resolve())
config = {
    "task": "sudoku", "steps": 2, "batch_size": 4, "tensorboard": False,
    "data": {"size": 4, "num_train": 8, "num_test": 4},
    "model": {"hidden_size": 16, "num_heads": 1, "H_layers": 1, "L_layers": 1, "expansion": 1.0,
              "puzzle_emb_ndim": 16, "halt_max_steps": 2, "forward_dtype": "float32"},
}
result = hrm_jax.train(config, "run")
assert result.step == 2
print(hrm_jax.load("run").solve("1.34.41.21.3432.").text)
from hrm_jax.data.text.embedded import spanish_documents
assert len(spanish_documents()[0])
from hrm_jax.viz.page import render_page
assert "<html" in render_page(None)
"""


@pytest.mark.slow
def test_wheel(tmp_path):
    clone = tmp_path / "clone"
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
    ).stdout.decode().rstrip("\0").split("\0")  # fmt: skip
    for name in tracked:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, clone / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [
            *pip,
            "wheel",
            "--no-deps",
            "--no-build-isolation",
            "--wheel-dir",
            str(tmp_path),
            str(clone),
        ],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"hrm_jax-{hrm_jax.__version__}-")
    venv.create(tmp_path / "env", symlinks=True)
    folder = next((tmp_path / "env").glob("lib/python*/site-packages"))
    subprocess.run([*pip, "install", "--no-deps", "--target", str(folder), str(wheel)], check=True)
    # What hrm_jax needs is where this test has it; an editable hrm_jax there is not looked at.
    (folder / "needed.pth").write_text(sysconfig.get_paths()["purelib"])
    python = tmp_path / "env" / "bin" / "python"
    done = subprocess.run(
        [str(python), "-c", PROGRAM],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip()) == 16
