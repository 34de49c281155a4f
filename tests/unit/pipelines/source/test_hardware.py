"""Hardware decoders that cannot be used: what the log says is missing."""

from __future__ import annotations

import logging
from pathlib import Path

import av
import pytest
from av.codec.hwaccel import hwdevices_available
from av.video.codeccontext import VideoCodecContext

from visaged.models.session import nvidia_driver_present
from visaged.pipelines.source.opening.hardware import _FORMATS, Hardware


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


def first_picture(path: Path) -> VideoCodecContext:
    """Return the decoder of a file, in software, after its first picture."""
    container = av.open(str(path))
    context = container.streams.video[0].codec_context
    next(container.decode(video=0))
    return context


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Streams that NVDEC decodes, and some that it does not."""
    folder = tmp_path_factory.mktemp("clips")
    kinds = {"yuv420p": "libx264", "yuv444p": "libx264", "yuv420p10le": "libx264", "yuvj420p": "mjpeg"}
    for pixels, codec in kinds.items():
        with av.open(str(folder / f"{pixels}.mkv"), "w") as container:
            stream = container.add_stream(codec, rate=5)
            stream.width, stream.height, stream.pix_fmt = 320, 240, pixels
            frame = av.VideoFrame(320, 240, "yuv420p").reformat(format=pixels)
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                container.mux(packet)
    return {pixels: folder / f"{pixels}.mkv" for pixels in kinds}


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        ("yuv420p", "h264, High, yuv420p"),
        ("yuv444p", "h264, High 4:4:4 Predictive, yuv444p"),
        ("yuv420p10le", "h264, High 10, yuv420p10le"),
        ("yuvj420p", "mjpeg, Baseline, yuvj420p"),
    ],
)
def test_a_stream_that_software_decodes_after_all_is_told_once_and_counted(
    clips: dict[str, Path], pixels: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    counted: list[bool] = []
    hardware = Hardware("door", "cuda", None, counted.append)
    with caplog.at_level(logging.WARNING):
        hardware.decoded(first_picture(clips[pixels]))
        hardware.decoded(first_picture(clips[pixels]))
    assert counted == [False, False]
    (record,) = caplog.records
    assert said in record.getMessage()
    assert record.getMessage().endswith("decoding in software")


def test_a_decoder_that_works_again_is_told_and_so_is_its_next_failure(
    clips: dict[str, Path], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Software's pixels stand for the GPU's."""
    monkeypatch.setitem(_FORMATS, "cuda", "yuv444p")
    counted: list[bool] = []
    hardware = Hardware("door", "cuda", None, counted.append)
    with caplog.at_level(logging.INFO):
        for pixels in ("yuv444p", "yuv420p", "yuv444p", "yuv444p", "yuv420p"):
            hardware.decoded(first_picture(clips[pixels]))
    assert counted == [True, False, True, True, False]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "WARNING"]
    assert caplog.records[1].getMessage() == "camera door: hardware decoder cuda is used now"


def test_without_a_wish_for_hardware_nothing_is_said(clips: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    counted: list[bool] = []
    Hardware("door", "off", None, counted.append).decoded(first_picture(clips["yuv420p"]))
    assert counted == [False]
    assert not caplog.records


def test_a_decoder_that_pyav_does_not_take_says_so(caplog: pytest.LogCaptureFixture) -> None:
    if "qsv" not in hwdevices_available():
        pytest.skip("this PyAV has no qsv")
    assert f"the decoders of this PyAV {av.__version__} do not take it" in said("qsv", caplog)
