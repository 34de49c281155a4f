"""Turns the configuration of the cameras into the specifications that the pipeline runs."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

from visaged.daemon.config.document import ConfigProblem, SettingsError
from visaged.daemon.settings import CameraSettings, Settings
from visaged.models.detector import Detector
from visaged.models.manifest import Head
from visaged.pipelines.cameras import CameraSpec
from visaged.pipelines.source.config import SourceConfig
from visaged.pipelines.tracking.tracks import ReadingPolicy, TrackingSpec


def camera_specs(settings: Settings, detector: Detector, heads: Mapping[str, Head]) -> dict[str, CameraSpec]:
    """Return the specification of each camera, by its name.

    Args:
        settings: The configuration.
        detector: The detector in use, for its threshold.
        heads: The attributes that can be read, by name.

    Raises:
        SettingsError: The password of a camera cannot be read.
    """
    specs, problems = {}, []
    for index, camera in enumerate(settings.cameras):
        try:
            specs[camera.name] = _spec(settings, camera, detector, heads)
        except ValueError as error:
            problems.append(ConfigProblem(f"cameras[{index}]", str(error)))
    if problems:
        raise SettingsError(problems)
    return specs


def face_threshold(settings: Settings, detector: Detector) -> float:
    """Return the smallest confidence, 0..1, with which a detection counts as a face."""
    configured = settings.inference.min_confidence
    return detector.face_threshold if configured is None else configured


def decoding_device(camera: str, devices: Sequence[int]) -> str | None:
    """Return the GPU that decodes a camera: by its name, so that it stays when others come and go; None for one GPU 0.

    Args:
        camera: The camera's name.
        devices: Numbers of the GPUs in use.
    """
    return None if list(devices) == [0] else str(devices[zlib.crc32(camera.encode()) % len(devices)])


def _spec(settings: Settings, camera: CameraSettings, detector: Detector, heads: Mapping[str, Head]) -> CameraSpec:
    inference = settings.inference
    enabled = settings.enabled(set(heads), camera)
    points = {name for name, head in heads.items() if head.kind == "points"}
    tracking = TrackingSpec(
        tracker=settings.tracker,
        policy=ReadingPolicy(refresh_s=inference.refresh_s, min_face_px=inference.min_face_px),
        attributes=enabled - points,
        min_confidence=face_threshold(settings, detector),
        update_s=inference.update_s,
        points=camera.landmarks_106 and bool(enabled & points),
        least=settings.least(heads, camera),
        fps=camera.fps,
    )
    given = camera.model_dump(include=set(SourceConfig.model_fields), exclude_unset=True)
    if camera.hardware == "cuda" and camera.hardware_device is None:
        given["hardware_device"] = decoding_device(camera.name, inference.devices)
    source = SourceConfig.model_validate(given)
    return CameraSpec(source, tracking, camera.login(), inference.close_up, camera.priority)
