"""Which networks are loaded."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from visaged.daemon import networks
from visaged.daemon.networks import Networks, load_networks
from visaged.daemon.settings import InferenceSettings, ModelSettings
from visaged.models.manifest import Manifest
from visaged.models.session import SessionConfig, nvidia_driver_present
from visaged.pipelines.runtime.metrics import Metrics


def loaded(detector: str | None, provider: str) -> Networks:
    wanted = ModelSettings(detector=detector, analyzer=None)
    return load_networks(wanted, InferenceSettings.model_validate({"provider": provider}), 0.2, Metrics())


def test_a_cpu_gets_the_detector_made_for_it() -> None:
    found = loaded(None, "cpu")
    entry = Manifest().detector(found.detector.name)
    assert not entry.gpu
    assert found.versions == (entry.version, None)
    assert found.detector.provider == "cpu"
    assert found.graphs is None


@pytest.mark.skipif(nvidia_driver_present(), reason="this machine has a GPU")
def test_without_a_gpu_the_choice_is_the_one_for_a_cpu() -> None:
    assert loaded(None, "auto").detector.name == loaded(None, "cpu").detector.name


def test_a_detector_that_is_named_is_used_wherever_it_runs() -> None:
    made_for_gpus = next(entry.name for entry in Manifest().entries if entry.task == "detector" and entry.gpu)
    assert loaded(made_for_gpus, "cpu").detector.name == made_for_gpus


@dataclass
class OnCuda:
    """What is asked of a network that runs on CUDA, where there is none."""

    provider: str = "cuda"
    takes_device_batches: bool = True


@pytest.mark.skipif(nvidia_driver_present(), reason="this machine has a GPU")
def test_frames_are_copied_where_the_gpu_does_not_take_them(caplog: pytest.LogCaptureFixture) -> None:
    assert networks._graphs([OnCuda()], SessionConfig()) is None  # type: ignore[list-item]
    (said,) = caplog.messages
    assert said.startswith("frames that are decoded on the GPU are copied to this machine's own memory: libcuda.so.1")


@pytest.mark.parametrize("network", [OnCuda(provider="cpu"), OnCuda(takes_device_batches=False)])
def test_frames_are_copied_for_networks_elsewhere_and_of_another_form(
    caplog: pytest.LogCaptureFixture, network: OnCuda
) -> None:
    assert networks._graphs([OnCuda(), network], SessionConfig()) is None  # type: ignore[list-item]
    assert not caplog.messages
