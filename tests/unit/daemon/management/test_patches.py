"""Merge patches over cameras: what RFC 7386 says, and what its authors' examples do."""

from __future__ import annotations

from typing import Any

import pytest

from visaged.daemon.management.live import differences, in_force
from visaged.daemon.management.patches import Place, merged, patch_between, patched
from visaged.daemon.settings import parse

DOOR = {"name": "door", "url": "rtsp://h/1", "fps": 5, "attributes": {"emotion": False, "age": True}}
YARD = {"name": "yard", "url": "rtsp://h/2"}

# The test cases of RFC 7386, appendix A: original, patch, result.
RFC = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("original", "patch", "result"), RFC)
def test_the_examples_of_the_rfc(original: Any, patch: Any, result: Any) -> None:
    before = repr((original, patch))
    assert merged(original, patch) == result
    assert repr((original, patch)) == before


@pytest.mark.parametrize(
    "new",
    [
        DOOR,
        {"name": "door", "url": "rtsp://h/1"},
        DOOR | {"attributes": {"age": False, "mask": True}},
        DOOR | {"attributes": {}},
        DOOR | {"attributes": 3, "more": {"a": [1]}},
    ],
)
def test_a_patch_between_two_leads_from_one_to_the_other(new: dict[str, Any]) -> None:
    assert merged(DOOR, patch_between(DOOR, new)) == new
    assert patch_between(new, new) == {}


def test_cameras_are_changed_removed_and_added_in_order() -> None:
    patches = {"hall": {"url": "x", "fps": None}, "door": {"fps": 2}, "yard": None, "gone": None}
    cameras, places, stale = patched([YARD, DOOR, {"name": "shed", "url": "y"}], patches)
    assert cameras == [DOOR | {"fps": 2}, {"name": "shed", "url": "y"}, {"name": "hall", "url": "x", "fps": None}]
    assert places == [Place(1, "door", {"fps": 2}), Place(2, "shed", None), Place(None, "hall", patches["hall"])]
    assert stale == []


def test_a_patch_of_a_camera_that_left_the_configuration_has_no_effect() -> None:
    assert patched([YARD], {"door": {"fps": 2}}) == ([YARD], [Place(0, "yard", None)], ["door"])


@pytest.mark.parametrize("odd", [3, None, "door", {}, {"name": 3}, {"name": None}, ["name"]])
def test_what_is_no_camera_is_left_for_the_check(odd: object) -> None:
    assert patched([odd], {"door": {"url": "x"}})[0] == [odd, {"name": "door", "url": "x"}]


def test_what_can_change_is_taken_and_the_rest_stays() -> None:
    old = {
        "cameras": [YARD], "http": {"port": 1}, "tracker": {"low_confidence": 0.2, "lost_s": 3},
        "inference": {"workers": 2, "update_s": 1}, "log": {"level": "debug", "file": "a"}, "attributes": {},
    }  # fmt: skip
    new = {
        "cameras": [DOOR], "http": {"port": 2}, "tracker": {"low_confidence": 0.3, "confirm_hits": 3},
        "inference": {"long_side": 320, "refresh_s": 1}, "log": {"level": "info"}, "node": "other",
    }  # fmt: skip
    effective = in_force(old, new)
    assert effective == {
        "cameras": [DOOR], "http": {"port": 1}, "tracker": {"low_confidence": 0.2, "confirm_hits": 3},
        "inference": {"workers": 2, "refresh_s": 1}, "log": {"level": "info", "file": "a"},
    }  # fmt: skip
    paths = differences(parse(new), parse(effective | {"node": "this"}))
    assert set(paths) == {
        "node", "http.port", "tracker.low_confidence", "inference.workers", "inference.long_side", "log.file"
    }  # fmt: skip
    assert differences(parse(new), parse(new)) == []
