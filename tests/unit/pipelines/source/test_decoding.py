"""Decoding key frames alone, and all frames again, on real video."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from av.packet import Packet
from av.video.stream import VideoStream

from tests.support import media
from visaged.pipelines.source.decoding import Decoding

GROUPS = {
    "closed": {"gop": 25},
    "B-frames": {"gop": 25, "b_frames": 3},
    "open": {"gop": 25, "b_frames": 3, "x264": "open-gop=1:b-pyramid=normal"},
}


@pytest.fixture(scope="module", params=GROUPS)
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("decoding") / "clip.mkv"
    return media.write_video(path, size=(160, 90), seconds=4, **GROUPS[request.param])


@contextmanager
def decoding(path: Path, threads: int = 1) -> Iterator[tuple[Decoding, list[Packet[VideoStream]]]]:
    """Yield a fresh decoding of a file and the file's packets, without the empty one at its end."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.thread_count = ("FRAME" if threads > 1 else "NONE"), threads
        packets = [packet for packet in container.demux(stream) if packet.size]
        yield Decoding("door", stream.codec_context), packets


def pixels(path: Path) -> dict[int, np.ndarray]:
    """Return every picture of a file, by its stamp."""
    with av.open(path) as container:
        return {frame.pts: frame.to_ndarray() for frame in container.decode(container.streams.video[0])}


@pytest.mark.parametrize("threads", [1, 2])
def test_every_key_frame_comes_out_at_once(clip: Path, threads: int) -> None:
    whole = pixels(clip)
    with decoding(clip, threads) as (decoder, packets):
        for packet in packets:
            frames = decoder.decode(packet, "key_frames")
            assert [frame.pts for frame in frames] == ([packet.pts] if packet.is_keyframe else [])
            assert all(frame.time == packet.pts * packet.time_base for frame in frames)
            assert all(np.array_equal(frame.to_ndarray(), whole[frame.pts]) for frame in frames)
        assert sum(packet.is_keyframe for packet in packets) == 4


@pytest.mark.parametrize("threads", [1, 2])
def test_all_goes_on_at_the_next_key_frame_without_broken_pictures(clip: Path, threads: int) -> None:
    whole = pixels(clip)
    with decoding(clip, threads) as (decoder, packets):
        keys = [index for index, packet in enumerate(packets) if packet.is_keyframe]
        frames = [frame for packet in packets[: keys[1] + 10] for frame in decoder.decode(packet)]
        reduced = [decoder.decode(packet, "key_frames") for packet in packets[keys[1] + 10 : keys[2] + 5]]
        frames += itertools.chain(*reduced)
        assert sum(map(len, reduced[1:])) == 1, "what the decoder held back comes at once, and then the key frame"
        stamps = [frame.pts for frame in frames]
        assert stamps == sorted(set(stamps)), "in order, each once"
        assert len(stamps) >= keys[1] + 10 - 3 + 1
        assert stamps[-1] == packets[keys[2]].pts
        for packet in packets[keys[2] + 5 : keys[3]]:
            assert not decoder.decode(packet), "nothing can be decoded before the next key frame"
        rest = [frame for packet in packets[keys[3] :] for frame in decoder.decode(packet)] + decoder._drain(packets[-1])
        begin = packets[keys[3]].pts
        assert [frame.pts for frame in rest] == [stamp for stamp in sorted(whole) if stamp >= begin]
        for frame in frames + rest:
            assert np.array_equal(frame.to_ndarray(), whole[frame.pts])


@pytest.mark.parametrize("threads", [1, 2])
def test_kept_packets_are_decoded_after_a_rewind(clip: Path, threads: int) -> None:
    whole = pixels(clip)
    with decoding(clip, threads) as (decoder, packets):
        keys = [index for index, packet in enumerate(packets) if packet.is_keyframe]
        for packet in packets[: keys[2] + 1]:
            decoder.decode(packet, "key_frames")
        decoder.rewind()
        frames = [frame for packet in packets[keys[1] :] for frame in decoder.decode(packet)] + decoder._drain(packets[-1])
        assert [frame.pts for frame in frames] == [stamp for stamp in sorted(whole) if stamp >= packets[keys[1]].pts]
        assert all(np.array_equal(frame.to_ndarray(), whole[frame.pts]) for frame in frames)


def test_damaged_key_frame_does_not_spoil_the_next(clip: Path) -> None:
    with decoding(clip) as (decoder, packets):
        keys = [packet for packet in packets if packet.is_keyframe]
        assert decoder.decode(keys[0], "key_frames")
        damaged = Packet(bytes(len(bytes(keys[1]))))
        damaged.is_keyframe = True
        with pytest.raises(av.error.InvalidDataError):
            decoder.decode(damaged, "key_frames")
        assert [frame.pts for frame in decoder.decode(keys[2], "key_frames")] == [keys[2].pts]
        assert decoder.can_reduce


def test_gradual_refresh_cannot_be_reduced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = media.write_video(
        tmp_path / "refresh.mkv", size=(160, 90), seconds=6, gop=25, x264="intra-refresh=1:keyint=25"
    )
    with decoding(path) as (decoder, packets), caplog.at_level("INFO"):
        assert sum(packet.is_keyframe for packet in packets) > 4
        count = sum(len(decoder.decode(packet, "key_frames")) for packet in packets)
        assert not decoder.can_reduce
    assert "always decoded whole" in caplog.text
    assert count > 30, "after three key frames without a picture all is decoded again"


def test_pictures_that_are_key_frames_all_are_left_out_by_rate(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "intra.mkv", size=(160, 90), seconds=1, gop=1)
    with decoding(path) as (decoder, packets):
        wanted = [index % 5 == 0 for index in range(len(packets))]
        count = [len(decoder.decode(packet, "key_frames", want)) for packet, want in zip(packets, wanted, strict=True)]
    assert count == [int(want) for want in wanted]
