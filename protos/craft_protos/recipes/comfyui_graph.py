"""ComfyUI's graph as data: nodes by their ids, and the links between them, within limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from craft_protos.frozen import dataclass

_MOST_NODES = 5000
_MOST_ENDS = 20  # that are looked behind
_LONGEST_CHAIN = 50  # of nodes that only hand a value on
_LONGEST_KIND = 80
_PASSED_ON = ("value", "text", "string", "int", "float", "seed", "noise_seed", "Value", "number", "prompt")


@dataclass(frozen=True)
class Node:
    """A node of the graph; an input is a value, or [the id of a node, the number of its output]."""

    id: str
    kind: str
    inputs: dict[str, Any]


class Graph:
    def __init__(self, nodes: dict[str, Node]) -> None:
        self._nodes = nodes

    @property
    def nodes(self) -> list[Node]:
        return list(self._nodes.values())

    def behind(self, node: Node, name: str) -> Node | None:
        """The node that an input is linked to."""
        return self._linked(node.inputs.get(name))

    def output(self, node: Node, name: str) -> int:
        """The number of the output that an input is linked to."""
        link = node.inputs.get(name)
        return int(link[1]) if isinstance(link, list) and _is_link(link) else 0

    def value(self, node: Node, name: str) -> Any:
        """What an input is set to, through nodes that hand a value on; None where that is not said."""
        value = node.inputs.get(name)
        for _ in range(_LONGEST_CHAIN):
            before = self._linked(value)
            if before is None:
                return None if isinstance(value, list) else value
            value = next((before.inputs[one] for one in _PASSED_ON if one in before.inputs), None)
        return None

    def ends(self) -> list[Node]:
        """Nodes that nothing is linked to, those that save a picture first, and not more than a graph may have."""
        used = {one[0] for node in self.nodes for one in node.inputs.values() if _is_link(one)}
        ends = [node for node in self.nodes if node.id not in used]
        ends.sort(key=lambda node: ("save" not in node.kind.lower(), "image" not in node.kind.lower()))
        return ends[:_MOST_ENDS]

    def above(self, node: Node, first: tuple[str, ...]) -> Iterator[Node]:
        """A node and all before it, each once, nearest first; of the inputs these before the others."""
        seen, waiting = {node.id}, [node]
        for one in waiting:  # it grows
            yield one
            for name in sorted(one.inputs, key=lambda name: name not in first):
                before = self.behind(one, name)
                if before is not None and before.id not in seen:
                    seen.add(before.id)
                    waiting.append(before)

    def _linked(self, value: Any) -> Node | None:
        return self._nodes.get(str(value[0])) if _is_link(value) else None


def graph_of(fields: dict[str, Any] | None) -> Graph | None:
    """None for what is none, or too large."""
    if fields is None or not 0 < len(fields) <= _MOST_NODES:
        return None
    nodes = {
        name: Node(name, kind[:_LONGEST_KIND], inputs)
        for name, node in fields.items()
        if isinstance(node, dict)
        and isinstance(kind := node.get("class_type"), str)
        and isinstance(inputs := node.get("inputs"), dict)
    }
    return Graph(nodes) if nodes else None


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int) and isinstance(value[1], int)
