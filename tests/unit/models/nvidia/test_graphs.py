"""Bound inputs and outputs, as CUDA graphs need them; here on the CPU, which binds them too and records nothing."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from visaged.models import session as sessions
from visaged.models.manifest import Manifest
from visaged.models.nvidia import graphs
from visaged.models.nvidia.driver import nvidia_driver_present
from visaged.models.session import Session, SessionConfig

NAMES = ["cells_8", "cells_32"]


@pytest.fixture(scope="module")
def network() -> Path:
    manifest = Manifest()
    return manifest.file(manifest.default_detector(on_gpu=False))


def load(network: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(network), options, providers=["CPUExecutionProvider"])


def pictures(seed: int, batch: int = 2) -> dict[str, NDArray[Any]]:
    return {"image": np.random.default_rng(seed).integers(0, 256, (batch, 64, 96, 3), np.uint8)}


def test_each_run_has_the_results_of_its_own_inputs(network: Path) -> None:
    plain = load(network)
    runs = graphs.record(load(network), plain, pictures(0), "cpu")
    results = [runs.run(NAMES, pictures(seed)) for seed in range(4)]
    for seed, result in enumerate(results):  # compared at the end: no later run writes over an earlier one's results
        for got, wanted in zip(result, plain.run(NAMES, pictures(seed)), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


def test_callers_at_once_get_their_own_results(network: Path) -> None:
    plain = load(network)
    runs = graphs.record(load(network), plain, pictures(0), "cpu")
    wanted = [plain.run(NAMES, pictures(seed)) for seed in range(4)]
    wrong: list[int] = []

    def call(seed: int) -> None:
        for _ in range(10):
            got = runs.run(NAMES, pictures(seed))
            if not all(np.allclose(a, b, 1e-4, 1e-4) for a, b in zip(got, wanted[seed], strict=True)):
                wrong.append(seed)

    threads = [threading.Thread(target=call, args=(seed,), daemon=True) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert wrong == []


def test_what_a_recording_gets_wrong_is_noticed(network: Path) -> None:
    other = Manifest().file(Manifest().default_detector(on_gpu=True))
    with pytest.raises(Exception, match=r"differs from that of a plain run|Invalid|not found|shape"):
        graphs.record(load(other), load(network), pictures(0), "cpu")


def test_inputs_with_places_of_their_own_run_without_the_recording(network: Path) -> None:
    plain = load(network)
    runs = graphs.record(load(network), plain, pictures(0), "cpu")
    binding = runs.io_binding()
    binding.bind_cpu_input("image", pictures(5)["image"])
    binding.bind_output("cells_8")
    runs.run_with_iobinding(binding)
    np.testing.assert_allclose(binding.copy_outputs_to_cpu()[0], plain.run(["cells_8"], pictures(5))[0], 1e-4, 1e-4)


@pytest.mark.skipif(nvidia_driver_present(), reason="this machine has an NVIDIA driver")
def test_where_nothing_can_be_recorded_networks_run_without_and_say_so_once(
    network: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The session takes the CPU for CUDA; memory of a GPU, which a recording needs, is not to be had."""
    monkeypatch.setattr(sessions, "_open", lambda *_: (load(network), "cuda"))
    monkeypatch.setattr(sessions, "_load", lambda *_, **__: load(network))
    session = Session(network, SessionConfig(provider="cuda", cuda_graphs=True), (1, 4))
    with caplog.at_level(logging.INFO):
        session.prepare("image", pictures(0, 1)["image"], 4)
    said = [record.getMessage() for record in caplog.records if "CUDA graphs" in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith(f"{network.stem} runs without CUDA graphs: ")
    wanted = load(network).run(NAMES, pictures(3, 4))
    for got, want in zip(session.run(NAMES, pictures(3, 4)), wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
