"""Views of fleets of any size, as a coordinator makes them."""

from __future__ import annotations

from visaged.daemon.fleet.records import CameraView, FleetSummary, FleetView, NodeView, UnplacedView


def fleet_view(cameras: int = 4, nodes: int = 2, unplaced: int = 1, away: int = 0, capacity: float = 12.0) -> FleetView:
    """Return the view of a fleet: its cameras share the nodes in turn, of which the last are away."""
    up = max(1, nodes - away)
    placed = [
        CameraView(f"camera-{i:05d}", f"node-{i % up + 1:02d}", 1763712000000 + i, "streaming", active=True)
        for i in range(cameras - unplaced)
    ]
    held = [sum(one.node == f"node-{n + 1:02d}" for one in placed) for n in range(nodes)] if nodes <= 50 else []
    return FleetView(
        fleet="campus",
        coordinator=3,
        age_s=7260.0,
        lease_s=6.0,
        version="0.1.0",
        summary=FleetSummary(cameras, len(placed), len(placed), unplaced, 0, up, away, 12, 3, 0.8),
        nodes=tuple(
            NodeView(
                f"node-{n + 1:02d}",
                site="harbour" if n % 2 else "gate",
                state="up" if n < up else "away",
                capacity=capacity,
                used=held[n] if held else len(placed) / up,
                cameras=held[n] if held else len(placed) // up,
                url=f"http://192.0.2.{n % 250 + 1}:8080",
                version="0.1.0",
                seen_s=0.6 if n < up else 95.0,
            )
            for n in range(nodes)
        ),
        cameras=tuple(placed),
        unplaced=tuple(
            UnplacedView(f"lost-{i:05d}", "all nodes of the site harbour are full: 24 of 24 cameras")
            for i in range(unplaced)
        ),
    )
