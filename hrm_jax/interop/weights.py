"""Weights in and out, of whatever network."""

from __future__ import annotations

import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from hrm_jax.fields import ConfigError
from hrm_jax.interop.export import export
from hrm_jax.interop.hugging_face_tokenizers import write_tokenizer
from hrm_jax.interop.language import export_language_model, import_language_model
from hrm_jax.interop.peft import save_adapter
from hrm_jax.interop.policies import export_policy, import_policy
from hrm_jax.interop.relational import export_relational, import_relational
from hrm_jax.interop.torch import load_hrm, load_trm
from hrm_jax.models.actor_critic import ActorCriticConfig, QNetworkConfig
from hrm_jax.models.hrm import HRMConfig
from hrm_jax.models.relational import RelationalConfig
from hrm_jax.models.trm import TRMConfig
from hrm_jax.paths import path_of

log = logging.getLogger("hrm_jax")

_REFERENCES: Mapping[type, Any] = {HRMConfig: load_hrm, TRMConfig: load_trm}


def read_weights(path: pathlib.Path, config: Any) -> tuple[Any, Mapping[str, Any]]:
    """Reads weights for a run of this configuration: sizes of the model, and its variables.

    For HRM and TRM they are in a file with the names of the PyTorch references, for relational
    networks in one of `export_relational`, for language models in what `import_language_model`
    takes, for agents in what `import_policy` does.
    """
    if isinstance(config.model, RelationalConfig):
        network, params = import_relational(path)
        return network, {"params": params}
    if isinstance(config.model, ActorCriticConfig | QNetworkConfig):
        return import_policy(path, config.model)
    reference = _REFERENCES.get(type(config.model))
    if reference is None:
        sizes, params = import_language_model(path)
        return sizes, {"params": params}
    given = dict(vars(config.model))
    for name in ("seq_len", "vocab_size", "num_puzzle_identifiers"):
        if given[name] == getattr(type(config.model)(), name):
            del given[name]  # the weights tell
    # With rotary positions they do not tell for how many tokens they are, and it does not matter.
    told = config.model.pos_encodings == "learned" or getattr(config.model, "mlp_t", False)
    model = reference(
        path,
        given,
        seq_len=config.model.seq_len or (None if told else 1),
        reset_puzzle_table=config.reset_puzzle_table,
    )
    return model.config, model.variables


def write_weights(model: Any, output: str | os.PathLike[str], format: str) -> list[pathlib.Path]:
    """Writes the weights of what `hrm_jax.load` returns, and their configuration beside them."""
    output = path_of(output)
    if isinstance(model.config, ActorCriticConfig | QNetworkConfig):
        return export_policy(model, output, format)
    if format == "stable_baselines3":
        raise ValueError("--format=stable_baselines3 is for agents")
    if type(model.config) in _REFERENCES:
        if format == "hugging_face":
            raise ValueError("--format=hugging_face is for language models")
        return export(model.config, model.variables, output, format, model.loss)
    if isinstance(model.config, RelationalConfig):
        params = model.variables["params"]
        return export_relational(model.config, params, model.data.shape, output, format)
    own = getattr(model, "parts", {})
    if own:
        log.warning("What no other program has (%s) is left out.", ", ".join(own))
    if format == "peft":
        return _write_adapter(model, pathlib.Path(output))
    params = {k: v for k, v in model.variables["params"].items() if k not in own}
    tokenizer = model.tokenizer_name
    return export_language_model(model.config, params, output, format, tokenizer)


def _write_adapter(model: Any, folder: pathlib.Path) -> list[pathlib.Path]:
    """A folder for peft, with the tokenizer in it."""
    if getattr(model, "trained", None) is None:
        raise ConfigError("--format=peft: the run has trained no adapters")
    base = model.base.variables["params"]
    save_adapter(folder, model.lora, base, model.trained, model.base.name)
    write_tokenizer(folder, model.tokenizer_name)
    return sorted(folder.iterdir())
