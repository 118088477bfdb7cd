"""The KV caches of a model as the scheduler sees them. Plain Python."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.engines.kv_cache import KvCache

KV_RESOURCE = "kv_"  # before the name of a cache whose blocks are scarce


@dataclass(frozen=True, slots=True)
class CacheSpec:
    """What a family says of one of its caches.

    Args:
        name: in metrics and as the bound of a refusal.
        title: in messages.
        positions: of this cache for each text step.
        only_speaking: whether streams that do not speak do without it.
    """

    name: str
    title: str
    positions: int = 1
    only_speaking: bool = False

    @property
    def resource(self) -> str:
        """The name of its blocks where they are scarce."""
        return KV_RESOURCE + self.name

    def __post_init__(self) -> None:
        if self.positions < 1:
            raise ValueError(f"positions: {self.positions} is not positive")


@dataclass(frozen=True, slots=True)
class Cache:
    """A cache and its specification."""

    spec: CacheSpec
    kv: KvCache

    def blocks_for(self, steps: int) -> int:
        """Blocks that a stream of so many text steps needs."""
        return self.kv.blocks_for(steps * self.spec.positions)

    def cut(self, steps: int) -> tuple[int, int]:
        """Full blocks of so many text steps, and positions in the block behind them."""
        return divmod(steps * self.spec.positions, self.kv.shape.tokens_per_block)
