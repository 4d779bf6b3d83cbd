"""Package metadata of hrm_jax."""

import pathlib

from setuptools import find_packages, setup

TORCH = ["torch>=2.6"]
KERAS = ["h5py>=3.10"]
HF = ["tokenizers>=0.22", "transformers>=4.57"]
RL = ["gymnasium>=1.1", "gymnax>=1"]
SERVE = [
    "h11>=0.16",
    "prometheus-client>=0.21",
    "pydantic>=2.10",
    "starlette>=0.46",
    "uvicorn>=0.34",
]
DOCS = ["mkdocstrings-python>=2", "zensical>=0.0.70"]
NOTEBOOKS = ["ipykernel>=6", "ipywidgets>=8", "nbclient>=0.10", "nbformat>=5.9"]

setup(
    name="hrm_jax",
    version="0.1.0",
    description="Hierarchical Reasoning Model and relatives in JAX and Flax",
    long_description=pathlib.Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The hrm_jax authors",
    url="https://github.com/hrm-jax/hrm_jax",
    project_urls={"Changes": "https://github.com/hrm-jax/hrm_jax/blob/main/CHANGELOG.md"},
    keywords=["JAX", "Flax", "reasoning", "HRM", "TRM", "ARC", "Sudoku", "language model"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["hrm_jax", "hrm_jax.*"]),
    package_data={
        "hrm_jax": [
            "py.typed",
            "viz/page.html",
            "server/chat_page.html",
            "data/branches/README.md",
            "data/branches/*/training/data/*.jsonl",
            "data/text/spanish/*",
            "pretrained/*/*",
        ]
    },
    install_requires=[
        "absl-py>=2.1",
        "array_record>=0.6",
        "chex>=0.1.89",
        "flax>=0.12",
        "grain>=0.2.15",
        "importlib_resources>=6",  # tensorflow-datasets needs it and does not say so
        "jax>=0.10,<0.12",
        "jaxtyping>=0.3",
        "jinja2>=3.1",  # chat templates, which instruct tasks read
        "matplotlib>=3.8",
        "ml_collections>=1.0",
        "numba>=0.61",
        "num2words>=0.5.13",
        "numpy>=2.0",
        "optax>=0.2.6",
        "orbax-checkpoint>=0.11.30",
        "pillow>=10",
        "pyyaml>=6",
        "safetensors>=0.5",
        "scipy>=1.13",
        "tensorboardX>=2.6",
        "tensorflow-datasets>=4.9.8",
        "tqdm>=4.66",
    ],
    extras_require={
        "cuda12": ["jax[cuda12]>=0.10,<0.12"],
        "cuda13": ["jax[cuda13]>=0.10,<0.12"],
        # XLA's GPU compiler and ptxas, where there is no GPU: not beside cuda12.
        "gpu_compiler": [
            "jax-cuda13-plugin>=0.10,<0.12; sys_platform == 'linux'",
            "nvidia-cuda-nvcc>=13; sys_platform == 'linux'",
        ],
        "torch": TORCH,
        "keras": KERAS,
        "hf": HF,
        "wandb": ["wandb>=0.19"],
        "docs": DOCS,
        "notebooks": NOTEBOOKS,
        "rl": RL,
        "serve": SERVE,
        "dev": [
            *DOCS,
            *HF,
            *KERAS,
            *NOTEBOOKS,
            *RL,
            *SERVE,
            "beartype>=0.20",
            "hypothesis>=6.100",
            "import-linter>=2.1",
            "keras>=3.10",  # with the JAX backend judges the files that we export
            "mypy>=1.15",
            "openai>=1.60",  # a client, to test the server
            "peft>=0.18",  # judges adapters
            "playwright>=1.50",  # drives a Chromium that is installed already
            "pytest>=8.3",
            "pytest-xdist>=3.6",
            "hoi>=0.0.7",  # another implementation of the O-information
            "qwix>=0.1.8",  # another implementation of adapters and of quantised weights
            "ruff>=0.11",
            "setuptools>=70.1",  # builds the wheel that is tested
            "slipcover>=1.1",  # counts lines at no cost, as coverage.py does from Python 3.12 only
            "stable-baselines3>=2.7",  # judges policies
            "sybil>=9",  # runs the code of README and docs
            "torch==2.13.0",
            "types-PyYAML>=6",
        ],
    },
)
