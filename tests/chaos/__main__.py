"""The command: `python -m tests.chaos`. Ends with exit code 1 where something was lost or did not come back."""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.cameras import Camera, HttpCamera, RtspCamera
from tests.chaos.campaign import KINDS, Campaign
from tests.chaos.clip import Clip, make_clips, write_mp4
from tests.chaos.mosquitto import Mosquitto
from tests.chaos.record import Record
from tests.chaos.recorder import RecordingBroker
from tests.chaos.subject import Disk, Subject, own_mounts
from tests.chaos.verdict import judge
from tests.support.requirements import FAKETIME, FAKETIME_LIBRARY, MOSQUITTO, RTSP_SERVER
from tests.support.returning import lone_port
from tests.support.rtsp import RtspServer

_MOST_SHOWN = 8
_LONG_MINUTES = 5.0


def main() -> int:
    """Run the faults, print the table, and return the exit code."""
    options = _options()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # SIGINT may have been ignored by a shell
        signal.signal(number, signal.default_int_handler)
    has_mounts = own_mounts()
    clock = FAKETIME_LIBRARY
    if not has_mounts:
        print("no full disks: mounting a small file system takes root", flush=True)
    if clock is None:
        print(f"no changes of the clock: {FAKETIME.missing()}", flush=True)
    with contextlib.ExitStack() as stack:
        folder = Path(options.folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="visaged-chaos-")))
        campaigns = _campaigns(stack, folder, options, has_mounts, clock)
        stack.callback(signal.signal, signal.SIGINT, signal.SIG_IGN)  # one Ctrl-C ends it, more do not disturb the end
        try:  # whenever it is interrupted, no campaign may start a daemon again
            for campaign in campaigns:
                campaign.launch()
            for campaign in campaigns:
                campaign.start()
            print(f"the faults begin, for {60 * options.minutes:.0f} s", flush=True)
            began_s = time.monotonic()
            while time.monotonic() < began_s + 60 * options.minutes:
                time.sleep(0.5)
        finally:
            for campaign in campaigns:
                campaign.stop()
        for campaign in campaigns:
            campaign.settle()
        return _report(campaigns, time.monotonic() - began_s)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Everything fails; nothing may be lost.")
    parser.add_argument("--minutes", type=float, default=15.0, help="how long faults begin (default: 15)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed draws the same faults (default: 1)")
    parser.add_argument("--only", type=_kinds, default=set(KINDS), metavar="KINDS", help=f"of {','.join(KINDS)}")
    parser.add_argument("--folder", help="keep logs and all that came in here (default: a folder that is removed)")
    options = parser.parse_args()
    if options.folder:
        Path(options.folder).mkdir(parents=True, exist_ok=True)
        if any(Path(options.folder).iterdir()):
            parser.error(f"--folder: {options.folder} is not empty")
    return options


def _kinds(text: str) -> set[str]:
    kinds = set(text.split(","))
    if not kinds <= set(KINDS):
        raise argparse.ArgumentTypeError(f"there are no faults of kind {', '.join(sorted(kinds - set(KINDS)))}")
    return kinds


def _campaigns(
    stack: contextlib.ExitStack, folder: Path, options: argparse.Namespace, has_mounts: bool, clock: Path | None
) -> list[Campaign]:
    clips = make_clips(options.seed)
    is_long = options.minutes >= _LONG_MINUTES
    campaigns = []
    for node in ("first", "second"):
        home = folder / node
        home.mkdir()
        record = Record(home / "record")
        stack.callback(record.close)
        broker: RecordingBroker | Mosquitto
        if node == "first":
            broker = RecordingBroker(record, random.Random(options.seed))
        elif MOSQUITTO.missing():
            print(f"no mosquitto, and so no second daemon: {MOSQUITTO.missing()}", flush=True)
            continue
        else:
            broker = Mosquitto(home / "broker", record)
        stack.callback(broker.close)
        cameras = [stack.enter_context(camera) for camera in _cameras(node, home, clips)]
        disk = Disk(home / "disk") if has_mounts else None
        if disk is not None:
            stack.callback(disk.close)
        subject = Subject(node, home, broker, cameras, record, disk, clock if node == "second" else None)
        stack.callback(subject.close)
        campaigns.append(Campaign(subject, broker, f"{options.seed} {node}", options.only, is_long))
    return campaigns


def _cameras(node: str, home: Path, clips: list[Clip]) -> list[Camera]:
    if node == "first" or RTSP_SERVER.missing():
        return [HttpCamera("jpegs", "mjpeg", clips), HttpCamera("ts", "ts", clips)]
    server = RtspServer(write_mp4(clips[0], home / "clip.mp4"), port=lone_port()).start()
    return [HttpCamera("jpegs", "mjpeg", clips), RtspCamera("rtsp", server)]


def _report(campaigns: Sequence[Campaign], seconds: float) -> int:
    counts: Counter[tuple[str, str]] = Counter()
    recoveries: dict[str, list[float]] = {}
    failed = False
    for campaign in campaigns:
        counts += campaign.counts
        for kind, values in campaign.recoveries.items():
            recoveries.setdefault(kind, []).extend(values)
    print(f"\n{'faults in ' + format(seconds, '.0f') + ' s':40} {'count':>6}   recovery p50   p95")
    for kind in sorted({kind for kind, _ in counts}):
        print(f"{kind:40} {sum(n for (k, _), n in counts.items() if k == kind):6}   {_times(recoveries.get(kind, []))}")
        for name in sorted(name for k, name in counts if k == kind):
            print(f"    {name:36} {counts[kind, name]:6}")
    for campaign in campaigns:
        failed |= _show(campaign)
    return int(failed)


def _times(values: list[float]) -> str:
    if not values:
        return "-"
    p95 = statistics.quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]
    return f"{statistics.median(values):10.2f} s {p95:6.2f} s"


def _show(campaign: Campaign) -> bool:
    """Print what became of the events of one daemon; return whether that is a failure."""
    subject, record = campaign.subject, campaign.subject.record
    verdict = judge(record.events, record.seen, record.runs)
    complaints = verdict.complaints() | {
        "events that the daemon counted as lost": [f"{int(n)} {cause}" for cause, n in subject.lost.items()],
        "messages that are no JSON": [repr(one[:80]) for one in record.damaged],
        "other failures": campaign.failures + subject.failures,
    }
    print(f"\n{subject.node}: {type(campaign.broker).__name__}, {len(record.runs)} runs, {record.faces} faces messages")
    print(f"    {verdict.numbered} events numbered, {verdict.received} received, {verdict.duplicates} came again, "
          f"{verdict.tracks} tracks")  # fmt: skip
    for what, cases in complaints.items():
        print(f"    {len(cases):6} {what}")
        for case in cases[:_MOST_SHOWN]:
            print(f"           {case}")
    nothing = [] if verdict.numbered else ["no events at all"]
    return any(complaints.values()) or bool(nothing)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
