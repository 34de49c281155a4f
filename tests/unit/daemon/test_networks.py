"""Which networks are loaded."""

from __future__ import annotations

import pytest

from visaged.daemon.networks import Networks, load_networks
from visaged.daemon.settings import InferenceSettings, ModelSettings
from visaged.models.manifest import Manifest
from visaged.models.session import nvidia_driver_present
from visaged.pipelines.runtime.metrics import Metrics


def loaded(detector: str | None, provider: str) -> Networks:
    wanted = ModelSettings(detector=detector, analyzer=None)
    return load_networks(wanted, InferenceSettings.model_validate({"provider": provider}), 0.2, Metrics())


def test_a_cpu_gets_the_detector_made_for_it() -> None:
    networks = loaded(None, "cpu")
    entry = Manifest().detector(networks.detector.name)
    assert not entry.gpu
    assert networks.versions == (entry.version, None)
    assert networks.detector.provider == "cpu"


@pytest.mark.skipif(nvidia_driver_present(), reason="this machine has a GPU")
def test_without_a_gpu_the_choice_is_the_one_for_a_cpu() -> None:
    assert loaded(None, "auto").detector.name == loaded(None, "cpu").detector.name


def test_a_detector_that_is_named_is_used_wherever_it_runs() -> None:
    made_for_gpus = next(entry.name for entry in Manifest().entries if entry.task == "detector" and entry.gpu)
    assert loaded(made_for_gpus, "cpu").detector.name == made_for_gpus
