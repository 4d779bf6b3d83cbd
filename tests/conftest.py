"""What tests of several rooms share: configurations, finished runs, a browser."""

import contextlib
import gc
import importlib.util
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


def pytest_collection_finish() -> None:
    """Spares the collector what stays for good, and most of its rounds: a twentieth of the time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Frees the programs of a file that is done: of all files they take gigabytes."""
    if nextitem is not None and nextitem.path != item.path and "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def parity() -> pathlib.Path:
    """Folder with the numbers of the PyTorch reference."""
    folder = SHARED / "parity"
    if not folder.is_dir():
        pytest.skip("the reference's numbers (shared/parity) are not beside the project")
    return folder


@pytest.fixture(scope="session")
def data() -> pathlib.Path:
    """Folder with real data."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the real data (shared/data) are not beside the project")
    return folder


@pytest.fixture(scope="session")
def tiny() -> Callable[..., dict[str, Any]]:
    """Makes the configuration of a 4×4 Sudoku run that compiles in seconds.

    Fields are overridden by their dotted names, with `__` for the dot.
    """

    def make(**overrides: Any) -> dict[str, Any]:
        config: dict[str, Any] = {
            "task": "sudoku",
            "steps": 4,
            "batch_size": 8,
            "log_every": 1,
            "eval_every": 4,
            "checkpoint_every": 2,
            "tensorboard": False,
            "eval_slots": 8,
            "data": {"size": 4, "num_train": 16, "num_test": 8},
            "model": {
                "hidden_size": 32,
                "num_heads": 2,
                "expansion": 1.0,
                "H_layers": 1,
                "L_layers": 1,
                "H_cycles": 2,
                "L_cycles": 2,
                "puzzle_emb_ndim": 32,
                "halt_max_steps": 3,
                "forward_dtype": "float32",
            },
            "optimizer": {"learning_rate": 1e-3, "warmup_steps": 2, "puzzle_emb_lr": 1e-3},
        }
        for name, value in overrides.items():
            *groups, field = name.split("__")
            target = config
            for group in groups:
                target = target.setdefault(group, {})
            target[field] = value
        return config

    return make


@pytest.fixture(scope="session")
def start() -> Callable[..., Any]:
    """Trains, or goes on with, a configuration (or a task) in a workdir, through the real loop."""
    from hrm_jax import tasks
    from hrm_jax.training.loop import run

    def train(config: Any, workdir: pathlib.Path) -> Any:
        task = config
        if isinstance(config, dict):
            task = tasks.build(tasks.parse(config), workdir / "data")
        return run(task, workdir, progress=False)

    return train


@pytest.fixture(scope="session")
def child(tmp_path_factory) -> Callable[..., dict[str, str]]:
    """Makes the environment of a process of its own: so many devices, compiling as here.

    Those that are `killed`, maybe while they write what they have compiled, share a folder for that
    which is nobody else's, with a limit of its size: JAX locks it.
    """
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_COMPILATION_CACHE_MAX_SIZE": str(2**31),
    }

    def make(devices: int = 1, killed: bool = False) -> dict[str, str]:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
        own = {"PYTHONPATH": path, "XLA_FLAGS": flags, **(cache if killed else {})}
        return {**os.environ, **own}

    return make


@pytest.fixture(scope="session")
def trained(tiny, start, tmp_path_factory) -> pathlib.Path:
    """The workdir of a finished run with checkpoints 2 and 4; tests may only read it."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    start(tiny(), workdir)
    return workdir


@pytest.fixture
def workdir(trained, tmp_path) -> pathlib.Path:
    """A copy of `trained` that a test may change."""
    return pathlib.Path(shutil.copytree(trained, tmp_path / "run"))


_CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
_CHROMIUM_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    "--disable-background-networking",
)


@pytest.fixture(scope="module")
def open_window(tmp_path_factory) -> Iterator[Callable[..., Any]]:
    """Opens addresses in Debian's Chromium, driven by Playwright.

    Yields the page, the addresses that it asks for, and what console, errors and dialogs say.
    Where one of the two is missing, tests are skipped; in CI (CI=true) they fail.
    """
    if not pathlib.Path(_CHROMIUM).exists() or not importlib.util.find_spec("playwright"):
        missing = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        missing(f"a browser needs the package playwright, and {_CHROMIUM} (apt-get install)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"), executable_path=_CHROMIUM, args=_CHROMIUM_FLAGS
        )

        @contextlib.contextmanager
        def window(url: str, size: dict[str, int], scheme: str) -> Iterator[Any]:
            page = context.new_page()
            requests: list[str] = []
            messages: list[str] = []
            page.on("request", lambda request: requests.append(request.url))
            page.on("console", lambda message: messages.append(message.text))
            page.on("pageerror", lambda error: messages.append(str(error)))
            page.on("dialog", lambda dialog: messages.append(dialog.message))
            page.set_default_timeout(20_000)
            page.set_viewport_size(size)
            page.emulate_media(color_scheme=scheme)
            page.goto(url)
            page.wait_for_selector("body[data-ready]")
            yield page, requests, messages
            page.close()

        yield window
        context.close()


@pytest.fixture(scope="session")
def expect() -> Any:
    """Playwright's assertions, which wait until they hold."""
    from playwright.sync_api import expect

    expect.set_options(timeout=20_000)
    return expect
