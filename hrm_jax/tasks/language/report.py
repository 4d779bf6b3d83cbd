"""What a run of a language model tells at its end: its figures, and what it writes."""

from __future__ import annotations

import pathlib
import shlex

from hrm_jax.tasks.base import Figures

SAMPLES = 3
_LEAST = 0.002  # bits per byte that a plan has to save to be said to carry anything
_FIGURES = {
    "exact_match": "Held-out targets given exactly: {:.1%}.",
    "bits_per_byte": "Held-out text: {:.3f} bits per byte",
    "bits_per_byte_shuffled_plan": "  with another text's plan: {:.3f}",
    "bits_per_byte_no_plan": "  without a plan: {:.3f}",
    "code_perplexity": "Codes in use (perplexity): {:.1f}",
}


def plan_verdict(figures: Figures) -> str:
    """A sentence on whether the plan carries anything; "" without a planner."""
    others = [figures.get(f"eval/bits_per_byte_{x}_plan") for x in ("shuffled", "no")]
    if None in others:
        return ""
    saved = min(others) - figures["eval/bits_per_byte"]  # type: ignore[type-var]
    if saved < _LEAST:
        return (
            f"The plan carries nothing: with the wrong one or none the text costs {saved:+.4f} "
            f"bits per byte, less than {_LEAST}."
        )
    return f"The plan carries something: the wrong one or none costs {saved:.4f} bits per byte."


def language_report(figures: Figures, samples: list[str], prompt: str, folder: pathlib.Path) -> str:
    """What to tell the user at the end of a run: figures, `samples` of what the model writes, and
    what to do next, with an example of a `prompt`."""
    lines = [
        words.format(figures[f"eval/{name}"])
        for name, words in _FIGURES.items()
        if f"eval/{name}" in figures
    ]
    verdict = plan_verdict(figures)
    lines += [verdict] if verdict else []
    run, weights = (shlex.quote(str(x)) for x in (folder, folder / "model.safetensors"))
    lines += ["", "What it writes:", *samples, ""]
    lines += [
        f"Files: {folder}/metrics.jsonl, plots/, checkpoints/, config.json",
        "Next:",
        f"  python launch/generate.py --workdir={run} --prompt={shlex.quote(prompt)}",
        f"  python launch/evaluate.py --workdir={run}",
        f"  python launch/export.py --workdir={run} --format=safetensors --output={weights}",
    ]
    return "\n".join(lines)


def instruct_report(figures: Figures, samples: list[str], folder: pathlib.Path) -> str:
    """What to tell the user at the end of a run on instructions, with `samples` of its answers."""
    run = shlex.quote(str(folder))
    loss, base = figures["eval/loss"], figures["eval/base_loss"]
    lines = [
        f"Held-out answers: {loss:.3f} nats per token, {base:.3f} before ({loss / base - 1:+.1%}).",
        f"{figures['eval/stops']:.1%} of {figures['eval/answers']} answers end by themselves.",
        *("", "Held-out instructions, its answers, and those of the data:", *samples, ""),
        f"Files: {folder}/metrics.jsonl, plots/, checkpoints/, config.json",
        "Next:",
        f"  python launch/evaluate.py --workdir={run}",
        f"  python launch/export.py --workdir={run} --format=peft --output={run}/adapter",
    ]
    return "\n".join(lines)
