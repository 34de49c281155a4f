"""Which GPUs run networks and decode cameras, as far as that goes without any."""

from __future__ import annotations

import logging
from collections import Counter

import pytest

from visaged.daemon.config.document import SettingsError
from visaged.daemon.errors import StartError
from visaged.daemon.networks import load_networks
from visaged.daemon.settings import InferenceSettings, ModelSettings, parse
from visaged.daemon.specs import camera_specs, decoding_device
from visaged.models.detector import Detector
from visaged.models.manifest import Manifest
from visaged.models.session import SessionConfig, nvidia_driver_present
from visaged.pipelines.runtime.metrics import Metrics


def test_gpus_that_are_named_are_without_effect_on_a_cpu(caplog: pytest.LogCaptureFixture) -> None:
    settings = InferenceSettings.model_validate({"provider": "cpu", "devices": [0, 1]})
    with caplog.at_level(logging.INFO):
        networks = load_networks(ModelSettings(analyzer=None), settings, 0.2, Metrics())
    assert "inference.devices is without effect: the networks run on cpu" in caplog.text
    assert networks.by_device() == [(networks.detector, networks.reader)]
    assert networks.engines.document() is None


@pytest.mark.skipif(nvidia_driver_present(), reason="this machine has a GPU")
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_gpus_that_are_named_need_one(provider: str) -> None:
    settings = InferenceSettings.model_validate({"provider": provider, "devices": [1]})
    with pytest.raises(StartError, match="no NVIDIA driver answers"):
        load_networks(ModelSettings(analyzer=None), settings, 0.2, Metrics())


def test_a_camera_stays_on_its_gpu_when_others_come() -> None:
    assert decoding_device("door", [0]) is None
    assert decoding_device("door", [2]) == "2"
    names = [f"camera-{number}" for number in range(64)]
    used = Counter(decoding_device(name, [0, 3]) for name in names)
    assert set(used) == {"0", "3"}
    assert max(used.values()) <= 45


@pytest.mark.parametrize(
    ("camera", "device"),
    [
        ({"hardware": "cuda"}, True),
        ({"hardware": "cuda", "hardware_device": 0}, "0"),
        ({"hardware": "vaapi", "hardware_device": "/dev/dri/renderD129"}, "/dev/dri/renderD129"),
        ({"hardware": "vaapi"}, None),
        ({}, None),
    ],
)
def test_the_device_of_a_hardware_decoder(camera: dict[str, object], device: str | bool | None) -> None:
    document = {
        "node": "n",
        "cameras": [{"name": "door", "url": "rtsp://h/x", **camera}],
        "inference": {"devices": [2, 3]},
    }
    settings = parse(document)
    manifest = Manifest()
    detector = Detector.load(manifest, manifest.default_detector(on_gpu=False).name, SessionConfig("cpu"))
    spec = camera_specs(settings, detector, {})["door"]
    assert spec.source.hardware_device == (decoding_device("door", [2, 3]) if device is True else device)


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"inference": {"devices": []}}, "inference.devices"),
        ({"inference": {"devices": [0, 0]}}, "inference.devices"),
        ({"inference": {"devices": [-1]}}, "inference.devices[0]"),
        ({"inference": {"devices": 1}}, "inference.devices"),
        ({"inference": {"cuda_graphs": "auto"}}, "inference.cuda_graphs"),
        ({"cameras": [{"name": "a", "url": "x.mp4", "hardware_device": "gpu"}]}, "cameras[0].hardware_device"),
        ({"cameras": [{"name": "a", "url": "x.mp4", "hardware_device": -1}]}, "cameras[0].hardware_device"),
        ({"cameras": [{"name": "a", "url": "x.mp4", "hardware": "cuda", "hardware_device": "/dev/x"}]}, "cameras[0]"),
    ],
)
def test_devices_that_cannot_be_are_refused(document: dict[str, object], path: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(document)
    assert [problem.path for problem in caught.value.problems] == [path]
