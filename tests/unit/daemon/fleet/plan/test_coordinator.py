"""The coordinator, told by hand what nodes report and what time it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from tests.support.fleet_simulation import MemoryStore
from visaged.daemon.fleet.plan.coordinator import Coordinator
from visaged.daemon.fleet.plan.documents import FleetError
from visaged.daemon.fleet.plan.nodes import counted_s
from visaged.daemon.fleet.plan.store import StoreError
from visaged.daemon.fleet.records import CameraReport, FleetView, NodeReport, Orders, Orphan

WALL_MS = 1_700_000_000_000
TERM_S = counted_s(6.0)


def document(*cameras: str, **fleet: Any) -> dict[str, Any]:
    return {
        "mqtt": {"host": "broker"},
        "cameras": [{"name": name, "url": f"rtsp://{name}/"} for name in cameras],
        "fleet": {"only_listed": True, "nodes": {"a": {"capacity": 10}, "b": {"capacity": 10}}} | fleet,
    }


class Fleet:
    """A coordinator, and nodes that say what they are told to say."""

    def __init__(self, *cameras: str, **fleet: Any) -> None:
        self.now_s = 100.0
        self.store = MemoryStore()
        self.coordinator = Coordinator(self.store, "1", self.now_s, self.wall_ms, document(*cameras, **fleet))
        self.reports: dict[str, NodeReport] = {}

    @property
    def wall_ms(self) -> int:
        return WALL_MS + int(self.now_s * 1000)

    def restart(self) -> None:
        self.coordinator = Coordinator(self.store, "1", self.now_s, self.wall_ms)

    def join(self, node: str, incarnation: int = 1, home: str = "") -> Any:
        self.reports[node] = NodeReport(node, incarnation, "1", home=home or node)
        return self.coordinator.join(node, incarnation, "1", home or node, self.now_s, self.wall_ms)

    def beat(self, node: str, known: str = "", **changes: Any) -> Orders:
        report = replace(self.reports[node], **changes)
        self.reports[node] = replace(report, beat=report.beat + 1)
        return self.coordinator.heartbeat(self.reports[node], known, self.now_s, self.wall_ms)

    def obey(self, node: str, orders: Orders, state: str = "streaming", open: tuple[bytes, ...] = ()) -> Orders:
        """Have a node do what it was told, and say so."""
        cameras = tuple(CameraReport(g.camera, g.epoch, state, g.active, open=open) for g in orders.grants)
        return self.beat(node, orders.config_version, cameras=cameras)

    def pass_s(self, seconds: float, *alive: str) -> None:
        """Let time pass in which some nodes say what they said last."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s += 0.5
            for node in alive:
                self.beat(node)

    def view(self) -> FleetView:
        return self.coordinator.view(self.now_s, self.wall_ms)

    def started(self, *nodes: str) -> dict[str, Orders]:
        """Have nodes join and take what they are given; return their newest orders."""
        for node in nodes:
            self.join(node)
        for node in nodes:
            self.beat(node)
        self.now_s += 0.5
        return {node: self.obey(node, self.beat(node)) for node in nodes}

    def owner(self, camera: str) -> str:
        return {one.name: one.node for one in self.view().cameras}[camera]


def body(track: int) -> bytes:
    return orjson.dumps({"track_id": track, "event": "update"})


def test_cameras_are_shared_out_with_what_their_nodes_need_of_the_configuration() -> None:
    fleet = Fleet("c1", "c2", "c3", "c4")
    orders = fleet.started("a", "b")
    held = {node: {grant.camera for grant in one.grants} for node, one in orders.items()}
    assert sorted(len(cameras) for cameras in held.values()) == [2, 2]
    for node, one in orders.items():
        assert one.config is None  # it was sent before, and its version is known
        config = fleet.beat(node, "").config
        assert config is not None
        assert {camera["name"] for camera in orjson.loads(config)["cameras"]} == held[node]
        assert all(grant.active for grant in one.grants)
    assert fleet.view().summary.active == 4


def test_a_new_fleet_waits_for_nodes_that_may_have_leases_of_a_former_coordinator() -> None:
    fleet = Fleet("c1", only_listed=False)
    fleet.join("a")
    assert not fleet.beat("a").grants
    fleet.pass_s(TERM_S - 1, "a")
    assert not fleet.beat("a").grants
    fleet.pass_s(2, "a")
    assert fleet.beat("a").grants


def test_a_coordinator_without_a_memory_takes_over_the_leases_that_it_finds() -> None:
    fleet = Fleet("c1", only_listed=False)
    fleet.join("a")
    orders = fleet.beat("a", cameras=(CameraReport("c1", WALL_MS + 10**9, "streaming", True),))
    (grant,) = orders.grants
    assert (grant.epoch, grant.active, orders.revoked) == (WALL_MS + 10**9, True, ())
    fleet.restart()
    assert fleet.beat("a").grants == (grant,)


def test_a_lost_node_is_followed_after_its_lease_with_its_open_tracks() -> None:
    fleet = Fleet("c1", "c2")
    orders = fleet.started("a", "b")
    (lost,) = orders["a"].grants
    fleet.obey("a", orders["a"], open=(body(7), body(8), b"not JSON"))
    fleet.pass_s(TERM_S - 1, "b")
    before = {grant.camera: grant for grant in fleet.beat("b").grants}
    assert not before[lost.camera].active  # it gets ready, and publishes nothing
    fleet.pass_s(2, "b")
    after = {grant.camera: grant for grant in fleet.beat("b").grants}[lost.camera]
    assert (after.epoch, after.active) == (before[lost.camera].epoch, True)
    assert after.epoch > lost.epoch
    assert after.next_track > 1000
    assert after.orphans == (Orphan("a", lost.epoch, 7, body(7)), Orphan("a", lost.epoch, 8, body(8)))
    confirmed = fleet.obey("b", fleet.beat("b"))
    assert all(not grant.orphans for grant in confirmed.grants)
    thawed = fleet.beat("a")
    assert [(one.camera, one.epoch, one.ended) for one in thawed.revoked] == [(lost.camera, lost.epoch, (7, 8))]
    assert fleet.join("a", 2).ended == ((lost.camera, lost.epoch, 7), (lost.camera, lost.epoch, 8))
    assert fleet.view().summary.takeovers == 1


def test_a_coordinator_that_was_stopped_takes_no_node_for_lost_that_it_could_not_hear() -> None:
    fleet = Fleet("c1", "c2")
    orders = fleet.started("a", "b")
    fleet.now_s += 2 * TERM_S
    fleet.coordinator.excuse(2 * TERM_S, fleet.now_s)
    assert {node: fleet.beat(node).grants for node in "ab"} == {node: one.grants for node, one in orders.items()}
    fleet.pass_s(TERM_S + 1, "b")  # one that stays silent is lost after a lease
    assert all(grant.active for grant in fleet.beat("b").grants)
    assert fleet.owner("c1") == fleet.owner("c2") == "b"
    fleet.now_s += TERM_S
    fleet.coordinator.excuse(TERM_S, fleet.now_s)
    assert fleet.view().summary.nodes_away == 1  # it was lost before


def test_orphans_go_on_to_the_next_owner_until_one_has_ended_them() -> None:
    fleet = Fleet("c1", nodes={name: {"capacity": 1} for name in "abc"})
    orders = fleet.started("a", "b", "c")
    (first,) = [node for node, one in orders.items() if one.grants]
    fleet.obey(first, orders[first], open=(body(7),))
    others = [node for node in "abc" if node != first]
    fleet.pass_s(TERM_S + 1, *others)
    second = fleet.owner("c1")
    (third,) = [node for node in others if node != second]
    fleet.restart()  # what is owed survives the coordinator too
    assert [o.track for o in fleet.beat(second).grants[0].orphans] == [7]
    fleet.pass_s(TERM_S + 1, third)
    (grant,) = fleet.beat(third).grants
    assert [(orphan.node, orphan.track) for orphan in grant.orphans] == [(first, 7)]


def test_a_node_that_is_back_before_its_camera_was_given_on_keeps_it() -> None:
    fleet = Fleet("c1", nodes={"a": {"capacity": 1}})
    orders = fleet.started("a")
    fleet.pass_s(3 * TERM_S)
    assert fleet.view().summary.placed == 0
    assert fleet.beat("a").grants == orders["a"].grants


def test_a_run_that_replaces_another_frees_its_cameras_at_once_and_ends_its_own_tracks() -> None:
    fleet = Fleet("c1", "c2")
    orders = fleet.started("a", "b")
    fleet.obey("a", orders["a"], open=(body(7),))
    assert fleet.join("a", 2).ended == ()
    fleet.now_s += 0.5
    fleet.beat("a")
    fleet.now_s += 0.5
    (grant,) = fleet.beat("a").grants
    assert (grant.camera, grant.active, grant.orphans) == (orders["a"].grants[0].camera, True, ())
    assert grant.epoch > orders["a"].grants[0].epoch


def test_a_drained_node_gives_up_its_cameras_without_a_gap_and_gets_its_share_back() -> None:
    fleet = Fleet("c1", "c2")
    orders = fleet.started("a", "b")
    (held,) = orders["a"].grants
    fleet.coordinator.drain("a")
    fleet.now_s += 0.5
    warm = {grant.camera: grant for grant in fleet.beat("b").grants}[held.camera]
    assert not warm.active
    assert fleet.beat("a").grants == (held,)  # goes on until the other streams
    fleet.obey("b", fleet.beat("b"), state="connecting")
    fleet.now_s += 0.5
    assert fleet.beat("a").grants == (held,)
    fleet.obey("b", fleet.beat("b"))
    fleet.now_s += 0.5
    leaving = fleet.beat("a")
    assert [(one.camera, one.epoch, one.ended) for one in leaving.revoked] == [(held.camera, held.epoch, ())]
    assert leaving.report_in_s < 0.5
    assert not all(grant.active for grant in fleet.beat("b").grants)  # not before the other has let go
    fleet.beat("a", cameras=())
    fleet.now_s += 0.5
    assert all(grant.active and not grant.orphans for grant in fleet.beat("b").grants)
    view = fleet.view()
    assert (view.summary.moves, view.summary.takeovers) == (1, 0)
    assert {node.name: node.state for node in view.nodes} == {"a": "drained", "b": "up"}
    fleet.coordinator.undrain("a")
    fleet.now_s += 0.5
    assert len(fleet.beat("a").grants) == 1


def test_a_successor_that_does_not_stream_takes_over_after_a_while() -> None:
    fleet = Fleet("c1", "c2")
    orders = fleet.started("a", "b")
    fleet.coordinator.drain("a")
    fleet.now_s += 0.5
    fleet.obey("b", fleet.beat("b"), state="connecting")
    fleet.pass_s(18, "a", "b")
    assert not fleet.beat("a").revoked
    fleet.pass_s(4, "a", "b")
    assert [one.camera for one in fleet.beat("a").revoked] == [orders["a"].grants[0].camera]


def test_a_node_that_leaves_is_followed_when_it_has_stopped() -> None:
    fleet = Fleet("c1", "c2")
    fleet.started("a", "b")
    fleet.beat("a", leaving=True)
    fleet.now_s += 0.5
    assert [grant.active for grant in fleet.beat("b").grants].count(False) == 1
    fleet.beat("a", cameras=())
    fleet.now_s += 0.5
    assert all(grant.active and not grant.orphans for grant in fleet.beat("b").grants)


def test_a_restarted_coordinator_counts_all_leases_as_running() -> None:
    fleet = Fleet("c1", "c2")
    orders = fleet.started("a", "b")
    fleet.restart()
    assert fleet.beat("b").grants == orders["b"].grants
    assert fleet.beat("b").coordinator > orders["b"].coordinator
    fleet.pass_s(TERM_S - 0.5, "b")
    assert sum(grant.active for grant in fleet.beat("b").grants) == 1
    fleet.pass_s(1, "b")
    assert sum(grant.active for grant in fleet.beat("b").grants) == 2


def test_epochs_grow_though_the_clock_goes_back() -> None:
    fleet = Fleet("c1", nodes={"a": {}})
    (grant,) = fleet.started("a")["a"].grants
    fleet.join("a", 2)
    back_ms = 10**12
    for _ in range(3):
        fleet.now_s += 0.5
        report = NodeReport("a", 2, "1", home="a")
        orders = fleet.coordinator.heartbeat(report, "", fleet.now_s, fleet.wall_ms - back_ms)
    assert orders.grants[0].epoch == grant.epoch + 1


def test_nothing_is_told_that_could_not_be_kept() -> None:
    fleet = Fleet("c1", "c2")
    orders = fleet.started("a", "b")
    fleet.store.is_full = True
    fleet.pass_s(2 * TERM_S, "b")
    assert fleet.beat("b").grants == orders["b"].grants  # goes on
    assert "cannot be kept" in fleet.view().problem
    for change in (lambda: fleet.coordinator.drain("b"), lambda: fleet.coordinator.remove("c1")):
        with pytest.raises(StoreError):
            change()
    fleet.store.is_full = False
    fleet.pass_s(4, "b")
    assert len(fleet.beat("b").grants) == 2
    assert fleet.view().problem == ""


def test_cameras_are_added_and_removed_and_stay_so_over_a_restart_and_a_new_configuration() -> None:
    fleet = Fleet("c1")
    orders = fleet.started("a", "b")
    (node,) = [name for name, one in orders.items() if one.grants]
    fleet.coordinator.add({"name": "new", "url": "rtsp://new/", "fleet": {"nodes": [node]}})
    fleet.coordinator.remove("c1")
    fleet.now_s += 0.5
    told = fleet.beat(node)
    assert (told.clear, [one.camera for one in told.revoked]) == (("c1",), ["c1"])
    fleet.restart()
    fleet.beat(node, cameras=())
    fleet.now_s += 0.5
    assert {grant.camera for grant in fleet.beat(node).grants} == {"new"}
    fleet.coordinator.configure(document("c1", "c2"))
    fleet.now_s += 0.5
    assert {camera.name for camera in fleet.view().cameras} == {"new", "c2"}
    fleet.coordinator.add({"name": "c1", "url": "rtsp://other/"})
    assert fleet.coordinator.document()[1] == {"new": {"url": "rtsp://new/", "fleet": {"nodes": [node]}}} | {
        "c1": {"url": "rtsp://other/"}
    }


def test_what_is_retained_of_a_removed_camera_is_cleared_by_another_if_its_holder_is_lost() -> None:
    fleet = Fleet("c1", "c2")
    orders = fleet.started("a", "b")
    fleet.coordinator.remove(orders["a"].grants[0].camera)
    fleet.pass_s(TERM_S - 1, "b")
    assert fleet.beat("b").clear == ()
    fleet.pass_s(2, "b")
    assert fleet.beat("b").clear == (orders["a"].grants[0].camera,)
    fleet.pass_s(7, "b")
    assert fleet.beat("b").clear == ()


@pytest.mark.parametrize(
    ("camera", "text"),
    [
        ({"url": "rtsp://x/"}, "needs a name"),
        ({"name": "a b", "url": "rtsp://x/"}, "needs a name"),
        ({"name": "c1", "url": "rtsp://x/"}, "there is a camera c1 already"),
        ({"name": "x"}, "camera x needs a url"),
        ({"name": "x", "url": "rtsp://x/", "fleet": {"weight": -1}}, "weight is not valid"),
    ],
)
def test_a_camera_that_cannot_be_added(camera: dict[str, Any], text: str) -> None:
    with pytest.raises(FleetError, match=text):
        Fleet("c1").coordinator.add(camera)


def test_what_is_not_there_is_told() -> None:
    fleet = Fleet("c1")
    fleet.started("a")
    with pytest.raises(FleetError, match="no camera 'x'"):
        fleet.coordinator.remove("x")
    with pytest.raises(FleetError, match="no node 'x' has joined; those that have: a"):
        fleet.coordinator.drain("x")
    with pytest.raises(FleetError, match="no fleet of this name yet"):
        Coordinator(MemoryStore(), "1", 0.0, WALL_MS)
    store = MemoryStore()
    store.data = b"something else"
    with pytest.raises(StoreError, match="cannot be read"):
        Coordinator(store, "1", 0.0, WALL_MS)


@pytest.mark.parametrize(
    ("report", "text"),
    [
        (NodeReport("a", 2, "2", home="a"), "it runs visaged 2, and the fleet's coordinator 1"),
        (NodeReport("x", 1, "1"), "not listed under fleet.nodes"),
        (NodeReport("a b", 1, "1"), "its name is not valid"),
        (NodeReport("a", 2, "1", home="another"), "another machine takes part under this name"),
        (NodeReport("a", 0, "1", home="a"), "a later run of this node takes part already"),
    ],
)
def test_a_node_is_refused_with_a_reason(report: NodeReport, text: str) -> None:
    fleet = Fleet("c1")
    fleet.started("a", "b")
    orders = fleet.coordinator.heartbeat(report, "", fleet.now_s, fleet.wall_ms)
    assert text in orders.refused
    assert not orders.grants
    joined = fleet.coordinator.join(
        report.node, report.incarnation, report.version, report.home, fleet.now_s, fleet.wall_ms
    )
    assert text in joined.refused
    assert any(text in node.why for node in fleet.view().nodes)


def test_a_name_is_free_when_the_lease_of_who_had_it_has_ended() -> None:
    fleet = Fleet("c1", "c2")
    fleet.started("a", "b")
    fleet.pass_s(TERM_S + 1, "b")
    assert fleet.join("a", 1, home="another").refused == ""


def test_too_few_nodes_leave_the_same_cameras_over_and_the_rest_runs() -> None:
    names = [f"c{i}" for i in range(7)]
    fleet = Fleet(*names, nodes={"a": {}, "b": {}}, default_capacity=2.0)
    fleet.started("a", "b")
    left = {one.name: one.why for one in fleet.view().unplaced}
    assert len(left) == 3
    assert all("no room: its weight is 1" in why for why in left.values())
    assert fleet.view().summary.placed == 4
    fleet.beat("a", capacity=3.0)  # it has measured
    fleet.now_s += 0.5
    assert {one.name for one in fleet.view().unplaced} < left.keys()


def test_a_node_that_comes_takes_its_share_two_at_a_time() -> None:
    fleet = Fleet(*(f"c{i}" for i in range(9)), only_listed=False)
    for node in ("a", "b"):
        fleet.join(node)
    fleet.pass_s(TERM_S + 1, "a", "b")
    for node in ("a", "b"):
        fleet.obey(node, fleet.beat(node))
    fleet.join("new")
    fleet.beat("new", capacity=10.0)
    fleet.pass_s(1, "a", "b", "new")
    assert len(fleet.beat("new").grants) == 2
    for _ in range(20):
        for node in ("a", "b", "new"):
            fleet.obey(node, fleet.beat(node))
            fleet.now_s += 0.2
    assert len(fleet.beat("new").grants) == 3
    assert fleet.view().summary.moves == 3 <= 9 / 3 + 1


def test_what_keeps_a_granted_camera_from_running_is_told() -> None:
    fleet = Fleet("c1")
    fleet.started("a")
    fleet.beat("a", problem="camera c1 cannot run here: it has no password")
    assert {one.name: one.why for one in fleet.view().nodes}["a"] == "camera c1 cannot run here: it has no password"


def test_a_late_report_is_no_news() -> None:
    fleet = Fleet("c1", nodes={"a": {}})
    fleet.started("a")
    late = fleet.reports["a"]
    fleet.beat("a")
    heard_s = fleet.now_s
    fleet.now_s += 3
    fleet.coordinator.heartbeat(replace(late, cameras=()), "", fleet.now_s, fleet.wall_ms)
    assert fleet.view().nodes[0].seen_s == pytest.approx(fleet.now_s - heard_s)


def test_nothing_is_given_while_the_fleet_stops() -> None:
    fleet = Fleet("c1", "c2")
    orders = fleet.started("a", "b")
    fleet.coordinator.stop()
    fleet.beat("a", leaving=True, cameras=())
    fleet.pass_s(TERM_S + 1, "b")
    assert fleet.beat("b").grants == orders["b"].grants
