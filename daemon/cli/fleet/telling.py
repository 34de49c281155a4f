"""How a fleet does, as text for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from visaged.daemon.fleet.records import CameraView, FleetView, NodeView

_STYLES = {"up": "green", "away": "red", "refused": "red", "absent": "dim"}


def tell(view: FleetView) -> RenderableType:
    """Return a fleet's state: a line, its nodes, its cameras, and those without a place."""
    parts: list[RenderableType] = [Text(headline(view))]
    if view.problem:
        parts.append(Text(view.problem, "red"))
    if view.nodes:
        parts.append(_nodes(view.nodes))
    parts += [Text(f"{one.name}: {one.why}", "red") for one in view.nodes if one.why]
    if view.cameras:
        parts.append(_cameras(view.cameras))
    parts += [Text(f"{one.name} finds no place: {one.why}", "yellow") for one in view.unplaced]
    return Group(*parts)


def headline(view: FleetView) -> str:
    """Return a fleet's state in a line."""
    numbers = view.summary
    away = f", {numbers.nodes_away} away" if numbers.nodes_away else ""
    unplaced = f", {numbers.unplaced} without a place" if numbers.unplaced else ""
    return (
        f"fleet {view.fleet}: {numbers.nodes} {_count(numbers.nodes, 'node')} up{away}; "
        f"{numbers.active} of {numbers.cameras} {_count(numbers.cameras, 'camera')} publish{unplaced}; "
        f"{numbers.moves} {_count(numbers.moves, 'move')}, {numbers.takeovers} from lost nodes"
    )


def changes(before: FleetView | None, after: FleetView) -> Iterator[Text]:
    """Return what is different, a line for each node and camera."""
    nodes = {} if before is None else {one.name: one for one in before.nodes}
    for node in after.nodes:
        old = nodes.pop(node.name, None)
        if old is None or (old.state, old.why) != (node.state, node.why):
            why = f": {node.why}" if node.why else ""
            yield Text.assemble(f"node {node.name}: ", (node.state, _STYLES.get(node.state, "yellow")), why)
    yield from (Text(f"node {name}: gone", "yellow") for name in nodes)
    yield from _camera_changes(before, after)
    if after.problem and (before is None or before.problem != after.problem):
        yield Text(after.problem, "red")


def _camera_changes(before: FleetView | None, after: FleetView) -> Iterator[Text]:
    cameras = {} if before is None else {one.name: one for one in before.cameras}
    lost = {} if before is None else {one.name: one for one in before.unplaced}
    for camera in after.cameras:
        old = cameras.pop(camera.name, None)
        lost.pop(camera.name, None)
        if old is None or _shown(old) != _shown(camera):
            yield Text(f"camera {camera.name}: {_shown(camera)}")
    for one in after.unplaced:
        cameras.pop(one.name, None)
        old_one = lost.pop(one.name, None)
        if old_one is None or old_one.why != one.why:
            yield Text(f"camera {one.name} finds no place: {one.why}", "yellow")
    yield from (Text(f"camera {name}: left the fleet") for name in [*cameras, *lost])


def _shown(camera: CameraView) -> str:
    moving = f", moves to {camera.warm}" if camera.warm else ""
    state = camera.state or ("starting" if camera.active else "waiting")
    return f"on {camera.node}, {state}{moving}"


def _nodes(nodes: tuple[NodeView, ...]) -> Table:
    table = Table("node", "state", "site", "cameras", "used", "heard of", "page", box=box.SIMPLE, pad_edge=False)
    for node in nodes:
        state = Text(node.state, _STYLES.get(node.state, "yellow"))
        seen = "never" if node.seen_s is None else f"{node.seen_s:.1f} s ago"
        used = f"{node.used:g} of {node.capacity:g}"
        table.add_row(node.name, state, node.site, str(node.cameras), used, seen, node.url)
    return table


def _cameras(cameras: tuple[CameraView, ...]) -> Table:
    table = Table("camera", "node", "state", "publishes", "epoch", box=box.SIMPLE, pad_edge=False)
    for camera in cameras:
        node = f"{camera.node} -> {camera.warm}" if camera.warm else camera.node
        table.add_row(camera.name, node, camera.state, "yes" if camera.active else "no", str(camera.epoch or ""))
    return table


def _count(number: int, word: str) -> str:
    return word if number == 1 else f"{word}s"
