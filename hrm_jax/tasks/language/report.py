"""What a run of a language model tells at its end: its figures, and what it writes."""

from __future__ import annotations

import pathlib
from typing import Any

from hrm_jax.engine.language import LanguageModel
from hrm_jax.tasks.base import Figures, State
from hrm_jax.tasks.language.pairs import PairTask
from hrm_jax.tasks.language.task import LanguageTask
from hrm_jax.tasks.language.text import TextTask

_LEAST = 0.002  # bits per byte that a plan has to save to be said to carry anything
_SAMPLES = 3
_SAMPLE_TOKENS = 160
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


def write_samples(task: LanguageTask, state: State) -> list[str]:
    """Continues the beginnings of held-out texts, or answers held-out prompts."""
    model = LanguageModel(task.config.model, state.variables(), task.tokenizer)
    if isinstance(task, PairTask):
        lines = []
        _, pairs = task.pairs
        for asked, wanted in list(zip(pairs.prompts, pairs.targets, strict=True))[:_SAMPLES]:
            limit = len(task.tokenizer.encode(wanted)) + 8
            given = model.generate(asked, temperature=0.0, max_new_tokens=limit).text
            mark = "=" if given == wanted else "≠"
            lines.append(f"  {asked} → {given} {mark} {wanted}")
        return lines
    assert isinstance(task, TextTask)
    length = min(64, task.config.data.length // 4)
    lines = []
    for i in range(_SAMPLES):
        _, test = task.documents
        document = test[i % len(test)]
        place = len(document) * (i + 1) // (_SAMPLES + 1)
        first = document.find(b" ", place) + 1
        prompt = document[first : first + length].decode(errors="ignore")
        room = min(_SAMPLE_TOKENS, task.config.data.length - length - 2)
        text = model.generate(prompt, temperature=0.7, max_new_tokens=room, seed=i).text
        lines.append(f"  {prompt!r} → {text!r}")
    return lines


def language_report(
    task: LanguageTask, state: State, figures: Figures, folder: pathlib.Path
) -> str:
    """What to tell the user at the end of a run.

    Args:
        task: What was trained.
        state: The last state.
        figures: The last evaluation.
        folder: The run's workdir.
    """
    lines = [
        words.format(figures[f"eval/{name}"])
        for name, words in _FIGURES.items()
        if f"eval/{name}" in figures
    ]
    verdict = plan_verdict(figures)
    lines += [verdict] if verdict else []
    lines += ["", "What it writes:", *write_samples(task, state), ""]
    example: Any = "1234" if isinstance(task, PairTask) else "En un lugar de la Mancha"
    lines += [
        f"Files: {folder}/metrics.jsonl, plots/, checkpoints/, config.json",
        "Next:",
        f'  python launch/generate.py --workdir={folder} --prompt="{example}"',
        f"  python launch/evaluate.py --workdir={folder}",
        f"  python launch/export.py --workdir={folder} --format=safetensors "
        f"--output={folder}/model.safetensors",
    ]
    return "\n".join(lines)
