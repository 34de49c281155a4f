"""Where a camera may lead."""

from __future__ import annotations

import pytest

from visaged.pipelines.source.opening.places import Place, place_of, why_not

CAMERA = Place("https", "cam.example", 443)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://cam", Place("http", "cam", 80)),
        ("HTTPS://Cam.:8443/x?y#z", Place("https", "cam", 8443)),
        ("http://[FE80::1]:81/", Place("http", "[fe80::1]", 81)),
        ("http://cam/a@b:c", Place("http", "cam", 80)),
    ],
)
def test_places(url: str, place: Place) -> None:
    assert place_of(url) == place


@pytest.mark.parametrize(
    "url",
    ["", "cam", "//cam/", "ftp://cam/", "http:cam", "http:///x", "http://u@cam/", "http://u:p@cam/", "http://cam\\@x/",
     "http://cam/\\x", "http://cam /", "http://cam/ x", "http://cam/\n", "http://cam\t/", "http://cam/\0", "http://cam:/",
     "http://cam:1234567/", "http://c%61m/", "http://cäm/", "http://cam,x/", "http://[cam]/", " http://cam/",
     "http://cam//\x7f"],
)  # fmt: skip
def test_what_parsers_may_read_differently_is_no_place(url: str) -> None:
    assert place_of(url) is None
    assert why_not(CAMERA, url, ["cam", "cam.example"]) is not None


@pytest.mark.parametrize(
    ("url", "hosts", "may"),
    [
        ("https://cam.example/x", [], True),
        ("https://CAM.example.:8443/x", [], True),
        ("http://cam.example/x", ["cam.example"], False),
        ("https://cam.example.net/", [], False),
        ("https://example/", [], False),
        ("https://cdn.example/", ["cdn.example"], True),
        ("https://cdn.example:8443/", ["cdn.example"], True),
        ("https://cdn.example:8443/", ["cdn.example:443"], False),
        ("https://cdn.example/", ["cdn.example:443"], True),
        ("https://127.0.0.1/", [], False),
    ],
)
def test_where_a_camera_may_lead(url: str, hosts: list[str], may: bool) -> None:
    assert (why_not(CAMERA, url, hosts) is None) is may


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "a.localhost", "[::1]"])
def test_the_programs_of_this_machine_are_different_places(host: str) -> None:
    camera = Place("http", host, 8554)
    assert why_not(camera, f"http://{host}:8554/x", []) is None
    assert why_not(camera, f"http://{host}:8080/x", []) is not None
    assert why_not(camera, f"http://{host}:8080/x", [f"{host}:8080"]) is None
