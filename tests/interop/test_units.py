"""The mixer "units" in PyTorch, from the files that are exported: no reference of it exists."""

from typing import Any

import numpy as np
import pytest

from hrm_jax.interop.export import export
from hrm_jax.interop.files import read_state_dict
from hrm_jax.interop.torch import load_hrm, load_trm
from hrm_jax.models.hrm import HRMConfig
from hrm_jax.models.trm import TRMConfig

torch = pytest.importorskip("torch")

LINES = tuple(tuple(range(i, i + 4)) for i in (0, 4, 8, 12)) + tuple(
    tuple(range(i, 16, 4)) for i in range(4)
)
AROUND = tuple(tuple(j for j in range(16) if abs(i - j) <= 1) for i in range(16))
SIZES: dict[str, Any] = {
    "mixer": "units", "units": (LINES, AROUND), "seq_len": 16, "vocab_size": 6, "hidden_size": 16,
    "unit_width": 6, "expansion": 1.0, "width_multiple": 8, "L_layers": 2,
    "L_cycles": 2, "H_cycles": 1,
    "puzzle_emb_ndim": 12, "num_puzzle_identifiers": 3, "forward_dtype": "float32",
    "restart_noise": 0.5,
}  # fmt: skip
CONFIGS = {
    "trm": (TRMConfig(**SIZES, values=4), load_trm),
    "hrm": (HRMConfig(**SIZES, values=4, q_target="none", H_layers=1), load_hrm),
    "cells": (TRMConfig(**SIZES), load_trm),
}


class Network(torch.nn.Module):
    """One ACT step, from tensors by their names in the file."""

    def __init__(self, config: Any, tensors: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.c = config
        for name, value in tensors.items():
            short = name.removeprefix("model.inner.").replace(".", "/")
            self.register_buffer(short, torch.tensor(value))

    def weight(self, name: str) -> Any:
        return self.get_buffer(name.replace(".", "/"))

    def block(self, name: str, x: Any) -> Any:
        c = self.c
        rows, values = len(x), max(1, c.values)
        nodes = x.reshape(rows, c.seq_len, values, -1)
        kinds = len(c.units) + (values > 1)
        sent = torch.nn.functional.silu(nodes @ self.weight(f"{name}.send_proj.weight").T)
        sent = sent.reshape(*nodes.shape[:3], kinds, c.unit_width)
        seen = torch.zeros_like(sent)
        for k, groups in enumerate(c.units):
            for g, group in enumerate(groups):
                message = sent[:, list(group), :, k].sum(1) / len(group) ** 0.5
                for cell in [g] if groups is AROUND else group:
                    seen[:, cell, :, k] += message
        if values > 1:
            seen[..., -1, :] = sent[..., -1, :].sum(2, keepdim=True) / values**0.5
        inner = torch.cat([nodes, seen.flatten(3)], -1)
        inner = inner @ self.weight(f"{name}.gate_up_proj.weight").T
        gate, up = inner.chunk(2, -1)
        out = torch.nn.functional.silu(gate) * up @ self.weight(f"{name}.down_proj.weight").T
        y = x + out.reshape(x.shape)
        return y * torch.rsqrt((y * y).mean(-1, keepdim=True) + c.rms_norm_eps)

    def level(self, name: str, layers: int, z: Any, injection: Any) -> Any:
        x = z + injection
        for i in range(layers):
            x = self.block(f"{name}.layers.{i}", x)
        return x

    def forward(self, tokens: Any, identifiers: Any) -> tuple[Any, Any]:
        c = self.c
        known, others = tokens[..., None], c.vocab_size - c.values
        if c.values:
            own = known == others + torch.arange(c.values)
            known = torch.where(known < others, known, torch.where(own, others, others + 1))
        x = self.weight("embed_tokens.embedding_weight")[known.flatten(1)]
        puzzle = self.weight("puzzle_emb.weights")[identifiers]
        x = x + torch.nn.functional.pad(puzzle, (0, c.hidden_size - c.puzzle_emb_ndim))[:, None]
        x = x * c.hidden_size**0.5
        z_H, z_L = (self.weight(name).expand(x.shape) for name in ("H_init", "L_init"))
        for _ in range(c.H_cycles):
            for _ in range(c.L_cycles):
                z_L = self.level("L_level", c.L_layers, z_L, z_H + x)
            slow = ("H_level", c.H_depth) if c.H_depth else ("L_level", c.L_layers)
            z_H = self.level(*slow, z_H, z_L)
        logits = z_H @ self.weight("lm_head.weight").T
        if c.values:
            logits = logits.reshape(len(x), c.seq_len, c.values, -1)
            logits = torch.cat([logits[..., :-1].mean(2), logits[..., -1]], -1)
        q = z_H.mean(1) @ self.weight("q_head.weight").T + self.weight("q_head.bias")
        return logits, q[:, 0]


@pytest.mark.parametrize("name", CONFIGS)
def test_pytorch_agrees(name, tmp_path, make_variables):
    config, load = CONFIGS[name]
    weights, written = export(
        config, make_variables(config), tmp_path / "m.safetensors", "safetensors"
    )
    tensors = read_state_dict(weights)
    model = load(weights, written)
    assert model.config == config
    random = np.random.default_rng(0)
    tokens, rows = random.integers(0, 6, (5, 16)), random.integers(0, 3, 5)
    batch = {"inputs": tokens.astype(np.int32), "puzzle_identifiers": rows.astype(np.int32)}
    _, ours = model.act_step(model.initial_carry(batch), batch)
    with torch.no_grad():
        logits, q = Network(config, tensors)(torch.tensor(tokens), torch.tensor(rows))
    assert np.ptp(logits.numpy()) > 0.5
    scale = float(logits.abs().max())
    np.testing.assert_allclose(ours.logits, logits, atol=1e-5 * scale)
    np.testing.assert_allclose(ours.q_halt, q, atol=1e-5 * scale)


def test_its_name_is_that_of_no_reference(tmp_path, make_variables):
    config, _ = CONFIGS["hrm"]
    _, written = export(config, make_variables(config), tmp_path / "m.npz", "numpy")
    assert "name: hrm_jax@hrm_units" in written.read_text()
    with pytest.raises(ValueError, match=r"arch\.name: expected hrm_jax@trm_units"):
        load_trm(tmp_path / "m.npz", written)
