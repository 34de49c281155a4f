"""Printing the tables of the analyzer's model card.

    python -m visaged.models.training.analyzer.evaluation.evaluate --data PACKS --cache CROPS \
        --model v0=a0.onnx --model v1=a1.onnx [--run v1=openvino:bfloat16]

All figures are of held-out crops, less those of which training saw a copy under another name; aligned by the labelled
points, black outside of the picture, as the product cuts them. `face 32 px` and `face 24 px`: the same crops from
pictures in which the face is that large (root of the area of a detector's box); `detector's errors`: aligned by points
that are wrong by 4 % of the face. Reliability is the expected calibration error over 15 bins of the winner's
probability; of a network that `calibrate` fitted on these very crops it is flattered, and `calibrate` prints the honest
one. Labels made by eye are mostly hard cases (labels/README.md): their figures are no shares of what a camera sees.

With `--looks` (by `looks`), what the manifest's newest analyzer is sure of, as the product publishes it, against what
is right, by the size of the face and by yaw: on the side of the looks that `trust` does not fit to.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visaged.models.geometry import turned
from visaged.models.manifest import AnalyzerEntry, Manifest
from visaged.models.session import Session
from visaged.models.training.analyzer.evaluation.figures import (
    FIGURES,
    GROUPS,
    Figure,
    Labels,
    Outputs,
    evaluation_labels,
    reliabilities,
)
from visaged.models.training.analyzer.evaluation.looks import Looks
from visaged.models.training.analyzer.evaluation.points68 import point_error, read_points68
from visaged.models.training.analyzer.evaluation.reliability import reliability_tables
from visaged.models.training.analyzer.evaluation.views import (
    BLURRED_VIEWS,
    COVERED_VIEWS,
    VIEWS,
    View,
    crops,
    held_out,
    roll_of,
)
from visaged.models.training.analyzer.heads import EMOTIONS, MIRROR_106, SIZE
from visaged.models.training.analyzer.labelling.cache import LABELS, FloatArray, Pack, read_packs
from visaged.models.training.analyzer.labelling.crops import COVERED_PACKS, EYE_DISTANCE
from visaged.models.training.analyzer.samples import blur_of
from visaged.models.training.common import command
from visaged.models.training.evaluation.evaluate import newest

GROUP_FIGURES = tuple(figure for figure in FIGURES if figure.by_group)
COVERED_FIGURES = tuple(figure for figure in FIGURES if figure.when_covered)
LEAST_GROUP = 25
"""Figures of fewer crops are not printed."""


def run(network: Session, images: NDArray[np.uint8]) -> Outputs:
    """Return all outputs by name."""
    return dict(zip(network.outputs, network.run(network.outputs, {"crop": images}), strict=True))


def join(parts: list[dict[str, FloatArray]]) -> dict[str, FloatArray]:
    """Put batches or packs together."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def read(network: Session, pack: Pack, places: NDArray[np.intp], view: View) -> tuple[Outputs, Labels]:
    """Run a network over crops of a pack; return its outputs and the labels in the same pixels and angles."""
    outputs, matrices = [], []
    for images, transforms in crops(pack, places, view):
        outputs.append(run(network, images))
        matrices.append(transforms)
    found, moved = join(outputs), np.concatenate(matrices)
    labels = evaluation_labels(
        {name: value[places] for name, value in pack.labels.items()},
        {name: value[places] for name, value in pack.truth.items()},
        surely_bare=pack.name not in COVERED_PACKS,
        size=view.size,
    )
    points = pack.labels["points"][places]
    labels["points"] = (np.einsum("nij,npj->npi", moved[:, :, :2], points) + moved[:, None, :, 2]).astype(np.float32)
    labels["pose"] = turned(labels["pose"], roll_of(moved))
    labels["race"] = pack.race[places]  # type: ignore[assignment]
    return found, labels


def select(values: dict[str, FloatArray], pick: NDArray[np.bool_]) -> dict[str, FloatArray]:
    """Return some of the crops."""
    return {name: value[pick] for name, value in values.items()}


def cell(figure: Figure, outputs: Outputs, labels: Labels, group: NDArray[np.bool_] | None = None) -> str:
    """Return a figure as text, `-` where the network has no such head or there are too few crops."""
    pick = figure.known(labels) if group is None else figure.known(labels) & group
    if figure.head not in outputs or pick.sum() < LEAST_GROUP:
        return "-"
    return f"{figure.value(select(outputs, pick), select(labels, pick)):.{figure.digits}f}"


def print_views(results: dict[str, dict[View, tuple[Outputs, Labels]]]) -> None:
    """Print every figure for every view and network."""
    print("\n### Held-out crops: " + " / ".join(view.title for view in VIEWS) + "\n")
    print("| figure | crops | " + " | ".join(results) + " |\n|---|---|" + "---|" * len(results))
    for figure in FIGURES:
        count = int(figure.known(next(iter(results.values()))[VIEWS[0]][1]).sum())
        cells = [" / ".join(cell(figure, *views[view]) for view in VIEWS) for views in results.values()]
        print(f"| {figure.title} | {count} | " + " | ".join(cells) + " |")


def print_groups(results: dict[str, dict[View, tuple[Outputs, Labels]]]) -> None:
    """Print the main figures by group of people."""
    titles = [figure.title for figure in GROUP_FIGURES]
    print("\n### By group, as packed: " + "; ".join(titles) + "\n")
    print("| group | " + " | ".join(results) + " |\n|---|" + "---|" * len(results))
    labels = next(iter(results.values()))[VIEWS[0]][1]
    groups = {name: choose(labels) for name, choose in GROUPS.items()}
    races = [str(race) for race in np.unique(labels["race"]) if race]
    groups |= {f"label {race}": np.asarray(labels["race"] == race) for race in races}
    for name, group in groups.items():
        cells = []
        for views in results.values():
            outputs, truth = views[VIEWS[0]]
            cells.append("; ".join(cell(figure, outputs, truth, group) for figure in GROUP_FIGURES))
        print(f"| {name} | " + " | ".join(cells) + " |")


def print_emotions(results: dict[str, dict[View, tuple[Outputs, Labels]]]) -> None:
    """Print recall and precision of each emotion."""
    print("\n### Emotions, as packed: recall / precision in % by the winner of the votes\n")
    print("| emotion | crops | " + " | ".join(results) + " |\n|---|---|" + "---|" * len(results))
    for index, name in enumerate(EMOTIONS):
        cells, count = [], 0
        for views in results.values():
            outputs, labels = views[VIEWS[0]]
            known = ~np.isnan(labels["emotion"][:, 0])
            truth, said = labels["emotion"][known].argmax(1), outputs["emotion"][known].argmax(1)
            count = int((truth == index).sum())
            both = int(((truth == index) & (said == index)).sum())
            cells.append(f"{100 * both / max(count, 1):.0f} / {100 * both / max(int((said == index).sum()), 1):.0f}")
        print(f"| {name} | {count} | " + " | ".join(cells) + " |")


def print_reliability(results: dict[str, dict[View, tuple[Outputs, Labels]]]) -> None:
    """Print the calibration error of each head for every view."""
    print("\n### Reliability (expected calibration error in %): " + " / ".join(view.title for view in VIEWS) + "\n")
    print("| head | " + " | ".join(results) + " |\n|---|" + "---|" * len(results))
    table = {name: [reliabilities(*views[view]) for view in VIEWS] for name, views in results.items()}
    heads = dict.fromkeys(head for rows in table.values() for row in rows for head in row)
    for head in heads:
        cells = [" / ".join(f"{row[head]:.1f}" if head in row else "-" for row in rows) for rows in table.values()]
        print(f"| {head} | " + " | ".join(cells) + " |")


def print_covered(packs: dict[str, Pack], networks: dict[str, Session], most: int) -> None:
    """Print what is left of some figures when something is drawn over the same faces."""
    print("\n### With things drawn on: " + "; ".join(figure.title for figure in COVERED_FIGURES) + "\n")
    print("| | " + " | ".join(networks) + " |\n|---|" + "---|" * len(networks))
    places = {name: held_out(pack)[:most] for name, pack in packs.items()}
    bare = {name: at[np.isfinite(packs[name].labels["points"][at, 0, 0])] for name, at in places.items()}
    for view in COVERED_VIEWS:
        cells = []
        for network in networks.values():
            parts = [read(network, packs[name], at, view) for name, at in bare.items() if len(at)]
            outputs, labels = flat(join([p[0] for p in parts])), join([p[1] for p in parts])
            cells.append("; ".join(cell(figure, outputs, labels) for figure in COVERED_FIGURES))
        print(f"| {view.title} | " + " | ".join(cells) + " |")


def print_blur(pack: Pack, networks: dict[str, Session], most: int) -> None:
    """Print what the networks say of sharp pictures that were blurred by a known amount."""
    places = held_out(pack)[:most]
    sharp = places[pack.scale[places] < 1]
    print(f"\n### Blur of {len(sharp)} sharp portraits smoothed by so many crop pixels: right answer; mean answer\n")
    networks = {n: s for n, s in networks.items() if "blur" in s.outputs}
    print("| | right | " + " | ".join(networks) + " |\n|---|---|" + "---|" * len(networks))
    for view in BLURRED_VIEWS:
        means = [f"{read(network, pack, sharp, view)[0]['blur'].mean():.2f}" for network in networks.values()]
        print(f"| {view.title} | {blur_of(float(np.hypot(0.5, view.blur))):.2f} | " + " | ".join(means) + " |")


def print_points(directory: Path, networks: dict[str, Session]) -> None:
    """Print the error against human points, and how far a mirrored crop's points are from the mirrored points."""
    images, truth = read_points68(directory)
    print(
        f"\n### Ten points against human ones on {len(images)} video frames (points68), % of the outer eye distance\n"
    )
    print("| | " + " | ".join(networks) + " |\n|---|" + "---|" * len(networks))
    found, mirrored = {}, {}
    for name, network in networks.items():
        found[name] = run(network, images)["points"]
        other = run(network, np.ascontiguousarray(images[:, :, ::-1]))["points"][:, MIRROR_106]
        mirrored[name] = np.stack([SIZE - 1 - other[..., 0], other[..., 1]], -1)
    print("| mean | " + " | ".join(f"{point_error(found[name], truth):.2f}" for name in networks) + " |")
    apart = [100 * float(np.linalg.norm(found[n] - mirrored[n], axis=2).mean()) / EYE_DISTANCE for n in networks]
    print("| mirrored against not, % of the eye distance | " + " | ".join(f"{a:.2f}" for a in apart) + " |")


def print_time(networks: dict[str, Session], rounds: int) -> None:
    """Print the time per face on one core at batch 8; the networks take turns, so that all meet the same machine."""
    images = np.random.default_rng(0).integers(0, 256, (8, SIZE, SIZE, 3), dtype=np.uint8)
    times: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(rounds):
        for name, network in networks.items():
            started = time.perf_counter()
            network.run(network.outputs, {"crop": images})
            times[name].append(1e3 * (time.perf_counter() - started) / len(images))
    print("\n### Time a face at batch 8, one core: median (fastest tenth) in ms\n")
    print("| " + " | ".join(networks) + " |\n|" + "---|" * len(networks))
    print("| " + " | ".join(f"{np.median(t):.2f} ({np.quantile(t, 0.1):.2f})" for t in times.values()) + " |")


def flat(outputs: Outputs) -> Outputs:
    """Return outputs of one number as (B,), where a network gives (B, 1)."""
    return {name: value[:, 0] if value.ndim == 2 and value.shape[1] == 1 else value for name, value in outputs.items()}


def main() -> None:
    """Read the command line and print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="directory of packs, for `points68`; left out without it")
    parser.add_argument("--cache", type=Path, required=True, help="directory of crops and labels")
    parser.add_argument("--labels", type=Path, default=LABELS, help="directory of labels made by eye")
    parser.add_argument("--model", action="append", required=True, metavar="NAME=FILE", help="may be repeated")
    parser.add_argument(
        "--run", action="append", default=[], metavar="NAME=PROVIDER:PRECISION", help="what a --model runs on"
    )
    parser.add_argument("--looks", type=Path, help="`.npz` by `looks`, for the reliability by size and yaw")
    parser.add_argument("--most", type=int, default=10**9, help="crops of each pack, for a quick look")
    parser.add_argument("--rounds", type=int, default=50, help="of the timing")
    arguments = parser.parse_args()
    paths = command.named_files(arguments.model)
    configs = command.runtimes(arguments.run, paths)
    networks = {name: Session(path, configs[name]) for name, path in paths.items()}
    packs = read_packs(arguments.cache, arguments.labels)
    results: dict[str, dict[View, tuple[Outputs, Labels]]] = {}
    places = {name: held_out(pack)[: arguments.most] for name, pack in packs.items()}
    for name, network in networks.items():
        results[name] = {}
        for view in VIEWS:
            parts = [read(network, pack, places[key], view) for key, pack in packs.items()]
            results[name][view] = flat(join([p[0] for p in parts])), join([p[1] for p in parts])
    print_views(results)
    print_groups(results)
    print_emotions(results)
    print_reliability(results)
    print_covered(packs, networks, arguments.most)
    if "portraits" in packs:
        print_blur(packs["portraits"], networks, arguments.most)
    if arguments.data:
        print_points(arguments.data, networks)
    entry = newest(Manifest(), AnalyzerEntry)
    if arguments.looks and entry is not None:
        print(f"\n## {entry.name} as the product publishes it")
        reliability_tables(entry, Looks.load(arguments.looks))
    if arguments.rounds:
        print_time(networks, arguments.rounds)


if __name__ == "__main__":
    command.run(main)
