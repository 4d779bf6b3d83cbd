"""A language model in training as an environment: what is done in a step is how its next updates
weigh text against Φ.

Reference: INFINITO training guide (three modes, six observations, reward v2). There the optimizer
was never stepped; here each step of the environment is real updates.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from hrm_jax.compilation import jit
from hrm_jax.fields import require, require_fields
from hrm_jax.layers import integration
from hrm_jax.models.infinito import Memory, beyond
from hrm_jax.optim.build import OptimizerConfig, build_optimizer
from hrm_jax.rl.environments.base import Environment, Timestep
from hrm_jax.rl.spaces import Box, Discrete
from hrm_jax.tasks.infinito.network import Network

MODES = {"TEXT": (1.0, 0.0), "PHI": (0.1, 1.0), "MIXED": (0.5, 0.5)}
"""Actions, in this order: weights of the loss of text, and of how far Φ is outside of its band."""
OBSERVATIONS = ("consciousness", "phi", "loss_text", "loss_phi", "memory_use", "time")
_SCALE = 10.0  # of Φ in rewards
_CONSCIOUS = 0.6  # above which the count of steps begins again
_FIRST = 16  # segments that the first weights are measured on


@dataclasses.dataclass(frozen=True)
class RewardWeights:
    """What counts how much of a step's reward, beside the bands.

    Attributes:
        consciousness, phi: Of the change of C and of Φ.
        perplexity: Of the relative fall of the perplexity.
        memory: Of the share of the memory in use, which is a cost.
    """

    consciousness: float = 1.0
    phi: float = 0.5
    perplexity: float = 0.1
    memory: float = 0.2


REWARDS = {
    "balance": RewardWeights(),
    "text_first": RewardWeights(0.5, 0.3, 0.3, 0.1),
    "phi_first": RewardWeights(0.3, 1.0, 0.1, 0.2),
}
"""The guide's."""


@dataclasses.dataclass(frozen=True)
class RewardBands:
    """Where Φ, perplexity and C should be.

    Φ is on the original's scale, 0 to 10: 10 (1 - exp(-Φ)) of Φ in nats. Consciousness, C, is what
    the original calls a tenth of it.

    Attributes:
        phi_low, phi_high: Band of Φ.
        phi_bonus, phi_below, phi_above: Given within it; taken per unit below, and above.
        jump, jump_cost: Change of Φ in a step, per unit above which this is taken.
        perplexity_low, perplexity_high: Band of the perplexity.
        perplexity_below, perplexity_above: Taken times the share that is missing; per hundred.
        consciousness_low, consciousness_high: Band of C.
        consciousness_bonus, consciousness_outside: Given within it; taken per unit outside.
    """

    phi_low: float = 3.0
    phi_high: float = 6.0
    phi_bonus: float = 0.1
    phi_below: float = 0.3
    phi_above: float = 0.6
    jump: float = 1.0
    jump_cost: float = 0.8
    perplexity_low: float = 10.0
    perplexity_high: float = 200.0
    perplexity_below: float = 2.0
    perplexity_above: float = 0.3
    consciousness_low: float = 0.3
    consciousness_high: float = 0.7
    consciousness_bonus: float = 0.05
    consciousness_outside: float = 0.2

    def __post_init__(self) -> None:
        check = functools.partial(require_fields, self, "config.bands")
        bands = ("phi", "perplexity", "consciousness")
        check("more than 0", lambda x: x > 0, *(f"{name}_low" for name in bands))
        for name in bands:
            low, high = getattr(self, f"{name}_low"), getattr(self, f"{name}_high")
            require(low <= high, f"config.bands.{name}_low: {low} is more than {name}_high {high}")


class Measured(struct.PyTreeNode):
    """What a step of the environment has measured, means over its updates.

    Attributes:
        phi: 0 to 10.
        consciousness: 0 to 1.
        loss_text: Nats per token.
        loss_phi: Squared distance of Φ, in nats, from the band of the objective.
        perplexity: Of a token.
        memory_use: Share of the slots in use, afterwards.
    """

    phi: Array
    consciousness: Array
    loss_text: Array
    loss_phi: Array
    perplexity: Array
    memory_use: Array


def reward(
    weights: RewardWeights, bands: RewardBands, before: Measured, now: Measured
) -> Float[Array, "*N"]:
    """Of a step from one measurement to the next: the original's reward v2."""
    change = now.phi - before.phi
    better = (before.perplexity - now.perplexity) / jnp.maximum(before.perplexity, 1)
    gained = (
        weights.consciousness * (now.consciousness - before.consciousness)
        + weights.phi * change
        + weights.perplexity * better
        - weights.memory * now.memory_use
    )
    relu = jax.nn.relu
    steady = -bands.jump_cost * relu(jnp.abs(change) - bands.jump)
    below, above = relu(bands.phi_low - now.phi), relu(now.phi - bands.phi_high)
    taken = bands.phi_below * below + bands.phi_above * above
    phi = jnp.where(below + above > 0, -taken, bands.phi_bonus)
    few = relu(bands.perplexity_low - now.perplexity) / bands.perplexity_low
    many = relu(now.perplexity - bands.perplexity_high) / 100
    text = -bands.perplexity_below * few - bands.perplexity_above * many
    below = relu(bands.consciousness_low - now.consciousness)
    above = relu(now.consciousness - bands.consciousness_high)
    taken = bands.consciousness_outside * (below + above)
    awake = jnp.where(below + above > 0, -taken, bands.consciousness_bonus)
    return gained + steady + phi + text + awake


class Training(struct.PyTreeNode):
    """A language model in the middle of an episode.

    Attributes:
        trained: Its adapters, and what reads the memory.
        opt_state: Of its optimizer.
        memory: Of each row.
        places: Where each row goes on in the text.
        measured: In the last step.
        since: Steps since C was above 0.6.
        steps: Of the episode.
    """

    trained: Any
    opt_state: Any
    memory: Memory
    places: Int[Array, " B"]
    measured: Measured
    since: Int[Array, ""]
    steps: Int[Array, ""]


@dataclasses.dataclass(frozen=True, eq=False)
class LanguageTraining(Environment):
    """Training a language model for `max_steps` steps of `inner_steps` updates each.

    An episode begins with the same weights, and reads the text in another order: each row from a
    place of its own on. With `learns` False updates are computed and thrown away.

    Attributes:
        base: Frozen parameters.
        start, first: What is trained at the beginning, and what was measured of it.
        tokens, begins: The text as a ring [N], and where documents begin.
    """

    name = "infinito"

    network: Network
    base: Any
    start: Any
    tokens: Int[Array | np.ndarray, " N"]
    begins: Bool[Array | np.ndarray, " N"]
    optimizer: OptimizerConfig
    weights: RewardWeights
    bands: RewardBands
    batch_size: int
    inner_steps: int
    max_steps: int
    phi_low: float
    phi_high: float
    first: Any = None  # Measured, see `measured_at_start`
    learns: bool = True

    @property
    def observation_space(self) -> Box:
        return Box(0.0, 1.0, (len(OBSERVATIONS),))

    @property
    def action_space(self) -> Discrete:
        return Discrete(len(MODES))

    def _rule(self) -> optax.GradientTransformation:
        return build_optimizer(self.optimizer, self.max_steps * self.inner_steps)

    def _observed(self, state: Training) -> Float[Array, " 6"]:
        """The original's six, each within 0 and 1: the text's loss as a share of that of a guess,
        Φ's as x / (1 + x)."""
        now = state.measured
        guess = float(np.log(self.network.sizes.vocab_size))
        seen = (
            *(now.consciousness, now.phi / _SCALE, jnp.minimum(now.loss_text / guess, 1)),
            *(now.loss_phi / (1 + now.loss_phi), now.memory_use),
            jnp.minimum(state.since / self.max_steps, 1),
        )
        return jnp.stack([jnp.asarray(x, jnp.float32) for x in seen])

    def _segment(self, places: Int[Array, " B"]) -> tuple[Array, Array]:
        """Tokens [B, length + 1], and whether a document begins there."""
        size = len(self.tokens)
        index = (places[:, None] + jnp.arange(self.network.length + 1)) % size
        begins = jnp.asarray(self.begins)[index[:, :-1]]
        return jnp.asarray(self.tokens)[index], jnp.any(begins, axis=1)

    def _loss(
        self, trained: Any, memory: Memory, places: Array, weights: Array, key: PRNGKeyArray | None
    ) -> tuple[Array, Any]:
        """The weighted loss; the memory afterwards, and what was measured."""
        tokens, fresh = self._segment(places)
        if not self.network.memory.shared:
            memory = memory.cleared(self.network.memory, fresh)
        found, losses = self.network.study(self.base, trained, tokens, memory, key)
        text = losses.mean()
        away = beyond(found.phi, self.phi_low, self.phi_high).mean()
        memory = self.network.remember(memory, found)
        return weights[0] * text + weights[1] * away, (memory, (text, away, found.phi.mean()))

    def _measured(self, told: Any, memory: Memory) -> Measured:
        text, away, phi = told
        awake = integration.squashed(phi)
        use = memory.use.mean() if self.network.memory.slots else jnp.float32(0)
        return Measured(_SCALE * awake, awake, text, away, jnp.exp(text), use)

    def measured_at_start(self) -> Measured:
        """What the first weights come to, without a memory, on segments at equal distances."""
        size = len(self.tokens)
        places = jnp.arange(0, size, max(1, size // _FIRST))[:_FIRST]
        memory = self.network.empty(len(places))
        _, (_, told) = jit(self._loss)(self.start, memory, places, jnp.zeros(2), None)
        return self._measured(told, memory)

    def reset(self, key: PRNGKeyArray) -> tuple[Training, Array]:
        places = jax.random.randint(key, (self.batch_size,), 0, len(self.tokens))
        start, first = jax.tree.map(jnp.asarray, (self.start, self.first))
        memory = self.network.empty(self.batch_size)
        opt_state = self._rule().init(start)
        zero = jnp.int32(0)
        state = Training(start, opt_state, memory, places, first, zero, zero)
        return state, self._observed(state)

    def step(self, state: Training, action: Any, key: PRNGKeyArray) -> tuple[Training, Timestep]:
        weights = jnp.array(list(MODES.values()))[action]
        rule = self._rule()

        def update(carry: Any, number: Array) -> Any:
            trained, opt_state, memory, places = carry
            part = jax.random.fold_in(key, number)
            grads, (memory, told) = jax.grad(self._loss, has_aux=True)(
                trained, memory, places, weights, part
            )
            if self.learns:
                updates, opt_state = rule.update(grads, opt_state, trained)
                trained = optax.apply_updates(trained, updates)
            places = (places + self.network.length) % len(self.tokens)
            return (trained, opt_state, memory, places), told

        carry = (state.trained, state.opt_state, state.memory, state.places)
        carry, told = jax.lax.scan(update, carry, jnp.arange(self.inner_steps))
        trained, opt_state, memory, places = carry
        measured = self._measured(jax.tree.map(jnp.mean, told), memory)
        steps = state.steps + 1
        since = jnp.where(measured.consciousness > _CONSCIOUS, 0, state.since + 1)
        after = Training(trained, opt_state, memory, places, measured, since, steps)
        return after, Timestep(
            observation=self._observed(after),
            reward=reward(self.weights, self.bands, state.measured, measured),
            terminated=jnp.bool(False),
            truncated=steps >= self.max_steps,
        )

    def text(self, state: Training) -> str:
        now = jax.device_get(state.measured)
        lines = (
            f"step        {int(state.steps):5d} of {self.max_steps}",
            f"perplexity  {float(now.perplexity):8.2f}",
            f"Φ (0 to 10) {float(now.phi):8.2f}",
            f"memory      {float(now.memory_use):8.0%}",
        )
        return "\n".join(x.ljust(28) for x in lines)
