"""Holds what came in against what is promised of events: all of them, in order, and an end for every track."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.chaos.record import Event

# A track that `faces` showed for longer was told by an event before, or never is. What is shorter may have been on its
# way to the disk when the daemon was killed.
_SHOWN_S = 0.5
# A frame that was captured so long after the broker accepted a connection did not wait for it.
_CLEARLY_S = 2.0

Track = tuple[int, str, int]
"""Epoch, camera and number of a track."""


@dataclass(slots=True)
class Verdict:
    """What became of the events of one daemon.

    Attributes:
        numbered: Events that must exist: the largest `seq` of each run and camera, added up.
        received: Those that came.
        lost: Those that did not, by name.
        unordered: First deliveries that came after a later event of the same camera.
        reused: Messages with the number of another one.
        duplicates: Messages that had come before.
        flags: Wrong `replayed` flags.
        tracks: Tracks that began.
        endless: Tracks without an end.
        odd: Tracks that began or ended twice, ended without a begin, or were told of after their end.
        untold: Tracks that `faces` showed and no event told.
        runs: Runs of the daemon that do not have a larger epoch than the one before.
    """

    numbered: int = 0
    received: int = 0
    lost: list[str] = field(default_factory=list)
    unordered: list[str] = field(default_factory=list)
    reused: list[str] = field(default_factory=list)
    duplicates: int = 0
    flags: list[str] = field(default_factory=list)
    tracks: int = 0
    endless: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    untold: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)

    def complaints(self) -> dict[str, list[str]]:
        """Return what must not be, by kind; an empty list for what is as it should be."""
        return {
            "events lost (gaps in seq)": self.lost,
            "tracks in faces that no event told": self.untold,
            "events out of order within a camera": self.unordered,
            "tracks without an end": self.endless,
            "tracks with odd events": self.odd,
            "numbers used twice": self.reused,
            "wrong replayed flags": self.flags,
            "runs whose epoch did not grow": self.runs,
        }


def judge(
    events: Sequence[Event], seen: dict[tuple[int, str, int], tuple[float, float]], runs: Sequence[int]
) -> Verdict:
    """Return the verdict on one daemon.

    Args:
        events: All of its events, in the order in which they came, repetitions included.
        seen: For each epoch, camera and track, when `faces` first and last showed it, in seconds.
        runs: Epochs of the daemon in the order of its runs.
    """
    verdict = Verdict()
    first: dict[tuple[int, str, int], Event] = {}
    newest: dict[str, tuple[int, int]] = {}
    for event in events:
        key = (event.epoch, event.camera, event.seq)
        known = first.setdefault(key, event)
        wrong = _wrong_flag(event, known)
        if wrong:
            verdict.flags.append(f"{_name(event)}: {wrong}")
        if known is not event:
            verdict.duplicates += 1
            if (known.kind, known.track) != (event.kind, event.track):
                verdict.reused.append(f"{_name(event)} and {_name(known)}")
            continue
        if (event.epoch, event.seq) <= newest.get(event.camera, (0, 0)):
            verdict.unordered.append(_name(event))
        newest[event.camera] = max(newest.get(event.camera, (0, 0)), (event.epoch, event.seq))
    verdict.received = len(first)
    _count(verdict, first)
    _follow(verdict, first.values(), seen)
    verdict.runs = [f"{one} after {before}" for before, one in itertools.pairwise(runs) if one <= before]
    return verdict


def _name(event: Event) -> str:
    reason = f" ({event.reason})" if event.reason else ""
    return f"{event.epoch} {event.camera} seq {event.seq}: {event.kind} of track {event.track}{reason}"


def _wrong_flag(event: Event, known: Event) -> str:
    """Return what is wrong with an event's `replayed`; empty if nothing is. `known` is its first delivery."""
    if not event.replayed:
        if event.epoch < event.newest and event.reason != "restart":
            return "of an earlier run, and not replayed"
        if event.connection != known.connection:
            return "came before on another connection, and is not replayed"
    elif event.connection and event.epoch == event.newest and known is event:
        captured_s = event.at_s - event.age_s
        if captured_s > event.opened_s + _CLEARLY_S:
            return f"captured {captured_s - event.opened_s:.1f} s after the connection began, and replayed"
    return ""


def _count(verdict: Verdict, first: dict[tuple[int, str, int], Event]) -> None:
    numbers: dict[tuple[int, str], set[int]] = defaultdict(set)
    for epoch, camera, seq in first:
        numbers[epoch, camera].add(seq)
    for (epoch, camera), received in numbers.items():
        verdict.numbered += max(received)
        missing = sorted(set(range(1, max(received) + 1)) - received)
        verdict.lost += [f"{epoch} {camera} seq {seq}" for seq in missing]


def _follow(verdict: Verdict, events: Iterable[Event], seen: Mapping[Track, tuple[float, float]]) -> None:
    tracks: dict[Track, list[Event]] = defaultdict(list)
    for event in events:
        tracks[event.epoch, event.camera, event.track].append(event)
    for (epoch, camera, track), told in tracks.items():
        name = f"{epoch} {camera} track {track}"
        kinds = [event.kind for event in sorted(told, key=lambda event: event.seq)]
        verdict.tracks += "begin" in kinds
        if "end" not in kinds:
            verdict.endless.append(f"{name}: {', '.join(kinds)}")
        elif kinds[0] != "begin" or kinds[-1] != "end" or kinds.count("begin") + kinds.count("end") != 2:
            verdict.odd.append(f"{name}: {', '.join(kinds)}")
    for key, (since_s, until_s) in seen.items():
        if key not in tracks and until_s - since_s >= _SHOWN_S:
            epoch, camera, track = key
            verdict.untold.append(f"{epoch} {camera} track {track}, shown for {until_s - since_s:.1f} s")
