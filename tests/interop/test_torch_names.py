"""Names of PyTorch modules."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from hrm_jax.fields import ConfigError
from hrm_jax.interop.language import parameter_shapes
from hrm_jax.interop.torch_names import from_torch_names, to_torch_names
from hrm_jax.models.planner_executor import PlannerExecutorConfig
from hrm_jax.models.transformer import Transformer, TransformerConfig, sinusoidal_positions

torch = pytest.importorskip("torch")
F = torch.nn.functional

RLM = TransformerConfig(
    vocab_size=19, hidden_size=16, num_layers=2, num_heads=4, ffn_size=24, max_length=12
)
LLAMA = dataclasses.replace(
    RLM, positions="rotary", norm="rms", feed_forward="swiglu", bias=False, num_kv_heads=2
)
PLANNER = PlannerExecutorConfig(
    vocab_size=19, plan_id=18, pad_id=17, hidden_size=16, num_heads=2, ffn_size=24, plan_size=6,
    planner_layers=1, executor_layers=2, planner_length=8, max_length=10, num_codes=3,
)  # fmt: skip


@functools.cache
def _draw(config):
    rng = np.random.default_rng(0)
    shapes = parameter_shapes(config)
    return jax.tree.map(lambda x: rng.normal(0, 0.6, x.shape).astype(np.float32), shapes)


class _Block(torch.nn.Module):
    def __init__(self, size, heads, width):
        super().__init__()
        linear = torch.nn.Linear
        self.heads = heads
        self.attention = torch.nn.ModuleDict({f"{n}_proj": linear(size, size) for n in "qkvo"})
        self.ffn = torch.nn.ModuleDict(
            {"up_proj": linear(size, width), "down_proj": linear(width, size)}
        )
        self.attention_norm = torch.nn.LayerNorm(size)
        self.ffn_norm = torch.nn.LayerNorm(size)

    def forward(self, x):
        y = self.attention_norm(x)
        q, k, v = (
            self.attention[f"{n}_proj"](y).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for n in "qkv"
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attention["o_proj"](mixed.transpose(1, 2).flatten(2))
        return x + self.ffn["down_proj"](F.relu(self.ffn["up_proj"](self.ffn_norm(x))))


class _RLM(torch.nn.Module):
    """The Transformer RLM, written down in PyTorch."""

    def __init__(self, config):
        super().__init__()
        size = config.hidden_size
        self.embed_tokens = torch.nn.Embedding(config.vocab_size, size)
        blocks = [_Block(size, config.num_heads, config.ffn_size) for _ in range(config.num_layers)]
        self.layers = torch.nn.ModuleList(blocks)
        self.final_norm = torch.nn.LayerNorm(size)
        self.lm_head = torch.nn.Linear(size, config.vocab_size, bias=False)

    def forward(self, tokens):
        x = self.embed_tokens(tokens)
        place = torch.arange(x.shape[1])[:, None]
        angle = place / 10000 ** (torch.arange(0, x.shape[2], 2) / x.shape[2])
        x = x + torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
        for layer in self.layers:
            x = layer(x)
        return self.lm_head(self.final_norm(x))


@pytest.mark.parametrize("scan", [False, True])
def test_a_torch_module_gives_the_same_logits(scan):
    config = dataclasses.replace(RLM, scan_layers=scan)
    params = _draw(config)
    module = _RLM(config)
    tensors = {k: torch.from_numpy(v) for k, v in to_torch_names(params).items()}
    module.load_state_dict(tensors, strict=True)
    tokens = np.random.default_rng(1).integers(0, 19, (2, 12))
    with torch.no_grad():
        theirs = module(torch.from_numpy(tokens)).numpy()
    ours = Transformer(config).apply({"params": params}, jnp.asarray(tokens, jnp.int32))
    assert np.abs(theirs).max() > 1
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_positions_are_the_papers():
    table = sinusoidal_positions(3, 4)
    np.testing.assert_allclose(table[2], [np.sin(2), np.cos(2), np.sin(0.02), np.cos(0.02)])


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("config", [RLM, LLAMA, PLANNER], ids=["rlm", "llama", "planner"])
def test_there_and_back_is_exact(config, scan, assert_same):
    config = dataclasses.replace(config, scan_layers=scan)
    params = _draw(config)
    tensors = to_torch_names(params)
    assert all(v.dtype == np.float32 and v.flags.c_contiguous for v in tensors.values())
    assert_same(from_torch_names(tensors, parameter_shapes(config)), params)
    # Scanned or not, the names are the same.
    plain = dataclasses.replace(config, scan_layers=False)
    assert to_torch_names(from_torch_names(tensors, parameter_shapes(plain))).keys() == (
        tensors.keys()
    )


def test_names_of_a_planner_executor():
    tensors = to_torch_names(_draw(dataclasses.replace(PLANNER, scan_layers=True)))
    assert {
        "planner.codebook": (3, 6),
        "planner.project.weight": (6, 16),
        "planner.encoder.layers.0.attention.q_proj.weight": (16, 16),
        "executor.embed_positions.weight": (11, 16),
        "executor.layers.1.ffn.gate_proj.weight": (24, 16),
        "plan_proj.weight": (16, 6),
    }.items() <= {name: array.shape for name, array in tensors.items()}.items()


def test_all_that_does_not_fit_is_listed():
    tensors = to_torch_names(_draw(RLM))
    del tensors["final_norm.bias"]
    tensors["layers.2.ffn_norm.bias"] = np.zeros(16, np.float32)
    tensors["lm_head.weight"] = tensors["lm_head.weight"].T
    tensors["layers.0.ffn_norm.bias"] = np.zeros(16, int)
    with pytest.raises(ConfigError) as error:
        from_torch_names(tensors, parameter_shapes(RLM))
    assert str(error.value).splitlines()[1:] == [
        "  missing: final_norm.bias [16]",
        "  unexpected: layers.2.ffn_norm.bias [16]",
        "  wrong dtype: layers.0.ffn_norm.bias is int64, expected a floating dtype",
        "  wrong shape: lm_head.weight: expected [19, 16], found [16, 19]",
    ]


@pytest.mark.parametrize("source", ["torch", "numpy"])
def test_narrow_dtypes_are_widened(source, assert_same):
    params = _draw(RLM)
    narrow = jax.tree.map(lambda x: x.astype(ml_dtypes.bfloat16), params)
    tensors = to_torch_names(params)
    if source == "torch":
        given = {k: torch.from_numpy(v).bfloat16().requires_grad_() for k, v in tensors.items()}
    else:
        given = {k: v.astype(ml_dtypes.bfloat16) for k, v in tensors.items()}
    found = from_torch_names(given, parameter_shapes(RLM))
    assert_same(found, jax.tree.map(lambda x: x.astype(np.float32), narrow))
