"""A replay buffer on the device: a ring of transitions, drawn uniformly or by priority.

Its own and not flashbax' (0.1.3), whose flat buffers pair each item with the next of the stream:
after a truncation that is the next episode's. With transitions as items, as here, what would be
used of it is the sum tree alone.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray


class Replay(struct.PyTreeNode):
    """The last C transitions.

    Attributes:
        items: A tree of arrays [C, …], of the dtypes in which they were given.
        position: Where the next one goes.
        size: How many there are.
        tree: Sums of priorities, [2 P] for the least power of two P above C: the whole at 1, the
            halves of node i at 2 i and 2 i + 1, transition j at P + j. Drawing 128 of 2¹⁷ and
            setting their priorities takes less than half as long as with a running sum over all of
            them, on a CPU. None where all are alike.
        largest: The largest priority there has been; new transitions have it.
    """

    items: Any
    position: Int[Array, ""]
    size: Int[Array, ""]
    tree: Float[Array, " N"] | None
    largest: Float[Array, ""]

    @classmethod
    def empty(cls, item: Any, capacity: int, prioritized: bool = False) -> Replay:
        """One for so many items like the given tree of arrays, or of their shapes and dtypes."""
        items = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), item)
        tree = jnp.zeros(2 << capacity.bit_length()) if prioritized else None
        return cls(items, jnp.int32(0), jnp.int32(0), tree, jnp.float32(1))

    @property
    def capacity(self) -> int:
        return len(jax.tree.leaves(self.items)[0])

    def add(self, items: Any, valid: Bool[Array, " N"]) -> Replay:
        """With the valid ones of N items, N ≤ C, in place of the oldest."""
        counts = jnp.cumsum(valid, dtype=jnp.int32)
        place = (self.position + counts - 1) % self.capacity
        place = jnp.where(valid, place, self.capacity)  # beyond the end, where nothing is kept
        stored = jax.tree.map(
            lambda all, new: all.at[place].set(new, mode="drop"), self.items, items
        )
        tree = self.tree
        if tree is not None:
            tree = _set(tree, place, jnp.where(valid, self.largest, 0))
        return self.replace(
            items=stored,
            position=(self.position + counts[-1]) % self.capacity,
            size=jnp.minimum(self.size + counts[-1], self.capacity),
            tree=tree,
        )

    def sample(self, key: PRNGKeyArray, number: int) -> tuple[Int[Array, " N"], Float[Array, " N"]]:
        """Places of so many transitions, drawn with replacement, and the probability of each.

        By priority they are drawn one from each of N equal parts of the sum (Schaul et al. 2016,
        arXiv:1511.05952, appendix B.2.1).
        """
        if self.tree is None:
            places = jax.random.randint(key, (number,), 0, self.size)
            return places, jnp.full(number, 1 / self.size)
        parts = jnp.arange(number) + jax.random.uniform(key, (number,))
        places = _find(self.tree, parts / number * self.tree[1])
        return places, self.tree[len(self.tree) // 2 + places] / self.tree[1]

    def prioritize(self, places: Int[Array, " N"], priorities: Float[Array, " N"]) -> Replay:
        """With other priorities, more than 0, of transitions; places may be there twice if their
        priorities are the same."""
        assert self.tree is not None
        largest = jnp.maximum(self.largest, priorities.max())
        return self.replace(tree=_set(self.tree, places, priorities), largest=largest)


def _set(tree: Array, places: Array, priorities: Array) -> Array:
    """The sums are made anew on the way up, so that no error adds up."""
    node = len(tree) // 2 + places
    tree = tree.at[node].set(priorities)
    for _ in range(_depth(tree)):
        node //= 2
        tree = tree.at[node].set(tree[2 * node] + tree[2 * node + 1])
    return tree


def _find(tree: Array, sums: Array) -> Array:
    """Where the running sum of priorities exceeds each of `sums`; never at one that is 0."""
    node = jnp.ones(sums.shape, jnp.int32)
    for _ in range(_depth(tree)):
        left, right = tree[2 * node], tree[2 * node + 1]
        to_right = (sums >= left) & (right > 0)  # rounding may exceed what there is
        sums = jnp.where(to_right, sums - left, sums)
        node = 2 * node + to_right
    return node - len(tree) // 2


def _depth(tree: Array) -> int:
    return len(tree).bit_length() - 2
