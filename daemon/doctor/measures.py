"""Works out numbers from what a `Watcher` noted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median

import numpy as np

from visaged.daemon.doctor.report import Arrival, Bits, Frames, Reach, Stamps
from visaged.daemon.doctor.watching import FrameRow, PacketRow, Watcher

BACKLOG_S = 2.0
"""What a connection begins with waited while it was opened, and comes at once; it says nothing of the network."""
_REORDERED = 16
"""Most pictures by which codecs let one come too early or too late."""
_BACK_S, _JUMP_S = 0.1, 5.0
"""Steps of stamps that are not those of a stream that goes on, as in `Timeline`."""


def reach(watcher: Watcher, began_s: float) -> Reach:
    """Return how long it took until there was a picture.

    Args:
        watcher: What was noted.
        began_s: Monotonic seconds when the source was asked for.
    """

    def since(moment_s: float | None) -> float | None:
        return None if moment_s is None else round((moment_s - began_s) * 1000, 1)

    first = watcher.packets[0].arrived_s if watcher.packets else None
    connect_ms = None if watcher.connect_s is None else round(watcher.connect_s * 1000, 1)
    return Reach(
        connect_ms=connect_ms,
        open_ms=since(watcher.opened_s),
        first_packet_ms=since(first),
        first_picture_ms=since(watcher.first_picture_s),
    )


def span_s(watcher: Watcher, packets: Sequence[PacketRow]) -> float:
    """Return for how many seconds of real time packets came: by their stamps where these are usable, else arrivals."""
    if len(packets) < 2:
        return 0.0
    arrivals = packets[-1].arrived_s - packets[0].arrived_s
    stamps = [row.stamp_s for row in packets if row.stamp_s is not None]
    is_whole = len(stamps) == len(packets) and watcher.jumps == 0 and is_stamped(watcher)
    spread = max(stamps) - min(stamps) if is_whole else 0.0
    return spread / watcher.stamp_rate if spread > 0 else arrivals


def is_stamped(watcher: Watcher) -> bool:
    """Return whether the stream has stamps of its own: those of bare pictures are made up by FFmpeg."""
    stream = watcher.stream
    if stream is None:
        return False
    unstamped = stream.container in ("mpjpeg", "mjpeg", "jpeg_pipe", "h264", "hevc", "m4v")
    return stream.is_recording or not (unstamped or stream.is_still)


def frames(watcher: Watcher, looked_s: float) -> Frames:
    """Return how often pictures and key frames come; `looked_s` is how long was looked, in seconds."""
    packets = list(watcher.packets)
    promised = watcher.stream.promised_fps if watcher.stream is not None else None
    if len(packets) < 2:
        return Frames(packets=len(packets), key_frames=sum(row.is_key for row in packets))
    settled = packets
    if not watcher.stream or not watcher.stream.is_recording:
        settled = [row for row in packets if row.arrived_s - packets[0].arrived_s >= min(BACKLOG_S, looked_s / 4)]
    keys = [row for row in packets if row.is_key]
    is_intra = len(keys) == len(packets)
    gaps = _key_gaps(watcher, keys)
    is_timed = bool(gaps) and not is_intra
    since_key = None
    if len(keys) < 2 and not is_intra:
        newest = keys[-1:] or packets[:1]
        since_key = round(packets[-1].arrived_s - newest[0].arrived_s, 2)
    return Frames(
        packets=len(packets),
        true_fps=_true_fps(watcher, settled),
        promised_fps=None if promised is None else round(promised, 2),
        key_frames=len(keys),
        key_interval_min_s=round(min(gaps), 2) if is_timed else None,
        key_interval_median_s=round(median(gaps), 2) if is_timed else None,
        key_interval_max_s=round(max(gaps), 2) if is_timed else None,
        key_interval_at_least_s=since_key,
        all_key_frames=is_intra,
        b_frames=watcher.is_reordered,
    )


def _true_fps(watcher: Watcher, packets: Sequence[PacketRow]) -> float | None:
    rows: Sequence[PacketRow] = packets
    if watcher.is_reordered and len(rows) > 4 * _REORDERED:
        # The first and last ones by their stamps have neighbours that came before and after.
        rows = sorted(rows, key=lambda row: row.stamp_s or 0.0)[_REORDERED:-_REORDERED]
    seconds = span_s(watcher, rows)
    return round((len(rows) - 1) / seconds, 2) if seconds > 0 and len(rows) > 1 else None


def _key_gaps(watcher: Watcher, keys: Sequence[PacketRow]) -> list[float]:
    by_stamp = is_stamped(watcher) and not watcher.jumps and all(row.stamp_s is not None for row in keys)
    times = [
        row.stamp_s / watcher.stamp_rate if by_stamp and row.stamp_s is not None else row.arrived_s for row in keys
    ]
    return [after - before for before, after in pairwise(times) if 0 < after - before < 3600]


def bits(watcher: Watcher) -> Bits:
    """Return how much data comes."""
    packets = list(watcher.packets)
    if not packets or watcher.stream is None:
        return Bits()
    largest = round(max(row.size for row in packets) / 1000, 1)
    seconds = span_s(watcher, packets)
    if seconds < 1.0:
        return Bits(largest_frame_kbyte=largest)
    mean = sum(row.size for row in packets) * 8 / seconds / 1000
    by_stamp = watcher.stream.is_recording
    busiest: dict[int, int] = {}
    for row in packets:
        second = int(row.stamp_s if by_stamp and row.stamp_s is not None else row.arrived_s - packets[0].arrived_s)
        busiest[second] = busiest.get(second, 0) + row.size
    if not by_stamp and len(busiest) > 2:
        busiest.pop(0, None)  # the backlog
    return Bits(
        mean_kbit_s=round(mean, 1),
        # Seconds at the ends are cut short.
        peak_kbit_s=round(max(mean, max(busiest.values()) * 8 / 1000), 1),
        largest_frame_kbyte=largest,
    )


def arrival(watcher: Watcher, ended_s: float) -> Arrival:
    """Return how evenly a live stream came.

    Args:
        watcher: What was noted.
        ended_s: Monotonic seconds when the look ended, if it ended without a failure of the source.
    """
    packets = list(watcher.packets)
    if watcher.stream is None or watcher.stream.is_recording or watcher.rounds > 1 or watcher.opened_s is None:
        return Arrival()
    times = [watcher.opened_s, *(row.arrived_s for row in packets), ended_s]
    longest = max(after - before for before, after in pairwise(times))
    whole = packets[-1].arrived_s - packets[0].asked_s if packets else 0.0
    waited = sum(row.arrived_s - row.asked_s for row in packets)
    late = _lateness(watcher.frames, watcher.stamp_rate) if is_stamped(watcher) else []
    return Arrival(
        jitter_p95_ms=round(float(np.percentile(late, 95)) * 1000, 1) if late else None,
        longest_gap_ms=round(longest * 1000, 1),
        waiting_share=round(waited / whole, 3) if whole > 0 else None,
    )


def _lateness(rows: Sequence[FrameRow], rate: float) -> list[float]:
    """Return how much later than the fastest of its run each picture came, in seconds, without the backlog."""
    rows = list(rows)
    late: list[float] = []
    run: list[float] = []
    for before, row in zip([rows[0], *rows], rows, strict=False) if rows else ():
        if not -_BACK_S < row.stamp_s - before.stamp_s < _JUMP_S:
            late += _above_least(run)
            run = []
        if row.arrived_s - rows[0].arrived_s >= BACKLOG_S:
            run.append(row.arrived_s - row.stamp_s / rate)
    return late + _above_least(run)


def _above_least(run: Sequence[float]) -> list[float]:
    return [value - min(run) for value in run]


def stamps(watcher: Watcher) -> Stamps:
    """Return what the stream says about its times."""
    rows = list(watcher.frames)
    steps = [after.stamp_s - before.stamp_s for before, after in pairwise(rows)]
    trusted = is_stamped(watcher)
    is_live = watcher.stream is not None and not watcher.stream.is_recording
    return Stamps(
        trusted=trusted,
        steps_back=sum(step <= -_BACK_S for step in steps) if trusted else 0,
        jumps=watcher.jumps if trusted else 0,
        longest_step_ms=round(max(steps) * 1000, 1) if steps and trusted else None,
        rate=round(watcher.stamp_rate, 3) if trusted and is_live and steps else None,
    )
