"""What a run of INFINITO tells at its end."""

from __future__ import annotations

import pathlib
import shlex
from collections.abc import Mapping
from typing import Any

from hrm_jax.tasks.base import Figures
from hrm_jax.tasks.infinito.config import InfinitoConfig
from hrm_jax.tasks.infinito.model import InfinitoModel

_SAMPLES = 3
_LEAST = 0.002  # bits per byte that a memory has to save to be said to help
_RISE = 0.02  # share of itself by which Φ has to rise to be said to


def memory_verdict(figures: Figures) -> str:
    """A sentence on whether the memory helps; "" without one."""
    if "eval/bits_per_byte_no_memory" not in figures:
        return ""
    own = figures["eval/bits_per_byte"]
    lost = {
        said: figures[name] - own
        for name, said in (
            ("eval/bits_per_byte_no_memory", "without it"),
            ("eval/bits_per_byte_other_memory", "with another text's"),
        )
        if name in figures
    }
    told = ", ".join(f"{x:+.4f} bits per byte {said}" for said, x in lost.items())
    if min(lost.values()) < _LEAST:
        return f"The memory does not help: {told}; less than {_LEAST}."
    return f"The memory helps: {told}."


def phi_verdict(before: Figures, now: Figures) -> str:
    """A sentence on whether the Φ that is measured follows the one that is trained, from before
    the training on."""
    names = ("eval/phi_objective", "eval/phi_meter")
    trained, measured = ((before[x], now[x]) for x in names)
    told = f"Before training they were {trained[0]:.3f} and {measured[0]:.4f}"
    rises = [new > old + _RISE * abs(old) for old, new in (trained, measured)]
    if not rises[0]:
        return f"{told}: what is trained has not risen."
    if not rises[1]:
        return f"{told}: what is trained has risen, WHAT IS MEASURED HAS NOT."
    return f"{told}: what is measured has risen with what is trained."


def infinito_report(
    config: InfinitoConfig,
    before: Figures,
    figures: Figures,
    model: InfinitoModel,
    batch: Mapping[str, Any],
    folder: pathlib.Path,
) -> str:
    """What to tell the user: figures, with Φ as it was `before` the training, what the model
    writes, and what to do next."""
    lines = [
        f"Held-out text: {figures['eval/bits_per_byte']:.3f} bits per byte, perplexity "
        f"{figures['eval/perplexity']:.2f} per token.",
        f"Φ that is trained (λ {config.lambda_phi:g}): {figures['eval/phi_objective']:.3f}. "
        f"Φ that is measured: {figures['eval/phi_meter']:.4f} nats "
        f"(time shuffled {figures['eval/phi_meter_time_shuffled']:.4f}, "
        f"permuted {figures['eval/phi_meter_permuted']:.4f}).",
        phi_verdict(before, figures),
    ]
    if verdict := memory_verdict(figures):
        lines.append(verdict)
    if "eval/recalled" in figures:
        recalled = ", ".join(
            f"{figures[f'eval/recalled{x}']:.1%} {said}"
            for x, said in (
                ("", "with its memory"),
                ("_other_memory", "with another text's"),
                ("_no_memory", "without"),
            )
            if f"eval/recalled{x}" in figures
        )
        lines.append(f"Names told right: {recalled}.")
    lines += ["", "What it writes:"]
    half = config.data.length // 2
    for i in range(min(_SAMPLES, len(batch["tokens"]))):
        begun = batch["tokens"][i, 0, :half]
        given = model.generate(begun.tolist(), temperature=0.8, top_p=0.9, seed=i)
        lines.append(f"  {model.tokenizer.decode(begun.tolist())!r} → {given.text!r}")
    run = shlex.quote(str(folder))
    lines += [
        "",
        f"Files: {folder}/metrics.jsonl, plots/, checkpoints/, config.json",
        "Next:",
        f"  python launch/generate.py --workdir={run} --prompt='En un lugar' --report=out.json",
        f"  python launch/evaluate.py --workdir={run}",
        f"  python launch/progress.py --workdir={run}",
    ]
    return "\n".join(lines)
