"""Printing the tables of the model cards.

    python -m visaged.models.training.evaluation.evaluate --data DIR
    python -m visaged.models.training.evaluation.evaluate --data DIR --model v4=detector-v4.onnx \
        --model YuNet=yunet.onnx
    python -m visaged.models.training.evaluation.evaluate --data DIR --model f32=v4.onnx --model bf16=v4.onnx \
        --run bf16=openvino:bfloat16
    python -m visaged.models.training.evaluation.evaluate --data DIR --through-product --videos CLIPS

The first judges the newest detector of the package's manifest and, with `--cache CROPS`, its newest analyzer
(`analyzer.evaluation.evaluate`); the second compares detectors of one's own, the third a detector with itself on
another runtime; the last asks the daemon itself, as its clients do (`through_product`).

Every detector sees the same held-out pictures at the same size, padded with black to multiples of 32. Held out are the
pictures that `packs.is_validation` picks by name, less those of which training saw a copy (`duplicates`, run unless
`--leave-out` has its list); training with this folder never draws them.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from visaged.models.manifest import PACKAGED, AnalyzerEntry, DetectorEntry, EntryT, Manifest
from visaged.models.training.common import command
from visaged.models.training.common.packs import Faces, PackedPicture, is_validation, read_pack
from visaged.models.training.evaluation.decode import FindFaces, detector_of, open_detector, session
from visaged.models.training.evaluation.metrics import Scored, join, match, point_errors
from visaged.models.types import FloatArray, Image

LEAST_SCORE = 0.02
"""Detections from here on up make the precision curve."""

THRESHOLD = 0.5
SIZES = (8, 16, 32)
THRESHOLDS = (0.3, 0.4, 0.5, 0.6)
RECALL_SIZE = 16
POINT_SIZE = 16
"""Points are compared on faces from this size on."""


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """Pictures of one pack at one scale.

    Attributes:
        title: what the table calls it.
        pack: the pack that the pictures are from.
        scale: factor by which the pictures are shrunk, 1 as packed.
        human_only: count only boxes that people drew, leave all others out.
    """

    title: str
    pack: str
    scale: float = 1.0
    human_only: bool = False


SETS = (
    EvaluationSet("street photos with masks, human boxes", "street_masks", human_only=True),
    EvaluationSet("events as packed (at most 704 px)", "events"),
    EvaluationSet("events at half size", "events", scale=0.5),
    EvaluationSet("portraits", "portraits"),
)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Which pictures to judge by.

    Attributes:
        directory: where the packs lie.
        leave_out: `pack/name` of held-out pictures that training saw a copy of.
        labels: a directory with other CSVs by pack name, or none.
    """

    directory: Path
    leave_out: frozenset[str] = frozenset()
    labels: Path | None = None

    def has(self, pack: str, name: str) -> bool:
        """Return whether a picture of a pack is held out."""
        return is_validation(pack, name) and f"{pack}/{name}" not in self.leave_out

    def pack(self, pack: str) -> Iterator[PackedPicture]:
        """Yield a pack's held-out pictures."""
        return read_pack(
            self.directory,
            pack,
            labels=self.labels / f"{pack}.csv" if self.labels else None,
            keep=lambda name: self.has(pack, name),
        )


def human_only(faces: Faces) -> Faces:
    """Return the faces with all that people did not draw left out of the count."""
    return Faces(faces.boxes, faces.points, faces.sure & faces.human, faces.human)


def pictures(held_out: HeldOut, chosen: EvaluationSet) -> Iterator[tuple[Image, Faces]]:
    """Yield the held-out pictures of a set, scaled, with their labels."""
    for packed in held_out.pack(chosen.pack):
        image, faces = packed.decode(), packed.faces
        if chosen.human_only:
            faces = human_only(faces)
        if chosen.scale != 1:
            image = np.asarray(
                cv2.resize(image, None, fx=chosen.scale, fy=chosen.scale, interpolation=cv2.INTER_AREA), np.uint8
            )
            faces = Faces(faces.boxes * chosen.scale, faces.points * chosen.scale, faces.sure, faces.human)
        yield image, faces


def accuracy_row(
    find: FindFaces, items: list[tuple[Image, Faces]], threads: int = 1
) -> tuple[list[float], list[np.ndarray]]:
    """Return the average precision in percent for each of SIZES, and each picture's point errors."""
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(lambda item: find(item[0], LEAST_SCORE), items))
    precision = [
        100 * join([match(f, faces, size) for f, (_, faces) in zip(found, items, strict=True)]).average_precision()
        for size in SIZES
    ]
    sure = [tuple(part[f[1] >= THRESHOLD] for part in f) for f in found]
    errors = [point_errors(f, faces, POINT_SIZE) for f, (_, faces) in zip(sure, items, strict=True)]  # type: ignore[arg-type]
    return precision, errors


def mean(values: FloatArray) -> str:
    """Return the mean as text, `-` of nothing."""
    return f"{values.mean():.2f}" if len(values) else "-"


def print_accuracy(held_out: HeldOut, networks: dict[str, FindFaces], threads: int = 1) -> None:
    """Print average precision, and the point error on those faces that every network found."""
    print(f"\nAP at IoU 0.5, faces of at least {' / '.join(map(str, SIZES))} px\n")
    print("| held-out pictures | " + " | ".join(networks) + " |\n|---|" + "---|" * len(networks))
    lines = []
    for chosen in SETS:
        if held_out.labels and not (held_out.labels / f"{chosen.pack}.csv").exists():
            continue
        items = list(pictures(held_out, chosen))
        if not items:
            raise ValueError(f"pack {chosen.pack} of {held_out.directory} has no picture to judge by")
        cells, errors = [], []
        for find in networks.values():
            precision, error = accuracy_row(find, items, threads)
            cells.append(" / ".join(f"{p:.1f}" for p in precision))
            errors.append(np.concatenate(error))
        print(f"| {chosen.title}, {len(items)} | " + " | ".join(cells) + " |", flush=True)
        common = ~np.isnan(np.stack(errors)).any(0)
        values = " | ".join(mean(e[common]) for e in errors)
        lines.append(f"| {chosen.title}, {common.sum()} faces | {values} |")
    print(f"\nMean distance of the five points in percent of the face size, faces >= {POINT_SIZE} px that all found\n")
    print("| labels by a teacher | " + " | ".join(networks) + " |\n|---|" + "---|" * len(networks))
    print("\n".join(lines), flush=True)


def faceless(held_out: HeldOut) -> list[PackedPicture]:
    """Return the held-out pictures of `scenes` on which no teacher saw any face."""
    return [packed for packed in held_out.pack("scenes") if not len(packed.faces)]


def print_thresholds(held_out: HeldOut, networks: dict[str, FindFaces]) -> None:
    """Print recall and false alarms at several thresholds."""
    photos = [packed.decode() for packed in faceless(held_out)]
    sets = [list(pictures(held_out, chosen)) for chosen in SETS[:2]]
    print(f"\nShare of faces >= {RECALL_SIZE} px found in street photos / in events as packed, ", end="")
    print(f"photos with a false alarm among {len(photos)} without a face\n")
    print("| threshold | " + " | ".join(networks) + " |\n|---|" + "---|" * len(networks))
    alarms: dict[str, list[float]] = {}
    scored: dict[str, list[Scored]] = {}
    for name, find in networks.items():
        alarms[name] = [float(find(photo, LEAST_SCORE)[1].max(initial=0)) for photo in photos]
        scored[name] = [join([match(find(i, LEAST_SCORE), f, RECALL_SIZE) for i, f in items]) for items in sets]
    for threshold in THRESHOLDS:
        cells = []
        for name in networks:
            recalls = [s.hits[s.scores >= threshold].sum() / max(s.faces, 1) for s in scored[name]]
            false = sum(score >= threshold for score in alarms[name])
            cells.append(" / ".join(f"{100 * r:.1f} %" for r in recalls) + f", {false}")
        print(f"| {threshold} | " + " | ".join(cells) + " |", flush=True)
    fooling = zip(faceless(held_out), zip(*alarms.values(), strict=True), strict=True)
    for packed, scores in fooling:
        if max(scores) >= THRESHOLD:
            print(f"<!-- {packed.name}: best scores {[round(score, 2) for score in scores]} -->")


def print_point_truth(directory: Path, networks: dict[str, FindFaces]) -> None:
    """Print the point error on `points68`, whose points no detector's teacher made."""
    groups = [range(36, 42), range(42, 48), (30,), (48,), (54,)]
    columns = [[f"{axis}{i + 1}" for axis in "xy"] for i in range(68)]
    with (directory / "points68.csv").open(newline="") as file:
        truth = {
            row["image"]: np.array([[float(row[c]) for c in pair] for pair in columns], np.float32)
            for row in csv.DictReader(file)
        }
    errors = []
    for packed in read_pack(directory, "points68"):
        all_points = truth[packed.name]
        five = np.stack([all_points[list(g)].mean(0) for g in groups])
        size = float(np.sqrt(np.prod(np.ptp(all_points, axis=0))))
        image = packed.decode()
        row = []
        for find in networks.values():
            boxes, _, points = find(image, THRESHOLD)
            near = np.linalg.norm(points.mean(1) - five.mean(0), axis=1) if len(boxes) else np.zeros(0)
            hit = len(near) > 0 and near.min() < 0.35 * size
            row.append(100 * np.linalg.norm(points[near.argmin()] - five, axis=1).mean() / size if hit else np.nan)
        errors.append(row)
    table = np.array(errors)
    common = ~np.isnan(table).any(1)
    print(f"\nFive points against human ones on {len(table)} video frames (points68), percent of the face size\n")
    print("| | " + " | ".join(networks) + " |\n|---|" + "---|" * len(networks))
    print(f"| mean over {common.sum()} found by all | " + " | ".join(map(mean, table[common].T)) + " |")
    print("| faces found | " + " | ".join(str(n) for n in (~np.isnan(table)).sum(0)) + " |", flush=True)


def print_time(paths: dict[str, Path], rounds: int) -> None:
    """Print the time per 640x384 picture on one core; the networks take turns, so that all meet the same machine."""
    runs = {}
    for name, path in paths.items():
        network = session(path)
        feed = network.get_inputs()[0]
        image = np.random.default_rng(0).integers(0, 256, (1, 384, 640, 3), dtype=np.uint8)
        pixels = image if "uint8" in feed.type else image.transpose(0, 3, 1, 2).astype(np.float32)
        runs[name] = (network, {feed.name: np.ascontiguousarray(pixels)})
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, (network, values) in runs.items():
            started = time.perf_counter()
            network.run(None, values)
            times[name].append(1e3 * (time.perf_counter() - started))
    print("\nTime per 640x384 picture, one core, ONNX Runtime CPU: median (fastest tenth) in ms\n")
    print("| " + " | ".join(runs) + " |\n|" + "---|" * len(runs))
    print("| " + " | ".join(f"{np.median(t):.2f} ({np.quantile(t, 0.1):.2f})" for t in times.values()) + " |")


def newest(manifest: Manifest, kind: type[EntryT]) -> EntryT | None:
    """Return a manifest's newest network of a kind for a CPU, the last of those of one day, or none."""
    entries = [entry for entry in manifest.entries if isinstance(entry, kind) and not getattr(entry, "gpu", False)]
    return max(reversed(entries), key=lambda entry: entry.date, default=None)


def chosen_networks(
    models: list[str], manifest_file: Path = PACKAGED, runs: list[str] | None = None
) -> tuple[dict[str, Path], dict[str, FindFaces]]:
    """Return the files and the detectors to judge, by name.

    Args:
        models: each `NAME=FILE`; if there is none, the newest detector of the manifest is judged.
        manifest_file: the manifest.
        runs: each `NAME=PROVIDER:PRECISION`, for those of the models that are not to run on ONNX Runtime's CPU.

    Raises:
        ModelError: A file is missing, damaged or of no kind that is known here.
        ValueError: A text is not `NAME=FILE`, or the manifest has no detector.
    """
    if models:
        paths = command.named_files(models)
        configs = command.runtimes(runs or [], paths)
        return paths, {name: open_detector(path, configs[name]) for name, path in paths.items()}
    manifest = Manifest(manifest_file)
    entry = newest(manifest, DetectorEntry)
    if entry is None:
        raise ValueError(f"{manifest.path} has no detector; name one with --model NAME=FILE")
    path = manifest.file(entry)
    return {entry.name: path}, {entry.name: detector_of(path, entry)}


def run_module(name: str, *options: str | Path) -> int:
    """Run another program of this training in a process of its own; return its exit code."""
    line = [sys.executable, "-m", f"visaged.models.training.{name}", *map(str, options)]
    sys.stdout.flush()
    return subprocess.run(line, check=False).returncode  # noqa: S603 (our own programs)


def copied_pictures(data: Path, listed: Path | None) -> frozenset[str]:
    """Return `pack/name` of the held-out pictures that training saw a copy of; looks for them if no list is given."""
    if listed is not None:
        return frozenset(listed.read_text(encoding="utf-8").splitlines())
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "copies.txt"
        if run_module("common.duplicates", "--data", data, "--out", out):
            raise ValueError(f"copies could not be looked for in {data}; give --leave-out a list, which may be empty")
        return frozenset(out.read_text(encoding="utf-8").splitlines())


def print_analyzer(data: Path, cache: Path | None, looks: Path | None) -> int:
    """Print the tables of the manifest's newest analyzer in a process of its own; return that process's exit code."""
    manifest = Manifest()
    entry = newest(manifest, AnalyzerEntry)
    if entry is None:
        return 0
    if cache is None:
        print(f"\nThe tables of {entry.name} need --cache CROPS, which the analyzer's labelling.label makes.")
        return 0
    print(f"\n## {entry.name}")
    model = f"{entry.name}={manifest.file(entry)}"
    more: list[str | Path] = [] if looks is None else ["--looks", looks]
    return run_module("analyzer.evaluation.evaluate", "--data", data, "--cache", cache, "--model", model, *more)


def print_through_product(arguments: argparse.Namespace) -> int:
    """Print the table of what the daemon answers; return the exit code."""
    # It imports this module.
    from visaged.models.training.evaluation import through_product

    if arguments.model or arguments.labels or arguments.cache:
        raise ValueError("--through-product takes no --model, --labels or --cache; a --config may name other networks")
    if arguments.limit is not None and arguments.limit < 1:
        raise ValueError(f"--limit takes a number from 1 up, not {arguments.limit}")
    if arguments.fps is not None and not arguments.fps >= 0:
        raise ValueError(f"--fps takes a rate, or 0 for all frames, not {arguments.fps:g}")
    through_product.check_inputs(arguments.data, arguments.videos)
    copies = copied_pictures(arguments.data, arguments.leave_out)
    through_product.print_table(
        HeldOut(arguments.data, copies), arguments.videos, arguments.fps, arguments.limit, arguments.config
    )
    return 0


def parse(command_line: list[str] | None = None) -> argparse.Namespace:
    """Read the command line, the process's own if none is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory of packs")
    parser.add_argument("--model", action="append", default=[], metavar="NAME=FILE", help="a detector; may be repeated")
    parser.add_argument(
        "--run", action="append", default=[], metavar="NAME=PROVIDER:PRECISION", help="what a --model runs on"
    )
    parser.add_argument("--cache", type=Path, help="the analyzer's crops and labels, by `analyzer.label`")
    parser.add_argument("--looks", type=Path, help="looks by `analyzer.looks`, for the reliability by size and yaw")
    parser.add_argument("--leave-out", type=Path, help="list of pictures that training saw a copy of, by `duplicates`")
    parser.add_argument("--labels", type=Path, help="directory of other labels, by `relabel`: AP by them only")
    parser.add_argument("--only-accuracy", action="store_true", help="the first two tables alone: AP and points")
    parser.add_argument("--threads", type=int, default=1, help="pictures that are searched at once for these two")
    parser.add_argument("--rounds", type=int, default=200, help="of the timing")
    parser.add_argument("--through-product", action="store_true", help="ask the daemon, over HTTP and MQTT")
    parser.add_argument("--videos", type=Path, help="with --through-product: directory of clips, for its tracks")
    parser.add_argument(
        "--fps", type=float, help="with --videos: frames to analyse a second, 0: all; left out: the daemon's own"
    )
    parser.add_argument("--limit", type=int, help="with --through-product: pictures of a set, for a quick look")
    parser.add_argument(
        "--config", type=Path, help="with --through-product: the daemon's configuration, if not its own"
    )
    return parser.parse_args(command_line)


def main(command_line: list[str] | None = None) -> int:
    """Print all tables; return the exit code."""
    arguments = parse(command_line)
    cv2.setNumThreads(1)
    try:
        if arguments.through_product:
            return print_through_product(arguments)
        if any(value is not None for value in (arguments.videos, arguments.fps, arguments.limit, arguments.config)):
            raise ValueError("--videos, --fps, --limit and --config go with --through-product")
        if arguments.run and not arguments.model:
            raise ValueError("--run says what a --model runs on; name one")
        paths, networks = chosen_networks(arguments.model, runs=arguments.run)
        copies = copied_pictures(arguments.data, arguments.leave_out)
        held_out = HeldOut(arguments.data, copies, arguments.labels)
        print_accuracy(held_out, networks, arguments.threads)
        if arguments.labels or arguments.only_accuracy:
            return 0
        print_point_truth(arguments.data, networks)
        print_thresholds(held_out, networks)
        if not arguments.run:  # `tests.benchmarks networks` times runtimes
            print_time(paths, arguments.rounds)
        return 0 if arguments.model else print_analyzer(arguments.data, arguments.cache, arguments.looks)
    except command.WRONG_INPUT as error:
        print(error, file=sys.stderr)
        return command.EXIT_WRONG_INPUT


if __name__ == "__main__":
    sys.exit(main())
