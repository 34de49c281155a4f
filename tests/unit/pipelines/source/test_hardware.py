"""Hardware decoders that are not there: what the log says is missing."""

from __future__ import annotations

import logging

import pytest
from av.codec.hwaccel import hwdevices_available

from visaged.models.session import nvidia_driver_present
from visaged.pipelines.source.opening.hardware import Hardware


def said(name: str, caplog: pytest.LogCaptureFixture) -> str:
    """Return the one line about a decoder that two attempts to open it leave."""
    hardware = Hardware("door", name)
    with caplog.at_level(logging.WARNING):
        assert hardware.decoder() is None
        assert hardware.decoder() is None
    (record,) = caplog.records
    return record.getMessage()


@pytest.mark.skipif(nvidia_driver_present(), reason="this machine has an NVIDIA driver")
def test_cuda_without_a_driver(caplog: pytest.LogCaptureFixture) -> None:
    assert said("cuda", caplog) == (
        "camera door: hardware decoder cuda is not usable here (no NVIDIA driver answers on this machine: libcuda does "
        "not load), decoding in software"
    )


def test_a_decoder_of_another_system(caplog: pytest.LogCaptureFixture) -> None:
    name = min({"videotoolbox", "d3d11va"} - set(hwdevices_available()))
    assert "was built without it; it has " in said(name, caplog)


def test_off_asks_for_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert Hardware("door", "off").decoder() is None
    assert not caplog.records
