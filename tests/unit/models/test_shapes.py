"""A session for each shape, as on a GPU; here the CPU computes, and its arena's bound plays the GPU's memory."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from visaged.models import search
from visaged.models import session as sessions
from visaged.models.detector import Detector
from visaged.models.errors import ModelError, OutOfMemory
from visaged.models.manifest import Manifest
from visaged.models.nvidia.arena import AS_REQUESTED
from visaged.models.session import GPU_BATCHES, Session, SessionConfig
from visaged.models.shapes import Runnable, SessionSet, ShapedRuns, is_out_of_memory, pad_batch

OUTPUTS = ["cells_8"]
ARENA_MB = 64


@pytest.fixture(scope="module")
def network() -> Path:
    manifest = Manifest()
    return manifest.file(manifest.default_detector(on_gpu=False))


def load(network: Path, **entries: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    for name, value in entries.items():
        options.add_session_config_entry(f"session.{name}", value)
    return onnxruntime.InferenceSession(str(network), options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def load_bounded(network: Path) -> Callable[[], onnxruntime.InferenceSession]:
    """Sessions that share an arena of ARENA_MB, by the calls that bound a GPU's; no other session is touched."""
    kind, place = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, onnxruntime.OrtMemType.DEFAULT
    onnxruntime.create_and_register_allocator_v2(
        "CPUExecutionProvider",
        onnxruntime.OrtMemoryInfo("Cpu", kind, 0, place),
        {},
        onnxruntime.OrtArenaCfg({"max_mem": ARENA_MB * 2**20, "arena_extend_strategy": AS_REQUESTED}),
    )
    return lambda: load(network, use_env_allocators="1")


def pictures(batch: int, height: int = 64, width: int = 96) -> dict[str, NDArray[Any]]:
    noise = np.random.default_rng(batch * height * width)
    return {"image": noise.integers(0, 256, (batch, height, width, 3), np.uint8)}


def runs(built: SessionSet, sizes: Sequence[int] = GPU_BATCHES, memory_mb: int | None = None) -> ShapedRuns:
    return ShapedRuns("finder", built, sizes, memory_mb)


def batch_shapes(built: SessionSet) -> list[tuple[int, ...]]:
    return [shape[0][:3] for shape in built.shapes()]


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("batch", [1, 2, 4, 5, 16, 17, 37])
def test_every_batch_has_the_results_of_one_session(network: Path, batch: int) -> None:
    alone, shaped = load(network), runs(SessionSet(lambda: load(network), 8, 10**9))
    names = ["cells_8", "cells_16", "cells_32"]
    inputs = pictures(batch)
    results = shaped.run(names, inputs)
    assert [len(result) for result in results] == [batch] * 3
    for result, expected in zip(results, alone.run(names, inputs), strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


def test_few_sizes_of_batches_are_run(network: Path) -> None:
    built = SessionSet(lambda: load(network), 99, 10**9)
    for batch in range(1, 20):
        runs(built).run(OUTPUTS, pictures(batch, 32, 32))
    assert {shape[0] for shape in batch_shapes(built)} == {1, 4, 8, 16}


def test_a_shape_is_built_once_and_found_again() -> None:
    built: list[Runnable] = []

    def build() -> Runnable:
        built.append(Echo())
        return built[-1]

    kept = SessionSet(build, 3, 10**9)
    shapes = [((1, side, side, 3),) for side in (32, 64, 96)]
    first = [kept.get(shape) for shape in shapes]
    assert [kept.get(shape) for shape in shapes] == first == built


def test_the_shape_that_was_not_used_for_longest_goes_first() -> None:
    kept = SessionSet(Echo, 2, 10**9)
    a, b, c = (((1, side),) for side in (1, 2, 3))
    for shape in (a, b, a, c):
        kept.get(shape)
    assert kept.shapes() == [a, c]


def test_large_shapes_take_the_room_of_many() -> None:
    kept = SessionSet(Echo, 10, 1000)
    small = [((1, side),) for side in range(100, 108)]
    for shape in small:
        kept.get(shape)
    kept.get(((1, 700),))
    assert kept.shapes() == [small[-2], small[-1], ((1, 700),)]
    kept.get(((1, 5000),))
    assert kept.shapes() == [((1, 5000),)], "one that is larger than all may be stays for the next run"


class Echo:
    """A session that returns what it is given; it runs when it may."""

    def __init__(self, may_run: threading.Event | None = None) -> None:
        self.runs = threading.Event()
        self._may_run = may_run

    def run(self, output_names: list[str], input_feed: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        del output_names
        self.runs.set()
        if self._may_run is not None:
            assert self._may_run.wait(20)
        return list(input_feed.values())


def test_building_a_shape_holds_up_only_those_who_want_it() -> None:
    building, may_end = threading.Event(), threading.Event()
    count = 0

    def build() -> Runnable:
        nonlocal count
        count += 1
        if count == 2:
            building.set()
            assert may_end.wait(20)
        return Echo()

    kept = SessionSet(build, 4, 10**9)
    ready, slow = ((1, 1),), ((2, 2),)
    kept.get(ready)
    got: list[Runnable] = []
    threads = [in_thread(lambda: got.append(kept.get(slow))) for _ in range(3)]
    assert building.wait(20)
    kept.get(ready)
    kept.get(((3, 3),))
    assert got == []
    may_end.set()
    for thread in threads:
        thread.join(20)
    assert len(got) == 3
    assert len(set(map(id, got))) == 1
    assert count == 3


def test_a_session_that_is_dropped_while_it_runs_ends_its_run_and_is_freed() -> None:
    may_run = threading.Event()
    built = [Echo(may_run), Echo(), Echo()]
    kept = SessionSet(iter(built).__next__, 1, 10**9)
    first, gone = built[0], weakref.ref(built[0])
    results: list[list[NDArray[np.float32]]] = []
    thread = in_thread(lambda: results.append(runs(kept).run([], pictures(1))))
    assert first.runs.wait(20)
    runs(kept).run([], pictures(4))
    assert batch_shapes(kept) == [(4, 64, 96)]
    may_run.set()
    thread.join(20)
    assert [result[0].shape for result in results] == [(1, 64, 96, 3)]
    built.clear()
    del first
    gc.collect()
    assert gone() is None


def test_callers_of_many_shapes_at_once_get_their_own_results(network: Path) -> None:
    """With room for two of the three shapes, so that sessions come and go meanwhile."""
    shaped = runs(SessionSet(lambda: load(network), 2, 10**9))
    alone = load(network)
    work = [pictures(1), pictures(3), pictures(1, 96, 64)]
    expected = [alone.run(OUTPUTS, inputs)[0] for inputs in work]
    wrong: list[str] = []

    def call(index: int) -> None:
        for turn in range(9):
            which = (index + turn) % 3
            (result,) = shaped.run(OUTPUTS, work[which])
            if not np.allclose(result, expected[which], rtol=1e-4, atol=1e-4):
                wrong.append(f"caller {index}, turn {turn}")

    threads = [in_thread(lambda index=index: call(index)) for index in range(4)]  # type: ignore[misc]
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert wrong == []


def test_a_shape_that_could_not_be_built_is_tried_again() -> None:
    outcomes = iter([RuntimeError("the driver is away"), Echo()])

    def build() -> Runnable:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    kept = SessionSet(build, 4, 10**9)
    with pytest.raises(RuntimeError, match="driver is away"):
        kept.get(((1, 1),))
    assert kept.shapes() == []
    kept.get(((1, 1),))


def test_a_batch_for_which_memory_does_not_do_is_computed_in_smaller_ones(
    network: Path, load_bounded: Callable[[], onnxruntime.InferenceSession], caplog: pytest.LogCaptureFixture
) -> None:
    inputs = pictures(16, 384, 640)
    with pytest.raises(Exception, match="is smaller than requested bytes") as raised:
        load_bounded().run(OUTPUTS, inputs)
    assert is_out_of_memory(raised.value)
    built = SessionSet(load_bounded, 8, 10**9)
    shaped = runs(built, memory_mb=ARENA_MB)
    with caplog.at_level(logging.WARNING):
        (result,) = shaped.run(OUTPUTS, inputs)
        said = [record.getMessage() for record in caplog.records]
        shaped.run(OUTPUTS, inputs)
    np.testing.assert_allclose(result, load(network).run(OUTPUTS, inputs)[0], rtol=1e-4, atol=1e-4)
    assert said, "nothing was said"
    assert "a batch of 16 x 384x640x3 (inference.gpu_memory_mb is 64)" in said[0]
    assert len(caplog.records) == len(said), "it was remembered, and said once"
    assert 16 not in {shape[0] for shape in batch_shapes(built)}
    shaped.run(OUTPUTS, pictures(16))
    assert 16 in {shape[0] for shape in batch_shapes(built)}, "other shapes are not held to it"


@pytest.mark.parametrize(
    ("memory_mb", "text"),
    [
        (ARENA_MB, r"a batch of 1 x 2560x2560x3 \(inference.gpu_memory_mb is 64\); raise it"),
        (None, r"a batch of 1 x 2560x2560x3 \(inference.gpu_memory_mb is not set\); lower inference.long_side"),
    ],
)
def test_where_memory_does_not_do_for_one_the_setting_is_named(
    load_bounded: Callable[[], onnxruntime.InferenceSession], memory_mb: int | None, text: str
) -> None:
    shaped = runs(SessionSet(load_bounded, 8, 10**9), memory_mb=memory_mb)
    for batch in (1, 2):
        with pytest.raises(OutOfMemory, match=text):
            shaped.run(OUTPUTS, pictures(batch, 2560, 2560))
    shaped.run(OUTPUTS, pictures(1))


def test_at_the_start_too_the_setting_is_named(
    network: Path, load_bounded: Callable[[], onnxruntime.InferenceSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "_open", lambda *_: (load_bounded(), "cuda"))
    monkeypatch.setattr(sessions, "_load", lambda *_, **__: load_bounded())
    session = Session(network, SessionConfig(provider="cuda", gpu_memory_mb=ARENA_MB))
    with pytest.raises(OutOfMemory, match=r"gpu_memory_mb is 64\); raise it .* smaller models\.detector"):
        session.prepare("image", pictures(1, 2560, 2560)["image"], 16)
    session.prepare("image", pictures(1)["image"], 16)


def test_other_errors_stay_what_they_are(network: Path) -> None:
    shaped = runs(SessionSet(lambda: load(network), 8, 10**9))
    with pytest.raises(Exception, match="Invalid input name"):
        shaped.run(OUTPUTS, {"image": pictures(1)["image"], "more": pictures(1)["image"]})


def test_what_is_kept_by_others_is_freed_before_batches_get_smaller() -> None:
    """The first session of a shape fails as it did on an H200; with the others gone there is room."""
    text = "BFCArena::AllocateRawInternal Available memory of 32454656 is smaller than requested bytes of 78643200"

    class Full(Echo):
        def run(self, output_names: list[str], input_feed: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
            raise RuntimeError(text)

    built = [Echo(), Full(), Echo()]
    kept = SessionSet(iter(built).__next__, 8, 10**9)
    shaped = runs(kept)
    shaped.run([], pictures(1))
    (result,) = shaped.run([], pictures(16))
    assert len(result) == 16
    assert batch_shapes(kept) == [(16, 64, 96)]


@pytest.fixture
def as_on_cuda(monkeypatch: pytest.MonkeyPatch, network: Path) -> list[onnxruntime.InferenceSession]:
    """Let sessions take the CPU for CUDA; returns those that are loaded."""
    loaded: list[onnxruntime.InferenceSession] = []

    def one(*_: object, **__: object) -> onnxruntime.InferenceSession:
        loaded.append(load(network))
        return loaded[-1]

    monkeypatch.setattr(sessions, "_open", lambda *_: (one(), "cuda"))
    monkeypatch.setattr(sessions, "_load", one)
    return loaded


def test_on_cuda_each_shape_gets_a_session_and_what_is_prepared_is_there(
    network: Path, as_on_cuda: list[onnxruntime.InferenceSession]
) -> None:
    session = Session(network, SessionConfig(provider="cuda"), (1, 4))
    assert len(as_on_cuda) == 1
    session.prepare("image", np.zeros((1, 64, 96, 3), np.uint8), 3)
    assert len(as_on_cuda) == 2, "the session that was opened to see whether it runs serves the first shape"
    for batch in range(1, 9):
        (cells,) = session.run(OUTPUTS, pictures(batch))
        assert len(cells) == batch
    assert len(as_on_cuda) == 2
    session.run(OUTPUTS, pictures(1, 96, 64))
    assert len(as_on_cuda) == 3


@pytest.mark.parametrize(("long_side", "most", "prepared"), [(640, 16, 4), (640, 1, 1), (640, 5, 3), (2560, 16, 1)])
def test_what_cameras_send_is_prepared_in_the_batches_that_come(
    as_on_cuda: list[onnxruntime.InferenceSession], long_side: int, most: int, prepared: int
) -> None:
    manifest = Manifest()
    config = SessionConfig(provider="cuda")
    detector = Detector.load(manifest, manifest.default_detector(on_gpu=False).name, config)
    search.prepare(detector, long_side, most)
    assert len(as_on_cuda) == prepared
    if long_side == 640:
        detector.detect(np.zeros((most, 384, 640, 3), np.uint8))
        assert len(as_on_cuda) == prepared, "such a batch comes with nothing left to build"


def test_a_network_that_cannot_be_prepared_says_so(
    network: Path, as_on_cuda: list[onnxruntime.InferenceSession]
) -> None:
    session = Session(network, SessionConfig(provider="cuda"))
    with pytest.raises(ModelError, match=f"{network.stem} cannot be run on cuda"):
        session.prepare("picture", np.zeros((1, 64, 96, 3), np.uint8), 1)


@pytest.mark.parametrize(("size", "padded"), [(1, 4), (3, 4), (4, 4), (5, 4)])
def test_a_batch_is_filled_up_with_zeros(size: int, padded: int) -> None:
    batch = np.full((size, 3, 2), 7, np.uint8)
    filled = pad_batch(batch, padded)
    assert filled.shape == (max(size, padded), 3, 2)
    assert filled.dtype == np.uint8
    assert (filled[:size] == 7).all()
    assert not filled[size:].any()
