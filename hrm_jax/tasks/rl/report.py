"""What a run of an agent tells at its end, and the episode that it shows."""

from __future__ import annotations

import pathlib
import shlex

from hrm_jax.rl.film import write_gif
from hrm_jax.tasks.base import Figures
from hrm_jax.tasks.rl.policy import Policy


def policy_report(policy: Policy, figures: Figures, folder: pathlib.Path) -> str:
    """What to tell the user; `plots/episode.gif` is drawn where the environment has pictures."""
    lines = [
        f"Return of held-out episodes: {figures['eval/return']:.1f} "
        f"(standard deviation {figures['eval/return_std']:.1f}, "
        f"{figures['eval/length']:.0f} steps)."
    ]
    if figures["eval/unfinished"]:
        lines.append(f"  of which {figures['eval/unfinished']:.0%} had not ended by themselves")
    if "eval/return_iqm" in figures:
        lines.append(
            "Of all seeds: interquartile mean {:.1f}, 95% interval {:.1f} to {:.1f}.".format(
                *(figures[f"eval/return_iqm{x}"] for x in ("", "_low", "_high"))
            )
        )
    film = folder / "plots" / "episode.gif"
    drawn = write_gif(film, policy)
    run, weights = (shlex.quote(str(x)) for x in (folder, folder / "policy.safetensors"))
    shown = ["plots/episode.gif"] if drawn else []
    files = ["metrics.jsonl", "plots/", *shown, "checkpoints/", "best/", "config.json"]
    lines += [
        "",
        f"Files: {folder}/{', '.join(files)}",
        "Next:",
        f"  python launch/play.py --workdir={run}",
        f"  python launch/evaluate.py --workdir={run}",
        f"  python launch/export.py --workdir={run} --format=safetensors --output={weights}",
    ]
    return "\n".join(lines)
