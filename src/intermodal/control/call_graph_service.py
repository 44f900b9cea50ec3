"""RPC: the call graph of a call. What is live comes from memory, what has ended from the journal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from intermodal.control.access import require_environment, require_use
from intermodal.control.apps import Apps
from intermodal.control.calls import Call, Calls, containers_of, input_id
from intermodal.control.fleet import Fleet
from intermodal.control.functions import Functions, label
from intermodal.control.rpc import Context, Dispatcher, ServerStream
from intermodal.store.interface import CallKind, CallRecord, FunctionRecord, Store
from modal._wire.codec import decode
from modal._wire.messages.call import CALL_GRAPH, CallGraph, GraphNode, GraphPart, Status
from modal._wire.messages.function import FunctionSpec

MOST_NODES = 10_000
_PART = 1_000  # nodes in one frame

_Ends = dict[int, tuple[Status | None, str]]  # index -> status, container


class CallGraphService:
    """Walks from a call to the calls that its inputs made, breadth first."""

    def __init__(self, apps: Apps, functions: Functions, calls: Calls, fleet: Fleet, store: Store) -> None:
        self._apps = apps
        self._functions = functions
        self._calls = calls
        self._fleet = fleet
        self._store = store

    def register(self, dispatcher: Dispatcher) -> None:
        dispatcher.register(CALL_GRAPH, self.graph)

    async def graph(self, ctx: Context, request: CallGraph, body: bytes, stream: ServerStream[Any, Any]) -> None:
        root = (await self._calls.find(request.call_id)).record
        require_use(ctx, self._apps, root.app_id)
        await require_environment(self._apps, root, request.environment)
        nodes: list[GraphNode] = []
        sent = 0
        async for node in self._walk(ctx, root):
            if sent + len(nodes) >= MOST_NODES:
                await stream.send(GraphPart(nodes, is_cut=True))
                return
            nodes.append(node)
            if len(nodes) >= _PART:
                await stream.send(GraphPart(nodes))
                sent, nodes = sent + len(nodes), []
        await stream.send(GraphPart(nodes))

    async def _walk(self, ctx: Context, root: CallRecord) -> AsyncIterator[GraphNode]:
        names: dict[str, tuple[str, str]] = {}
        seen = {root.call_id}  # a parent is what a client says it is: it might make a circle
        level = [replace(root, parent_input_id="")]
        while level:
            parents: list[str] = []
            running = self._fleet.holders()
            for call in level:
                if call.function_id not in names:
                    names[call.function_id] = await self._name(call.function_id)
                function_name, module_name = names[call.function_id]
                for index, (status, container_id) in sorted((await self._ends(call)).items()):
                    one = input_id(call.call_id, index)
                    if status is None:
                        container_id = running.get(one, "")
                    parents.append(one)
                    shown = label(function_name, call.method)
                    yield GraphNode(one, call.call_id, shown, module_name, status, container_id, call.parent_input_id)
            self._calls.flush()
            level = [
                child
                for child in await self._store.children(parents)
                if child.call_id not in seen and (ctx.principal.kind != "container" or child.app_id == root.app_id)
            ]
            seen.update(child.call_id for child in level)

    async def _name(self, function_id: str) -> tuple[str, str]:
        function = self._functions.by_id.get(function_id)
        if function is not None:
            return function.spec.name, function.spec.source.module
        record: FunctionRecord | None = await self._store.function(function_id)
        if record is None:
            return "", ""
        spec = decode(FunctionSpec, record.spec)
        return spec.name, spec.source.module

    async def _ends(self, record: CallRecord) -> _Ends:
        """How each input of a call ended; None: it has not. Of a call with very many, as many as a graph may have."""
        call = self._calls.live(record.call_id)
        if record.kind is not CallKind.MAP and call is not None:
            finished = call.output
            return {0: (finished.output.status, finished.container_id) if finished is not None else (None, "")}
        self._calls.flush()
        ends: _Ends = {}
        for stored, container_id in containers_of(await self._store.output_records(record.call_id, MOST_NODES)):
            ends[stored["index"]] = (Status(stored["status"]), container_id)
        for index in _unfinished(call):
            ends.setdefault(index, (None, ""))
        return ends


def _unfinished(call: Call | None) -> list[int]:
    return call.machine.unfinished()[:MOST_NODES] if call is not None else []
