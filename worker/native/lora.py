"""Device slots of LoRA weights, and the batched computation over them.

Every adapted module computes y = g∘out + c + B'·A·x, where B' carries the scale; g and c are there for DoRA and LoRA
bias only. Slot 0 is the null slot of base rows and never computed. Modules that read the same input share one product
with their A's. Weights are read in place, never gathered per token. Knows neither files nor who holds a slot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from lorapool.worker.kernels import lora as lora_kernel
from lorapool.worker.native.embedding import EmbeddingTables, ModuleWeights
from lorapool.worker.native.lora_products import Bound, Product, SlotRows, plan_products

_PLANS_KEPT = 4  # decoding repeats the last step's segments: of all rows, and of those that draw


class Weights(Protocol):
    """One adapter, by module path."""

    @property
    def modules(self) -> Mapping[str, ModuleWeights]: ...


@dataclass(slots=True, eq=False)
class Site:
    """One adapted module. ``up`` is B' transposed: [slots, rank, out]."""

    index: int  # its place in the group
    up: Tensor
    gains: dict[int, Tensor] = field(default_factory=dict)
    offsets: dict[int, Tensor] = field(default_factory=dict)
    slots: set[int] = field(default_factory=set)  # those with weights here


@dataclass(slots=True, eq=False)
class InputGroup:
    """Modules that read the same input. ``down`` stacks their A's, transposed: [slots, in, sites * rank]."""

    rank: int
    down: Tensor
    sites: dict[str, Site] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class BoundSites:
    """What a plan needs of modules that read one input: which of them have weights, where they lie among all, and
    the plan's products bound to their A's and B's."""

    sites: list[tuple[int, Site]]
    products: list[Bound]


@dataclass(slots=True, eq=False)
class LoraPlan:
    """What all modules share in one step. ``segments``: (slot, start, stop) in the flat row, base rows left out."""

    segments: list[SlotRows]
    products: list[Product]
    slots: frozenset[int]
    generation: int  # of the slots it was made for
    bound: dict[str, BoundSites | None] = field(default_factory=dict)  # by first module; None: no row has anything


class LoraSlots:
    """SlotStore on one device. ``generation`` changes with every write and clear."""

    def __init__(
        self,
        slots: int,
        max_rank: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        shared_inputs: Sequence[Sequence[str]] = (),
        embeddings: Iterable[str] = (),
    ) -> None:
        self.slots, self.max_rank, self.generation = slots, max_rank, 0
        self._dtype, self._device = dtype, torch.device(device)
        self._key = {path: paths[0] for paths in shared_inputs for path in paths}
        self._groups: dict[str, InputGroup] = {}
        self._plans: dict[tuple[tuple[int, int], ...], LoraPlan] = {}  # the latest, of this generation
        self._tables = EmbeddingTables(embeddings, dtype, self._device)
        if lora_kernel.serves(dtype, self._device):
            lora_kernel.prepare(dtype)

    @property
    def nbytes(self) -> int:
        """Bytes allocated now; room is made as adapters come, for the modules and ranks they use."""
        groups = self._groups.values()
        return self._tables.nbytes + sum(g.down.nbytes + sum(s.up.nbytes for s in g.sites.values()) for g in groups)

    @property
    def occupied(self) -> frozenset[int]:
        """The slots that hold an adapter."""
        sites = [site.slots for group in self._groups.values() for site in group.sites.values()]
        return frozenset(self._tables.slots().union(*sites))

    def write(self, slot: int, weights: Weights) -> None:
        """Put an adapter into a slot (1 to slots), in place of what was there."""
        assert 1 <= slot <= self.slots, f"slot {slot} of {self.slots}"
        self.clear(slot)
        for path, module in weights.modules.items():
            if path in self._tables:
                self._tables.write(slot, path, module)
            else:
                self._write_site(slot, path, module)

    def clear(self, slot: int) -> None:
        """Make a slot compute nothing."""
        self.generation += 1
        self._plans.clear()
        self._tables.clear(slot)
        for group in self._groups.values():
            present = [site for site in group.sites.values() if slot in site.slots]
            if present:
                group.down[slot] = 0
            for site in present:
                site.slots.discard(slot)
                site.up[slot] = 0
                site.gains.pop(slot, None)
                site.offsets.pop(slot, None)

    def plan(self, segments: Sequence[tuple[int, int]]) -> LoraPlan:
        """Plan a step whose flat row consists of these (slot, rows), in this order; the same again: the same plan."""
        key = tuple(segments)
        plan = self._plans.pop(key, None) or self._new_plan(key)
        self._plans[key] = plan
        if len(self._plans) > _PLANS_KEPT:
            del self._plans[next(iter(self._plans))]
        return plan

    def apply(self, paths: Sequence[str], x: Tensor, outs: Sequence[Tensor], plan: LoraPlan) -> None:
        """Add the adapters' part in place to what modules that read ``x`` [rows, in_features] gave: ``outs`` [rows,
        out_features], in the order of ``paths``, which are one of the slots' ``shared_inputs`` or one module alone."""
        assert plan.generation == self.generation, "the slots changed between plan and computation"
        if paths[0] not in plan.bound:
            plan.bound[paths[0]] = self._bind(paths, plan)
        bound = plan.bound[paths[0]]
        if bound is None:
            return
        for index, site in bound.sites:
            if site.gains or site.offsets:
                _gain(site, outs[index], plan)
        x, given = x.to(self._dtype), [outs[index] for index, _ in bound.sites]
        for product in bound.products:
            product(x, given)

    def embed(self, path: str, ids: Tensor, out: Tensor, plan: LoraPlan) -> None:
        """Add the adapters' part to an embedding's ``out`` [rows, dim] in place; ``ids`` [rows]."""
        self._tables.apply(path, ids, out, plan.segments)

    def check_integrity(self) -> None:
        """Raise AssertionError unless the null slot is zero and unused slots compute nothing."""
        assert 0 not in self.occupied, "an adapter in the null slot"
        for key, group in self._groups.items():
            assert not group.down[0].any(), f"null slot of {key} is not zero"
            for path, site in group.sites.items():
                empty = [slot for slot in range(self.slots + 1) if slot not in site.slots]
                assert not site.up[empty].any(), f"{path}: an unused slot is not zero"
                assert site.gains.keys() <= site.slots and site.offsets.keys() <= site.slots, f"{path}: stale gain"

    def _new_plan(self, segments: Sequence[tuple[int, int]]) -> LoraPlan:
        taken, start = [], 0
        for slot, count in segments:
            if slot and count:
                taken.append((slot, start, start + count))
            start += count
        return LoraPlan(
            taken,
            plan_products(taken, self._dtype, self._device),
            frozenset(slot for slot, _, _ in taken),
            self.generation,
        )

    def _bind(self, paths: Sequence[str], plan: LoraPlan) -> BoundSites | None:
        group = self._groups.get(self._key.get(paths[0], paths[0]))
        if group is None:
            return None
        served = [(index, group.sites[path]) for index, path in enumerate(paths) if path in group.sites]
        sites = [(index, site) for index, site in served if not plan.slots.isdisjoint(site.slots)]
        ups = [(site.index * group.rank, site.up) for _, site in sites]
        return BoundSites(sites, [product.bind(group.down, ups) for product in plan.products]) if sites else None

    def _write_site(self, slot: int, path: str, module: ModuleWeights) -> None:
        group, site = self._site(path, module)
        rank = module.A.shape[0]
        at = site.index * group.rank
        group.down[slot, :, at : at + rank] = module.A.t().to(self._device, self._dtype)
        site.up[slot, :rank] = module.B.t().to(self._device, self._dtype)
        site.slots.add(slot)
        exact = torch.promote_types(self._dtype, torch.float32)
        if module.gain is not None:
            site.gains[slot] = module.gain.to(self._device, exact)
        if module.offset is not None:
            site.offsets[slot] = module.offset.to(self._device, exact)

    def _site(self, path: str, module: ModuleWeights) -> tuple[InputGroup, Site]:
        """Return a module's place, made or enlarged as needed."""
        (rank, width), out = module.A.shape, module.B.shape[0]
        assert rank <= self.max_rank, f"{path}: rank {rank} exceeds max_rank {self.max_rank}"
        group = self._groups.setdefault(self._key.get(path, path), InputGroup(rank, self._zeros(width, 0)))
        if group.rank < rank or path not in group.sites:
            self._enlarge(group, max(group.rank, rank), path, out)
        return group, group.sites[path]

    def _enlarge(self, group: InputGroup, rank: int, path: str, out: int) -> None:
        before, width = len(group.sites), group.down.shape[1]
        if path not in group.sites:
            group.sites[path] = Site(before, self._zeros(rank, out))
        old = group.down.view(self.slots + 1, width, before, group.rank)
        group.down = self._zeros(width, len(group.sites) * rank)
        group.down.view(self.slots + 1, width, -1, rank)[:, :, :before, : group.rank] = old
        for site in group.sites.values():
            up = self._zeros(rank, site.up.shape[-1])
            up[:, : site.up.shape[1]] = site.up
            site.up = up
        group.rank = rank

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(self.slots + 1, *shape, dtype=self._dtype, device=self._device)


def _gain(site: Site, out: Tensor, plan: LoraPlan) -> None:
    for slot, start, stop in plan.segments:
        if slot in site.gains:
            out[start:stop] *= site.gains[slot]
        if slot in site.offsets:
            out[start:stop] += site.offsets[slot]
