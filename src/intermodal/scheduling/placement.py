"""Where a container can run: what it asks for, against what the nodes have free.

CPU is kept in thousandths of a core, so that sums are exact. A node without a cloud or region label accepts what asks
for any: a program that names a region runs unchanged on a machine that has no such thing.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from modal._wire.messages.function import Resources

from .events import NodeJoined

CPU_OVERCOMMIT = 2  #: with overcommit allowed, a node's cpu counts this many times


@dataclass(frozen=True, slots=True)
class Request:
    """What one container takes."""

    cpu: int  #: thousandths of a core
    memory: int  #: MiB
    gpus: tuple[tuple[str, int], ...] = ()  #: alternatives in order of preference: type ("" for any) and count
    cloud: str = ""
    regions: tuple[str, ...] = ()

    @classmethod
    def of(cls, resources: Resources, cloud: str = "", regions: Sequence[str] = ()) -> Request:
        wanted_cloud = "" if cloud.lower() == "auto" else cloud.lower()
        return cls(
            cpu=math.ceil(resources.cpu * 1000),
            memory=resources.memory,
            gpus=tuple(_parse_gpu(text) for text in resources.gpu),
            cloud=wanted_cloud,
            regions=tuple(region.lower() for region in regions),
        )


@dataclass(slots=True)
class Node:
    """A machine and what is free on it."""

    node_id: str
    cpu: int
    memory: int
    gpus: tuple[str, ...]
    cloud: str
    region: str
    free_cpu: int
    free_memory: int
    free_gpus: list[str]
    starting: int = 0  #: containers on it that are not ready yet

    @property
    def may_start(self) -> int:
        """How many containers may be starting at one time: it is cpu work, and more at once makes each slower."""
        return max(2, self.cpu // 1000)


@dataclass(frozen=True, slots=True)
class Allocation:
    node_id: str
    cpu: int
    memory: int
    gpus: tuple[str, ...]


class Verdict(enum.Enum):
    FITS = "fits"  #: on `node_id`, now
    BUSY = "busy"  #: it fits, once other containers there have started
    PENDING = "pending"  #: not now, for `reason`
    IMPOSSIBLE = "impossible"  #: on no node that there is, even if it were empty


@dataclass(frozen=True, slots=True)
class Fit:
    verdict: Verdict
    node_id: str = ""
    reason: str = ""  #: continues "the function …"
    short: tuple[str, ...] = ()  #: the kinds of things that are short, to tell one reason from another


@dataclass(slots=True)
class Placement:
    """The nodes. `version` grows whenever something may fit that did not before."""

    nodes: dict[str, Node] = field(default_factory=dict)
    version: int = 0
    _lost: dict[str, Node] = field(default_factory=dict)

    @property
    def cores(self) -> int:
        """Whole cores of all nodes, at least 1."""
        return max(1, sum(node.cpu for node in self.nodes.values()) // 1000)

    def join(self, event: NodeJoined) -> None:
        """Add a node, or change what a known one has."""
        cpu = int(event.cpu * 1000)
        known = self.nodes.get(event.node_id)
        node = Node(
            event.node_id, cpu, event.memory, event.gpus, event.cloud.lower(), event.region.lower(),
            cpu, event.memory, list(event.gpus),
        )  # fmt: skip
        if known is not None:
            node.free_cpu -= known.cpu - known.free_cpu
            node.free_memory -= known.memory - known.free_memory
            for gpu in _without(known.gpus, known.free_gpus):
                if gpu in node.free_gpus:
                    node.free_gpus.remove(gpu)
            node.starting = known.starting
        self.nodes[event.node_id] = node
        self._lost.pop(event.node_id, None)
        self.version += 1

    def lose(self, node_id: str) -> None:
        """A node is gone, maybe not for good: what only it could run waits for it."""
        node = self.nodes.pop(node_id, None)
        if node is not None:
            self._lost[node_id] = node
            self.version += 1

    def fit(self, request: Request, overcommit_cpu: bool = False) -> Fit:
        """Say whether and where a container fits: of the nodes that have room, the one with most free cpu.

        Args:
            request: what it takes.
            overcommit_cpu: let it share cpu that is already given away, up to `CPU_OVERCOMMIT` times what there is.
        """
        if not self.nodes:
            return Fit(Verdict.PENDING, reason="no machine is connected", short=("machine",))
        able = [node for node in self.nodes.values() if _holds(node, request)]
        if not able:
            gone = next((node.node_id for node in self._lost.values() if _holds(node, request)), "")
            if gone:
                reason = f"needs the machine {gone}, which is not connected"
                return Fit(Verdict.PENDING, reason=reason, short=("machine",))
            return Fit(Verdict.IMPOSSIBLE, reason=self._never(request), short=("never",))
        spare = {node.node_id: node.cpu * (CPU_OVERCOMMIT - 1) if overcommit_cpu else 0 for node in able}
        roomy = [node for node in able if _has_room(node, request, spare[node.node_id])]
        if not roomy:
            return _lacking(max(able, key=lambda n: (n.free_cpu, n.free_memory)), request)
        calm = [node for node in roomy if node.starting < node.may_start]
        if not calm:
            return Fit(Verdict.BUSY)
        # A node with GPUs is the last choice of a container that needs none.
        best = min(calm, key=lambda n: (bool(n.gpus) and not request.gpus, -n.free_cpu, -n.free_memory, n.node_id))
        return Fit(Verdict.FITS, best.node_id)

    def take(self, request: Request, node_id: str) -> Allocation:
        """Give the container what it asks for. `fit` said that it is there."""
        node = self.nodes[node_id]
        gpus = _pick_gpus(node.free_gpus, request) or ()
        for gpu in gpus:
            node.free_gpus.remove(gpu)
        node.free_cpu -= request.cpu
        node.free_memory -= request.memory
        node.starting += 1
        return Allocation(node_id, request.cpu, request.memory, gpus)

    def started(self, allocation: Allocation) -> None:
        """The container is not starting any more: it is ready, or it failed."""
        node = self.nodes.get(allocation.node_id)
        if node is not None:
            node.starting -= 1
            self.version += 1

    def release(self, allocation: Allocation) -> None:
        """The container is gone."""
        node = self.nodes.get(allocation.node_id)
        if node is not None:
            node.free_cpu += allocation.cpu
            node.free_memory += allocation.memory
            node.free_gpus.extend(allocation.gpus)
            self.version += 1

    def would_fit(self, request: Request, node_id: str, freed: Sequence[Allocation]) -> bool:
        """Whether a container would fit on the node once these are released."""
        node = self.nodes[node_id]
        gpus = list(node.free_gpus) + [gpu for allocation in freed for gpu in allocation.gpus]
        return (
            _accepts(node, request)
            and request.cpu <= node.free_cpu + sum(allocation.cpu for allocation in freed)
            and request.memory <= node.free_memory + sum(allocation.memory for allocation in freed)
            and _pick_gpus(gpus, request) is not None
        )

    def share(self, allocation: Allocation) -> float:
        """The part of the whole that it takes, of the resource of which it takes most."""
        cpu = sum(node.cpu for node in self.nodes.values()) or 1
        memory = sum(node.memory for node in self.nodes.values()) or 1
        gpus = sum(len(node.gpus) for node in self.nodes.values()) or 1
        return max(allocation.cpu / cpu, allocation.memory / memory, len(allocation.gpus) / gpus)

    def _never(self, request: Request) -> str:
        """Why no node can ever run it."""
        labelled = [node for node in self.nodes.values() if _accepts(node, request)]
        if not labelled:
            asked = " or ".join(request.regions) if request.regions else request.cloud
            return f"asks for {asked}, and no machine is there"
        fitting = [node for node in labelled if _pick_gpus(node.gpus, request) is not None]
        if not fitting:
            wanted = " or ".join(f"{count} x {kind or 'any GPU'}" for kind, count in request.gpus)
            had = sorted({gpu for node in labelled for gpu in node.gpus})
            return f"needs {wanted}; the machines have {', '.join(had) if had else 'no GPU'}"
        if all(node.cpu < request.cpu for node in fitting):
            most = max(node.cpu for node in fitting)
            return f"needs {_cores(request.cpu)}; the largest machine has {_cores(most)}"
        if all(node.memory < request.memory for node in fitting):
            most = max(node.memory for node in fitting)
            return f"needs {request.memory} MiB of memory; the largest machine has {most} MiB"
        return f"needs {_cores(request.cpu)} and {request.memory} MiB of memory; no one machine has both"


def _parse_gpu(text: str) -> tuple[str, int]:
    kind, _, count = text.partition(":")
    kind = kind.strip().lower()
    return ("" if kind == "any" else kind, int(count) if count.strip().isdigit() else 1)


def _accepts(node: Node, request: Request) -> bool:
    if request.cloud and node.cloud and request.cloud != node.cloud:
        return False
    if not request.regions or not node.region:
        return True
    return any(node.region == region or node.region.startswith(region + "-") for region in request.regions)


def _holds(node: Node, request: Request) -> bool:
    """Whether it would fit if the node were empty."""
    return (
        _accepts(node, request)
        and request.cpu <= node.cpu
        and request.memory <= node.memory
        and _pick_gpus(node.gpus, request) is not None
    )


def _has_room(node: Node, request: Request, spare_cpu: int) -> bool:
    return (
        request.cpu <= node.free_cpu + spare_cpu
        and request.memory <= node.free_memory
        and _pick_gpus(node.free_gpus, request) is not None
    )


def _pick_gpus(available: Sequence[str], request: Request) -> tuple[str, ...] | None:
    """The devices it would get, or None when no alternative is there."""
    if not request.gpus:
        return ()
    for kind, count in request.gpus:
        kinds = [kind] if kind else sorted({gpu.lower() for gpu in available})
        for one in kinds:
            matching = [gpu for gpu in available if gpu.lower() == one]
            if len(matching) >= count:
                return tuple(matching[:count])
    return None


def _lacking(node: Node, request: Request) -> Fit:
    """Which resources are short on the node that is closest."""
    short: dict[str, str] = {}
    if request.cpu > node.free_cpu:
        short["cpu"] = f"{_cores(request.cpu)} ({max(0, node.free_cpu) / 1000:g} of {node.cpu / 1000:g} free)"
    if request.memory > node.free_memory:
        short["memory"] = f"{request.memory} MiB of memory ({max(0, node.free_memory)} of {node.memory} free)"
    if _pick_gpus(node.free_gpus, request) is None:
        wanted = " or ".join(f"{count} x {kind or 'any GPU'}" for kind, count in request.gpus)
        short["gpu"] = f"{wanted} ({len(node.free_gpus)} of {len(node.gpus)} GPUs free)"
    reason = f"needs {' and '.join(short.values())} on {node.node_id}"
    return Fit(Verdict.PENDING, reason=reason, short=tuple(short))


def _cores(milli: int) -> str:
    return "1 core" if milli == 1000 else f"{milli / 1000:g} cores"


def _without(everything: Sequence[str], part: Sequence[str]) -> list[str]:
    rest = list(everything)
    for one in part:
        if one in rest:
            rest.remove(one)
    return rest
