"""The table of what people meet: the daemon's own answers to pictures and its tracks of clips.

    python -m visaged.models.training.evaluation.evaluate --data DIR --through-product --videos CLIPS --config mine.yaml

The other tables judge a network at the pictures' own size; this one judges everything between a client's file and its
answer: decoding, scaling, the network, the threshold, the tracker (`product`). Pictures are sent as they are packed.
Rows at the *default threshold* ask as a client does who says nothing of it; average precision is of all that the daemon
can be made to return. A configuration (`--config`) is for networks and settings of one's own; without it, the daemon is
judged as shipped.

Clips: whatever was cut from a clip for training (`clips`, `labels/clips.csv`) stands apart from the rest. Nobody drew
boxes into them; what is judged is how many faces there can be. In a `sign_*` clip one person is in view all the time:
the track that lives longest is taken to be theirs, and every other one is false. In `one_by_one` nobody turns their
face to the camera: every track is false. Few frames a second, as a camera has them by default, hide tracks that last a
few frames; `--fps 0` looks at all.
"""

from __future__ import annotations

import csv
import itertools
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from visaged.models.training.common.packs import Faces, read_pack
from visaged.models.training.evaluation import sweep
from visaged.models.training.evaluation.decode import Found, overlap
from visaged.models.training.evaluation.evaluate import SIZES, HeldOut, faceless, human_only
from visaged.models.training.evaluation.metrics import MATCH_IOU, join, match
from visaged.models.training.evaluation.product import Product, Track, Watched, read_configuration
from visaged.models.training.labelling.clips import STRETCHES, read_stretches
from visaged.models.types import FloatArray

PACKS = ("portraits", "mask_crops", "events", "street_masks", "scenes")
SIGNING, EMPTY_ROOM, WALKING = "sign_*", "one_by_one", "walking_pause"

LARGE = 0.5
"""A face is large when its longer side takes more than this part of the picture's."""

CROPS = 480
"""Head crops of each kind, the first ones by name; their names are hashes."""

LEAST_OF_CROP = 0.3
"""The face of a head crop is at least this part of the crop's shorter side, and covers the crop's middle."""

TELLING = frozenset({"age", "gender"})
"""Attributes of which each makes a person of what a track follows."""

Item = TypeVar("Item")


def large_face(faces: Faces, width: int, height: int) -> FloatArray | None:
    """Return the largest sure face, (4,) pixels, cut to the picture, if it is a large one."""
    boxes = faces.boxes[faces.sure].clip(0, [width, height, width, height])
    if not len(boxes):
        return None
    edges = boxes[:, 2:] - boxes[:, :2]
    largest = int(edges.prod(1).argmax())
    return boxes[largest] if edges[largest].max() > LARGE * max(width, height) else None


def is_found(found: Found, box: FloatArray, width: int, height: int) -> bool:
    """Return whether a face lies on a box (4,), as far as both are in the picture."""
    whole = np.array([width, height, width, height], np.float32)
    return bool((overlap(found[0].clip(0, whole), box[None].clip(0, whole)) >= MATCH_IOU).any())


def crop_verdict(found: Found, width: int, height: int) -> tuple[bool, int]:
    """Return whether the face of a head crop was found, and how many boxes are something else."""
    boxes = found[0]
    edges = (boxes[:, 2:] - boxes[:, :2]).clip(0)
    middle = np.array([width, height], np.float32) / 2
    covers = ((boxes[:, :2] <= middle) & (middle <= boxes[:, 2:])).all(1)
    right = covers & (np.sqrt(edges.prod(1)) >= LEAST_OF_CROP * min(width, height))
    return bool(right.any()), len(boxes) - int(right.any())


def false_tracks(tracks: Sequence[Track], persons: int) -> list[Track]:
    """Return the tracks beyond the one that lives longest for each person in view."""
    return sorted(tracks, key=lambda track: -track.duration_s)[persons:]


def a_minute(count: int, seconds: float) -> str:
    """Return a rate as text."""
    return f"{60 * count / seconds:.1f}" if seconds > 0 else "-"


def share(count: int, of: int) -> str:
    """Return a part in percent as text, `-` of nothing."""
    return f"{100 * count / of:.1f} %" if of else "-"


def trained_until(stretches: Path = STRETCHES) -> dict[str, float]:
    """Return up to which second each clip was cut for training; clips that are absent were not."""
    return {clip: max(part.to_s for part in parts) for clip, parts in read_stretches(stretches).items()}


def check_inputs(data: Path, videos: Path | None) -> None:
    """Raise `ValueError` if a pack or a clip is missing, before anything takes its time."""
    for pack, ending in itertools.product(PACKS, (".tar", ".csv")):
        if not (data / f"{pack}{ending}").is_file():
            raise ValueError(f"{data} has no {pack}{ending}; `packs` says what belongs there")
    if videos is not None:
        for name in (SIGNING, EMPTY_ROOM, WALKING):
            clips_named(videos, name)


def clips_named(videos: Path, name: str) -> list[Path]:
    """Return the clips of a name or pattern, whatever their ending; raises `ValueError` if there is none."""
    files = sorted(videos.glob(f"{name}.*"))
    if not files:
        raise ValueError(f"{videos} has no clip named {name}")
    return files


def first(items: Iterable[Item], limit: int | None) -> Iterator[Item]:
    """Yield so many of the items, None for all."""
    return itertools.islice(items, limit)


def row(what: str, value: str, counts: str) -> None:
    """Print a row of the table."""
    print(f"| {what} | {value} | {counts} |", flush=True)


def print_portraits(product: Product, held_out: HeldOut, limit: int | None) -> None:
    """Print how many large faces of portraits are found."""
    found = {"held-out": 0, "all": 0}
    seen = dict.fromkeys(found, 0)
    for packed in read_pack(held_out.directory, "portraits"):
        sets = ["all", "held-out"] if held_out.has("portraits", packed.name) else ["all"]
        sets = [name for name in sets if limit is None or seen[name] < limit]
        if not sets:
            continue
        height, width = packed.decode().shape[:2]
        box = large_face(packed.faces, width, height)
        if box is None:
            continue
        hit = is_found(product.ask(packed.jpeg, f"portraits/{packed.name}"), box, width, height)
        for name in sets:
            seen[name] += 1
            found[name] += hit
    for name in found:
        what = f"portraits whose face takes more than half of the long side, {name}: found"
        row(what, share(found[name], seen[name]), f"{found[name]} of {seen[name]}")


def masks_of(table: Path) -> dict[str, bool]:
    """Read which head crops wear a mask; raises `ValueError` with the line that is wrong."""
    masks = {}
    with table.open(newline="") as file:
        reader = csv.DictReader(file)
        for line in reader:
            try:
                masks[line["image"]] = {"0": False, "1": True}[line["mask"]]
            except KeyError as error:
                raise ValueError(f"{table}, line {reader.line_num}: image and mask, 0 or 1, belong there") from error
    return masks


def print_crops(product: Product, data: Path, limit: int | None) -> None:
    """Print what is found on head crops, and what is taken for a face beside it."""
    masks = masks_of(data / "mask_crops.csv")
    for title, wears in (("without", False), ("with", True)):
        names = sorted(name for name, mask in masks.items() if mask == wears)[: min(CROPS, limit or CROPS)]
        found = false = pictures = 0
        for packed in read_pack(data, "mask_crops", keep=frozenset(names).__contains__):
            height, width = packed.decode().shape[:2]
            hit, others = crop_verdict(product.ask(packed.jpeg, f"mask_crops/{packed.name}"), width, height)
            pictures, found, false = pictures + 1, found + hit, false + others
        row(f"head crops {title} a mask: found", share(found, pictures), f"{found} of {pictures}")
        row(f"head crops {title} a mask: false boxes", str(false), f"on {pictures}")


def print_sweep(product: Product, limit: int | None) -> None:
    """Print at how many sizes a face is found."""
    for title, steps in itertools.groupby(sweep.steps(sweep.SHARES[:limit]), lambda step: step.title):
        found = alone = pictures = 0
        missed = []
        for step in steps:
            jpeg = cv2.imencode(".jpg", step.image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
            faces = product.ask(jpeg, f"{title} at {step.share:.0%}")
            hit = is_found(faces, step.box, sweep.SIDE, sweep.SIDE)
            pictures, found, alone = pictures + 1, found + hit, alone + (hit and len(faces[0]) == 1)
            missed += [] if hit else [f"{100 * step.share:.0f}"]
        sizes = f"missed at {', '.join(missed)} %" if missed else "missed at none"
        what = f"{title}, face from {sweep.SHARES[0]:.0%} to {sweep.SHARES[-1]:.0%} of the picture: steps"
        row(f"{what} at which it is found / is the only box", f"{found} / {alone}", f"of {pictures}; {sizes}")


def print_precision(product: Product, held_out: HeldOut, limit: int | None) -> None:
    """Print average precision on photos of many faces."""
    least = product.least
    for pack, title, labels in (
        ("events", "event photos", (("human boxes", True), ("all sure boxes", False))),
        ("street_masks", "street photos", (("human boxes", True),)),
    ):
        seen = [
            (product.ask(packed.jpeg, f"{pack}/{packed.name}", least), packed.faces)
            for packed in first(held_out.pack(pack), limit)
        ]
        if not seen:
            raise ValueError(f"pack {pack} of {held_out.directory} has no picture to judge by")
        for words, by_people in labels:
            judged = [(found, human_only(faces) if by_people else faces) for found, faces in seen]
            sizes = [join([match(found, faces, size) for found, faces in judged]) for size in SIZES]
            values = " / ".join(f"{100 * scored.average_precision():.1f}" for scored in sizes)
            counts = " / ".join(str(scored.faces) for scored in sizes)
            what = f"{title}, {words}: AP of faces from {' / '.join(map(str, SIZES))} px on"
            row(what, values, f"{counts} faces on {len(seen)}")


def print_alarms(product: Product, held_out: HeldOut, limit: int | None) -> None:
    """Print how many photos without a face get one."""
    photos = list(first(faceless(held_out), limit))
    fooled = [p.name for p in photos if len(product.ask(p.jpeg, f"scenes/{p.name}")[0])]
    row("photos without a face, held-out: with a false one", str(len(fooled)), f"of {len(photos)}")


def print_tracks(product: Product, videos: Path, fps: float | None) -> None:
    """Print how many false tracks clips lead to; `fps` as in `Product.watch`."""
    until = trained_until()
    signing = [product.watch(clip, fps) for clip in clips_named(videos, SIGNING)]
    for title, trained in (("held-out", False), ("trained on", True)):
        clips = [clip for clip in signing if (clip.name in until) == trained]
        if clips:
            print_signing(f"signing clips, one person each, {title}", clips)
    (room,) = (product.watch(clip, fps) for clip in clips_named(videos, EMPTY_ROOM)[:1])
    print_backs(f"{EMPTY_ROOM}, nobody shows a face", room.tracks, room.seconds)
    from_s = until.get(EMPTY_ROOM, 0.0)
    later = [track for track in room.tracks if track.start_s >= from_s]
    print_backs(f"{EMPTY_ROOM} from {from_s:g} s on, held-out", later, max(0.0, room.seconds - from_s))
    (walk,) = (product.watch(clip, fps) for clip in clips_named(videos, WALKING)[:1])
    lives = ", ".join(f"{track.duration_s:.1f}" for track in walk.tracks) or "-"
    row(f"{WALKING}, three persons: tracks", str(len(walk.tracks)), f"in {walk.seconds:.0f} s; they live {lives} s")


def print_signing(title: str, clips: Sequence[Watched]) -> None:
    """Print the false tracks of clips with one person each."""
    seconds = sum(clip.seconds for clip in clips)
    false = {clip.name: len(false_tracks(clip.tracks, 1)) for clip in clips}
    followed = sum(len(clip.tracks) > 0 for clip in clips)
    where = ", ".join(f"{name} {count}" for name, count in false.items() if count) or "none"
    counts = f"{sum(false.values())} in {seconds:.1f} s ({where}); {followed} of {len(clips)} persons followed"
    row(f"{title}: false tracks a minute", a_minute(sum(false.values()), seconds), counts)


def print_backs(title: str, tracks: Sequence[Track], seconds: float) -> None:
    """Print the tracks of a clip in which every one is false."""
    described = sum(bool(track.attributes & TELLING) for track in tracks)
    longest = max((track.duration_s for track in tracks), default=0.0)
    counts = f"{len(tracks)} in {seconds:.0f} s; {described} with age or gender; the longest lives {longest:.1f} s"
    row(f"{title}: false tracks a minute", a_minute(len(tracks), seconds), counts)


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Make SIGTERM an exception, so that no daemon is left behind."""

    def leave(number: int, frame: object) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def print_table(
    held_out: HeldOut,
    videos: Path | None = None,
    fps: float | None = None,
    limit: int | None = None,
    configuration: Path | None = None,
) -> None:
    """Print the table.

    Args:
        held_out: the packs.
        videos: directory of the clips, None to leave tracks out.
        fps: frames of clips to analyse a second, 0 for all, None for the daemon's own choice.
        limit: most pictures of a set, None for all.
        configuration: configuration file of the daemon, for networks and settings of one's own; None for the daemon as
            shipped.

    Raises:
        ValueError: A pack, a clip or the daemon is not as it should be.
    """
    base = None if configuration is None else read_configuration(configuration)
    with ended_in_order(), Product(base) as product:
        print(f"\n{product.detector} through the product, default threshold {product.threshold:g}, ", end="")
        rate = "at the daemon's own rate" if fps is None else f"at {fps:g} frames a second" if fps else "frame by frame"
        print(f"precision of answers from {product.least:g} up, clips {rate}", end="")
        print("\n\n| | | |\n|---|---|---|", flush=True)
        print_portraits(product, held_out, limit)
        print_crops(product, held_out.directory, limit)
        print_sweep(product, limit)
        print_precision(product, held_out, limit)
        print_alarms(product, held_out, limit)
        if videos is not None:
            print_tracks(product, videos, fps)
