"""HRM in PyTorch: the baseline that `hrm_step.py --torch` measures beside the JAX program.

Written for this comparison after the paper (https://arxiv.org/abs/2506.21734) with what a PyTorch
user would take: `scaled_dot_product_attention`, `torch.compile`, fused `_foreach` optimizer
arithmetic. Parameters have the names of the public reference, so that weights that
`launch/export.py` writes load with `strict=True`; the tests compare its answers with the JAX ones.
"""

from __future__ import annotations

import math
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrm_jax.layers.feed_forward import swiglu_width
from hrm_jax.models.hrm import HRMConfig


def _norm(x: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), eps=eps)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-right, left], dim=-1) * sin


class _Attention(nn.Module):
    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv_proj = nn.Linear(hidden, 3 * hidden, bias=False)
        self.o_proj = nn.Linear(hidden, hidden, bias=False)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
        rows, length, hidden = x.shape
        qkv = self.qkv_proj(x).view(rows, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        if rotary is not None:
            q, k = _turn(q, *rotary), _turn(k, *rotary)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.o_proj(mixed.transpose(1, 2).reshape(rows, length, hidden))


class _SwiGLU(nn.Module):
    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(hidden, 2 * width, bias=False)
        self.down_proj = nn.Linear(width, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        return self.down_proj(F.silu(gate) * up)


class _Block(nn.Module):
    def __init__(self, config: HRMConfig) -> None:
        super().__init__()
        self.eps = config.rms_norm_eps
        self.self_attn = _Attention(config.hidden_size, config.num_heads)
        width = swiglu_width(config.hidden_size, config.expansion, config.width_multiple)
        self.mlp = _SwiGLU(config.hidden_size, width)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
        x = _norm(x + self.self_attn(x, rotary), self.eps)
        return _norm(x + self.mlp(x), self.eps)


class _Level(nn.Module):
    def __init__(self, config: HRMConfig, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Block(config) for _ in range(layers))

    def forward(self, z: Tensor, injection: Tensor, rotary: Any) -> Tensor:
        x = z + injection
        for layer in self.layers:
            x = layer(x, rotary)
        return x


class _Table(nn.Module):
    """One weight under a name of its own, as the reference stores embeddings."""

    def __init__(self, name: str, rows: int, width: int, trained: bool = True) -> None:
        super().__init__()
        weight = torch.zeros(rows, width)
        if trained:
            self.register_parameter(name, nn.Parameter(weight))
        else:
            self.register_buffer(name, weight)


class TorchHRM(nn.Module):
    """One ACT step of HRM; `state_dict()` has the reference's names below `model.inner.`."""

    def __init__(self, config: HRMConfig) -> None:
        super().__init__()
        c = self.config = config
        self.embed_tokens = _Table("embedding_weight", c.vocab_size, c.hidden_size)
        if c.pos_encodings == "learned":
            places = c.prefix_len + c.seq_len
            self.embed_pos = _Table("embedding_weight", places, c.hidden_size)
        if c.puzzle_emb_ndim:
            rows = c.num_puzzle_identifiers
            self.puzzle_emb = _Table("weights", rows, c.puzzle_emb_ndim, trained=False)
        self.H_level = _Level(c, c.H_layers)
        self.L_level = _Level(c, c.L_layers)
        self.lm_head = nn.Linear(c.hidden_size, c.vocab_size, bias=False)
        self.q_head = nn.Linear(c.hidden_size, 2)
        self.register_buffer("H_init", torch.zeros(c.hidden_size))
        self.register_buffer("L_init", torch.zeros(c.hidden_size))
        if c.pos_encodings == "rope":
            size = c.hidden_size // c.num_heads
            frequencies = 1.0 / c.rope_theta ** (torch.arange(0, size, 2).float() / size)
            angles = torch.outer(torch.arange(c.prefix_len + c.seq_len).float(), frequencies)
            angles = torch.cat([angles, angles], dim=-1)
            self.register_buffer("cos", angles.cos(), persistent=False)
            self.register_buffer("sin", angles.sin(), persistent=False)

    def embed(self, inputs: Tensor, puzzle_rows: Tensor | None) -> Tensor:
        c = self.config
        x = F.embedding(inputs, self.embed_tokens.embedding_weight)
        if puzzle_rows is not None:
            width = c.prefix_len * c.hidden_size
            prefix = F.pad(puzzle_rows, (0, width - c.puzzle_emb_ndim))
            x = torch.cat([prefix.view(-1, c.prefix_len, c.hidden_size), x], dim=1)
        if c.pos_encodings == "learned":
            x = math.sqrt(0.5) * (x + self.embed_pos.embedding_weight)
        return x * math.sqrt(c.hidden_size)

    def forward(
        self, z_H: Tensor, z_L: Tensor, inputs: Tensor, puzzle_rows: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """New z_H and z_L (detached), logits, q_halt and q_continue."""
        c = self.config
        rotary = (self.cos, self.sin) if c.pos_encodings == "rope" else None
        x = self.embed(inputs, puzzle_rows)
        with torch.no_grad():
            for h in range(c.H_cycles):
                for low in range(c.L_cycles):
                    if (h, low) != (c.H_cycles - 1, c.L_cycles - 1):
                        z_L = self.L_level(z_L, z_H + x, rotary)
                if h != c.H_cycles - 1:
                    z_H = self.H_level(z_H, z_L, rotary)
        z_L = self.L_level(z_L, z_H + x, rotary)
        z_H = self.H_level(z_H, z_L, rotary)
        q = self.q_head(z_H[:, 0])
        logits = self.lm_head(z_H[:, c.prefix_len :])
        return z_H.detach(), z_L.detach(), logits, q[:, 0], q[:, 1]


def _stablemax_loss(logits: Tensor, labels: Tensor) -> Tensor:
    wide = logits.double()  # as the reference does
    s = torch.where(wide < 0, 1 / (1 - wide), wide + 1)
    logp = torch.log(s / s.sum(-1, keepdim=True))
    return -logp.gather(-1, labels[..., None])[..., 0]


class TorchTrainer:
    """Training step and evaluation over fixed buffers, compiled as a whole."""

    def __init__(self, config: HRMConfig, batch: int, compiled: bool = True) -> None:
        self.config, self.model = config, TorchHRM(config)
        self.parameters = list(self.model.parameters())
        self.m = [torch.zeros_like(p) for p in self.parameters]
        self.v = [torch.zeros_like(p) for p in self.parameters]
        places = config.prefix_len + config.seq_len
        self.z_H = torch.zeros(batch, places, config.hidden_size)
        self.z_L = torch.zeros_like(self.z_H)
        self.steps = torch.zeros(batch, dtype=torch.int32)
        self.halted = torch.ones(batch, dtype=torch.bool)
        self.count = 0
        self._loss = torch.compile(self.loss) if compiled else self.loss
        self._forward = torch.compile(self.model) if compiled else self.model

    def loss(
        self, z_H: Tensor, z_L: Tensor, steps: Tensor, data: dict[str, Tensor], rows: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Summed loss, new states, and which rows halt."""
        config = self.config
        z_H, z_L, logits, q_halt, q_continue = self.model(z_H, z_L, data["inputs"], rows)
        last = steps >= config.halt_max_steps
        halted = last | (q_halt > q_continue)
        right = (logits.argmax(-1) == data["labels"]).all(-1)
        total = _stablemax_loss(logits, data["labels"]).mean(-1).sum()
        bce = F.binary_cross_entropy_with_logits
        total = total + 0.5 * bce(q_halt, right.float(), reduction="sum")
        if config.q_target == "second_forward":
            with torch.no_grad():
                *_, next_halt, next_continue = self.model(z_H, z_L, data["inputs"], rows)
                best = torch.where(last, next_halt, torch.maximum(next_halt, next_continue))
            total = total + 0.5 * bce(q_continue, best.sigmoid(), reduction="sum")
        return total, z_H, z_L, halted

    def train_step(self, data: dict[str, Tensor], lr: float = 1e-4, decay: float = 1.0) -> Tensor:
        """Refill, one segment with its gradients, AdamATan2, sign-SGD of the puzzle table."""
        model, config = self.model, self.config
        rows = None
        if config.puzzle_emb_ndim:
            rows = model.puzzle_emb.weights[data["puzzle_identifiers"]].requires_grad_()
        halted = self.halted[:, None, None]
        self.z_H = torch.where(halted, model.H_init, self.z_H)
        self.z_L = torch.where(halted, model.L_init, self.z_L)
        self.steps = torch.where(self.halted, 0, self.steps) + 1
        total, self.z_H, self.z_L, self.halted = self._loss(
            self.z_H, self.z_L, self.steps, data, rows
        )
        (total / len(self.steps)).backward()
        self.count += 1
        gradients = [p.grad for p in self.parameters]
        with torch.no_grad():
            torch._foreach_mul_(self.parameters, 1 - lr * decay)
            torch._foreach_lerp_(self.m, gradients, 0.1)
            torch._foreach_mul_(self.v, 0.95)
            torch._foreach_addcmul_(self.v, gradients, gradients, 0.05)
            scale = math.sqrt(1 - 0.95**self.count)
            root = torch._foreach_div(torch._foreach_sqrt(self.v), scale)
            for p, m, r in zip(self.parameters, self.m, root, strict=True):
                p.add_(torch.atan2(m, r), alpha=-lr / (1 - 0.9**self.count))
                p.grad = None
            if rows is not None:
                table = model.puzzle_emb.weights
                used, place = data["puzzle_identifiers"].unique(return_inverse=True)
                summed = torch.zeros(len(used), rows.shape[1]).index_add_(0, place, rows.grad)
                table[used] = table[used] * (1 - lr * decay) - lr * summed.sign()
        return total.detach()

    @torch.no_grad()
    def solve(self, inputs: Tensor, identifiers: Tensor, max_steps: int) -> Tensor:
        """Answers [N, S] after all steps, in batches of the trainer's size; no row halts early."""
        model, answers = self.model, []
        for start in range(0, len(inputs), len(self.steps)):
            tokens = inputs[start : start + len(self.steps)]
            rows = None
            if self.config.puzzle_emb_ndim:
                rows = model.puzzle_emb.weights[identifiers[start : start + len(self.steps)]]
            shape = (len(tokens), *self.z_H.shape[1:])
            z_H, z_L = model.H_init.expand(shape), model.L_init.expand(shape)
            for _ in range(max_steps):
                z_H, z_L, logits, *_ = self._forward(z_H, z_L, tokens, rows)
            answers.append(logits.argmax(-1))
        return torch.cat(answers)


def serve(
    connection: Connection,
    config: HRMConfig,
    weights: dict[str, np.ndarray],
    batch: dict[str, np.ndarray],
    inputs: np.ndarray,
) -> None:
    """Runs "train" and "evaluate" on request, in a process of its own; answers when done.

    Args:
        connection: Where requests come from, until it is closed.
        config: Sizes; `forward_dtype` "bfloat16" multiplies in it, by autocast.
        weights: By the reference's names, with the prefix `model.inner.`.
        batch: inputs, labels [B, S] and puzzle_identifiers [B].
        inputs: Puzzles to evaluate [N, S].
    """
    trainer = TorchTrainer(config, len(batch["inputs"]))
    names = {k.removeprefix("model.inner."): torch.from_numpy(v) for k, v in weights.items()}
    trainer.model.load_state_dict(names, strict=True)
    data = {name: torch.from_numpy(value.astype(np.int64)) for name, value in batch.items()}
    tokens = torch.from_numpy(inputs.astype(np.int64))
    identifiers = torch.zeros(len(tokens), dtype=torch.int64)
    while True:
        try:
            request = connection.recv()
        except EOFError:  # the other process has ended
            return
        with torch.autocast("cpu", torch.bfloat16, enabled=config.forward_dtype == "bfloat16"):
            if request == "train":
                trainer.train_step(data)
            else:
                trainer.solve(tokens, identifiers, config.halt_max_steps)
        connection.send("done")
