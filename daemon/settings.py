"""The configuration: one YAML file, checked as a whole, with every problem named by the path of its key."""

from __future__ import annotations

import re
import socket
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from visaged.daemon.api.aliyun_oss.settings import OssSettings
from visaged.daemon.api.aliyun_oss.settings import check as check_oss
from visaged.daemon.api.aws_kit.settings import KitSettings
from visaged.daemon.config.base import Name, default_state_dir, is_loopback
from visaged.daemon.config.document import ConfigProblem, SettingsError, read
from visaged.daemon.config.errors import problems_of
from visaged.daemon.config.secrets import Secret
from visaged.daemon.fetch.settings import FetchSettings
from visaged.daemon.fetch.settings import check as check_fetch
from visaged.daemon.fleet.settings import CameraFleet, FleetSettings
from visaged.daemon.http.settings import HttpSettings, check_http, http_warnings
from visaged.daemon.logs.settings import LogSettings, check_log
from visaged.models.errors import ModelError
from visaged.models.manifest import PACKAGED, Head, Manifest
from visaged.models.openvino import Precision
from visaged.models.session import Provider, expects_gpu
from visaged.pipelines.attributes import COMPUTED
from visaged.pipelines.outputs.mqtt.config import PublisherConfig
from visaged.pipelines.outputs.spool.config import SpoolConfig
from visaged.pipelines.runtime.config import NotBoolean, StrictConfig
from visaged.pipelines.source.video import SourceConfig
from visaged.pipelines.tracking.tracker import TrackerConfig

_UNQUOTED = (
    "is not a valid URL; spaces and / ? # @ in a user or password must be percent-encoded, or stand in username and "
    "password instead"
)


_Confidence = Annotated[float, Field(ge=0, le=1), NotBoolean]


class _Login(StrictConfig):
    username: str | None = None
    """User name of the login; for a camera, it may stand in the URL instead."""
    password: SecretStr | None = None
    """Password in plain text; `password_file` and `password_env` keep it out of this file."""
    password_file: Path | None = None
    """File whose first line is the password; its line ending and a byte order mark are left out, spaces are kept.
    `credential:NAME` is what systemd gives to the service by that name (`LoadCredential=`)."""
    password_env: str | None = None
    """Environment variable whose value is the password."""

    @model_validator(mode="after")
    def _one_password(self) -> _Login:
        secret = Secret.given(self, "password")
        if secret is not None and self.username is None:
            raise ValueError(f"{secret.key} is given, but no username")
        return self

    def login(self) -> tuple[str | None, str | None]:
        """Return user and password; either may be None.

        Raises:
            ValueError: The file or variable that should hold the password does not; the text names it.
        """
        secret = Secret.given(self, "password")
        return self.username, None if secret is None else secret.read()


def _host_alone(text: str) -> str:
    """Return the host of a broker, without the brackets that an IPv6 address has in URLs.

    Raises:
        ValueError: The text holds more than a host; the error names the keys to write instead, and no part of a login.
    """
    scheme, mark, rest = text.partition("://")
    login, at, site = (rest if mark else text).rpartition("@")
    site = re.split(r"[/?#]", site, maxsplit=1)[0]
    found = re.fullmatch(r"(?:\[(?P<address>[^\[\]\s]+)\]|(?P<name>[\w.-]+))(?::(?P<port>[0-9]{1,5}))?", site)
    bare = re.fullmatch(r"[0-9A-Fa-f:.]+(%[^\s\[\]/@]+)?", text)
    if bare is not None and text.partition("%")[0].count(":") > 1:
        return text
    if found is None:
        raise ValueError("is not a host; give a name or an address alone, and the port as port")
    host = found["address"] or found["name"]
    if site == text and found["port"] is None:
        return host
    what = "a URL" if mark else "a login" if at else "a host with a port" if found["port"] else "a host with a path"
    keys = [f'host: "{host}"' if ":" in host else f"host: {host}"]
    keys += [f"port: {found['port']}"] if found["port"] else []
    keys += ["tls: {}"] if scheme.lower() in ("mqtts", "ssl", "tls", "wss") else []
    keys += ["username and password_file"] if login else []
    raise ValueError(f"is {what}, and only a host belongs here; write {', '.join(keys)} under mqtt")


class CameraSettings(SourceConfig, _Login):
    """A camera."""

    name: Name
    """The camera's name in topics and metrics."""
    attributes: dict[str, bool] = Field(default={})
    """Attributes switched on or off for this camera; overrides the general `attributes`."""
    min_confidence: dict[str, _Confidence] = Field(default={})
    """Smallest confidence with which an attribute of this camera's faces is published; overrides the general
    `min_confidence`."""
    landmarks_106: bool = False
    """Whether every face is published with 106 points; they are then read in every analysed frame."""
    priority: Annotated[int, Field(ge=-3, le=3), NotBoolean] = 0
    """Who keeps more when there are more cameras than the machine can analyse: the lower are reduced first, and each
    step keeps twice as many of its frames."""
    fleet: CameraFleet = CameraFleet()
    """Which nodes of a fleet may hold the camera."""

    @field_validator("url")
    @classmethod
    def _quoted(cls, url: str) -> str:
        # A password with such characters would not be recognised as one, and error texts would show it.
        if "://" in url and re.search(r"\s", url.rpartition("@")[0]):
            raise ValueError(_UNQUOTED)
        return url


class MqttSettings(PublisherConfig, _Login):
    """The broker, and what is published there."""

    embedded: bool = False
    """Run a small broker inside the daemon, for trying things out: on `host` (loopback only) and `port`, without
    logins; only the daemon publishes below `prefix` there. For lasting use, run mosquitto or another broker."""

    @field_validator("host")
    @classmethod
    def _names_a_host(cls, host: str) -> str:
        return _host_alone(host)

    @model_validator(mode="after")
    def _embedded_is_local(self) -> MqttSettings:
        if self.embedded and not is_loopback(self.host):
            raise ValueError("the embedded broker has no logins and listens on loopback only: set host to 127.0.0.1")
        if self.embedded and (self.tls is not None or self.username is not None or self.protocol == "5"):
            raise ValueError("the embedded broker speaks MQTT 3.1.1 without TLS and logins: drop these keys")
        return self


class ModelSettings(StrictConfig):
    """Which networks are used."""

    manifest: Path = PACKAGED
    """File that lists the networks; for networks of your own, write a manifest of your own."""
    detector: str | None = None
    """Name of the detector in the manifest; null takes the one that the manifest has for a GPU where a GPU computes,
    and the one for a CPU elsewhere."""
    analyzer: str | None = "analyzer-v1"
    """Name of the analyzer; null for faces without attributes."""


class InferenceSettings(StrictConfig):
    """How networks run."""

    provider: Provider = "auto"
    """`auto` takes CUDA where a GPU can be used; OpenVINO where it is installed, the CPU has bfloat16, and a test at
    the start finds the same faces with it; and ONNX Runtime on the CPU elsewhere. With any other, visaged refuses to
    start where it cannot be used."""
    precision: Precision = "auto"
    """What OpenVINO computes in: `auto` is bfloat16 where the CPU has it, float32 elsewhere. Other providers compute in
    what the network's file says."""
    require_gpu: bool = False
    """Refuse to start without a GPU."""
    devices: list[Annotated[int, Field(ge=0, le=63), NotBoolean]] = Field(default=[0], min_length=1, max_length=64)
    """Numbers of the GPUs that run networks, as CUDA counts them; each has the networks and workers of its own, and
    takes the next batch when it is free."""
    workers: Annotated[int, Field(ge=1, le=256)] | None = None
    """Inference workers: threads that run the networks. Null: one for each core on a CPU, two on a GPU. With several
    GPUs, for each."""
    max_batch: Annotated[int, Field(ge=1, le=64)] | None = None
    """Most frames in a batch of the detector; null for 1 on a CPU (batching does not pay there), 16 on a GPU."""
    max_wait_ms: Annotated[float, Field(ge=0, le=1000)] = 10.0
    """Longest time in milliseconds that a batch waits for frames of more cameras; without effect for batches of 1."""
    gpu_memory_mb: Annotated[int, Field(ge=256, le=1_000_000)] | None = None
    """Most GPU memory in MiB for weights and work of all networks together; null for no limit. CUDA itself takes half a
    gigabyte more. Where that does not do for a batch, smaller ones are computed. With several GPUs, of each."""
    cuda_graphs: bool = False
    """Record the runs of the shapes that most cameras send. A run of few pictures then takes a quarter to a half less
    time, and the networks three times the GPU memory. Where it cannot be done, and with `gpu_memory_mb`, they run
    without."""
    gpu_frames: bool = True
    """Leave frames that a camera's `hardware: cuda` decodes on the GPU until boxes and attributes come back, where the
    networks run on CUDA. False copies every frame to host memory."""
    cache: Path | None = None
    """Folder for TensorRT's engines, which take minutes to build; null for `tensorrt` in `state_dir`."""
    long_side: Annotated[int, Field(ge=160, le=3840)] = 640
    """Long side in pixels to which frames are scaled for the detector. A larger one finds smaller faces; time grows
    with its square."""
    close_up: bool = False
    """Search every frame on a canvas of 256 px too, for faces that fill the picture; single pictures always are."""
    min_confidence: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Smallest confidence of faces without a track, and of those in single pictures unless a request asks for another;
    null for the detector's own threshold. Nothing is found below `tracker.low_confidence`."""
    refresh_s: Annotated[float, Field(ge=0, le=3600)] = 2.0
    """Age in seconds of the newest reading of a tracked face at which its attributes are read again; they are read
    earlier if its shot is clearly better."""
    min_face_px: Annotated[float, Field(ge=8, le=1000)] = 20.0
    """Least height, in pixels, of a face whose attributes are read."""
    update_s: Annotated[float, Field(ge=0.001, le=3600)] = 5.0
    """Least time in seconds between two `update` events of a track."""

    @field_validator("devices")
    @classmethod
    def _each_once(cls, devices: list[int]) -> list[int]:
        if len(set(devices)) < len(devices):
            raise ValueError("names a GPU twice")
        return devices

    @model_validator(mode="after")
    def _precision_is_openvinos(self) -> InferenceSettings:
        if self.precision != "auto" and self.provider not in ("auto", "openvino"):
            raise ValueError(
                f"precision {self.precision} is for provider openvino, and provider is {self.provider}: set precision "
                "to auto, or provider to openvino"
            )
        return self


class OverloadSettings(StrictConfig):
    """What happens when there is more to analyse than the machine can."""

    shed: bool = True
    """Reduce cameras without a face to their key frames, and then the rate of the others, until the rest is analysed in
    time. False: every camera is decoded whole, and its results are late and few."""


class LiveSettings(StrictConfig):
    """Live pictures and events over HTTP."""

    max_viewers: Annotated[int, Field(ge=0, le=1000)] = 32
    """Most answers of live pictures and of events as they come that are open at a time; an open page takes two. One
    more gets 503 and Retry-After. 0: no such answers."""


class HistorySettings(StrictConfig):
    """The events that are kept, to be asked for later."""

    keep_hours: Annotated[float, Field(ge=0, le=87_600)] = 24.0
    """Hours for which events are kept in the state folder; then they are wiped from the disk. 0 keeps none."""
    max_mb: Annotated[int, Field(ge=1, le=1_000_000)] = 256
    """Most megabytes that are kept, pictures included; beyond it the oldest go first."""
    pictures: bool = False
    """Keep a picture of each face's best look. These are pictures of people's faces."""


class PrivacySettings(StrictConfig):
    """What pictures may show."""

    blur_faces: bool = False
    """Blur the faces in every picture that leaves the daemon: live, snapshots, best looks."""


class Settings(StrictConfig):
    """The configuration of visaged."""

    node: Name = Field(default_factory=lambda: socket.gethostname().split(".")[0][:64] or "node")
    """This machine's name in topics and messages; the host's name unless set."""
    cameras: list[CameraSettings] = Field(default=[])
    """The cameras."""
    mqtt: MqttSettings = MqttSettings()
    """The broker, and what is published there."""
    http: HttpSettings = HttpSettings()
    """The HTTP server with the API."""
    kit: KitSettings = KitSettings()
    """`POST /face_detection`, for clients of the AWS AI Solution Kit."""
    oss: OssSettings = OssSettings.model_validate({})
    """The endpoint for clients of Alibaba Cloud OSS."""
    fetch: FetchSettings = FetchSettings.model_validate({})
    """Fetching pictures by URL."""
    models: ModelSettings = ModelSettings()
    """Which networks are used."""
    inference: InferenceSettings = InferenceSettings()
    """How networks run."""
    overload: OverloadSettings = OverloadSettings()
    """What happens when there is more to analyse than the machine can."""
    attributes: dict[str, bool] = Field(default={})
    """Attributes switched on or off for all cameras and the HTTP API; attributes that are not named are on."""
    min_confidence: dict[str, _Confidence] = Field(default={})
    """Smallest confidence with which an attribute is published by cameras and returned by `/v1/faces`; 0 for always.
    Attributes that are not named have the value in the network's manifest. The answers of the two cloud APIs always
    have every field: their clients expect it, and most fields come with their confidence."""
    tracker: TrackerConfig = TrackerConfig()
    """When the tracker begins, continues and ends tracks."""
    log: LogSettings = LogSettings()
    """The log."""
    state_dir: Path | None = Field(default_factory=default_state_dir)
    """Folder in which visaged keeps `cameras.yaml`, the changes of cameras that were made over HTTP, `epoch`, the
    number of its last run, and `spool.sqlite3`, the events that wait for the broker. Null: all that is lost when the
    process ends, and epoch is the clock's alone. Left out: systemd's state directory, else `$XDG_STATE_HOME/visaged`,
    else `~/.local/state/visaged`. The folder is made at the start. Every daemon needs one of its own."""
    spool: SpoolConfig = SpoolConfig()
    """How many events wait in the state folder for the broker, and for how long."""
    live: LiveSettings = LiveSettings()
    """Live pictures and events over HTTP."""
    history: HistorySettings = HistorySettings()
    """The events that are kept, to be asked for later."""
    privacy: PrivacySettings = PrivacySettings()
    """What pictures may show."""
    fleet: FleetSettings = FleetSettings()
    """The fleet of machines that `visaged fleet` runs with this configuration."""

    @field_validator("cameras")
    @classmethod
    def _names(cls, cameras: list[CameraSettings], info: ValidationInfo) -> list[CameraSettings]:
        double = sorted(name for name, n in Counter(camera.name for camera in cameras).items() if n > 1)
        if double:
            raise ValueError(f"more than one is named {', '.join(double)}; give each its own name")
        node = info.data.get("node")
        if any(camera.name == node for camera in cameras):
            raise ValueError(f"{node} is the node's name too, and both have a status topic; rename one")
        return cameras

    @model_validator(mode="after")
    def _buckets_are_guarded(self) -> Settings:
        served = self.http.fleet.enabled and self.oss.enabled
        if served and not (self.oss.keys or is_loopback(self.http.fleet.host)):
            raise ValueError(
                f"http.fleet.host {self.http.fleet.host} can be reached from other machines, where buckets are served "
                "too, and there are no oss.keys: give some, or set http.fleet.host to 127.0.0.1"
            )
        return self

    def enabled(self, known: set[str], camera: CameraSettings | None = None) -> frozenset[str]:
        """Return which of the known attributes are on, in general or for a camera."""
        switches = self.attributes | (camera.attributes if camera is not None else {})
        return frozenset(name for name in known if switches.get(name, True))

    def least(self, heads: Mapping[str, Head], camera: CameraSettings | None = None) -> dict[str, float]:
        """Return the smallest confidence with which each attribute is reported, in general or for a camera."""
        own = {name: head.min_confidence for name, head in heads.items() if head.kind != "points"}
        given = self.min_confidence | (camera.min_confidence if camera is not None else {})
        return own | {name: value for name, value in given.items() if name in own}


def load(path: Path) -> Settings:
    """Read a configuration file.

    Raises:
        SettingsError: The file cannot be read, is not YAML, or has keys or values that are not valid.
    """
    return parse(read(path))


def parse(document: dict[str, Any]) -> Settings:
    """Return settings from plain data; raises `SettingsError`."""
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        raise SettingsError(problems_of(error, Settings)) from None


def check(settings: Settings) -> list[ConfigProblem]:
    """Return what is wrong with what the settings refer to: files, secrets, models, attributes."""
    problems = []
    for path, login in [
        *((f"cameras[{index}]", camera) for index, camera in enumerate(settings.cameras)),
        ("mqtt", settings.mqtt),
    ]:
        try:
            login.login()
        except ValueError as error:
            problems.append(ConfigProblem(path, str(error)))
    for index, camera in enumerate(settings.cameras):
        missing = camera.address.missing()
        if missing is not None:
            problems.append(ConfigProblem(f"cameras[{index}].url", missing))
        untrusted = camera.tls.trouble()
        if untrusted is not None:
            problems.append(ConfigProblem(f"cameras[{index}].tls.ca_file", untrusted))
    if settings.state_dir is not None and settings.state_dir.exists() and not settings.state_dir.is_dir():
        problems.append(ConfigProblem("state_dir", f"{settings.state_dir} is not a folder; name another one"))
    if settings.mqtt.tls is not None:
        try:
            settings.mqtt.tls.context()
        except OSError as error:  # ssl.SSLError is one
            named = ", ".join(f"{k} {v}" for k, v in settings.mqtt.tls.model_dump().items() if v is not None)
            problems.append(ConfigProblem("mqtt.tls", f"cannot be used ({named}): {error.strerror or error}"))
    problems += (
        check_http(settings.http) + check_fetch(settings.fetch) + check_oss(settings.oss) + check_log(settings.log)
    )
    return problems + _check_models(settings)


def warnings(settings: Settings) -> list[ConfigProblem]:
    """Return advice about settings that `check` finds nothing wrong with."""
    return http_warnings(settings.http) + [
        ConfigProblem(
            f"cameras[{index}].url",
            "rtp:// without a description can carry an MPEG transport stream alone; for other video, put its SDP into "
            "a file and name that, as in cam.sdp",
        )
        for index, camera in enumerate(settings.cameras)
        if camera.address.scheme == "rtp"
    ]


def _check_models(settings: Settings) -> list[ConfigProblem]:
    problems = []
    heads = list(COMPUTED) if settings.models.analyzer is not None else []
    try:
        manifest = Manifest(settings.models.manifest)
    except ModelError as error:
        return [ConfigProblem("models.manifest", str(error))]
    try:
        name = settings.models.detector
        gpu = expects_gpu(settings.inference.provider)
        manifest.file(manifest.detector(name) if name is not None else manifest.default_detector(on_gpu=gpu))
    except ModelError as error:
        problems.append(ConfigProblem("models.detector", str(error)))
    if settings.models.analyzer is not None:
        try:
            entry = manifest.analyzer(settings.models.analyzer)
            manifest.file(entry)
            heads += entry.heads
        except ModelError as error:
            return [*problems, ConfigProblem("models.analyzer", str(error))]
    places = [("", settings.attributes, settings.min_confidence)]
    places += [(f"cameras[{i}].", c.attributes, c.min_confidence) for i, c in enumerate(settings.cameras)]
    for path, switches, least in places:
        problems += _unknown(f"{path}attributes", switches, {head.name for head in heads})
        points = {head.name for head in heads if head.kind == "points"}
        problems += [
            ConfigProblem(f"{path}min_confidence.{n}", "points have no confidence") for n in points & least.keys()
        ]
        problems += _unknown(f"{path}min_confidence", least.keys() - points, {head.name for head in heads} - points)
    return problems


def _unknown(path: str, names: Iterable[str], known: set[str]) -> list[ConfigProblem]:
    have = f"known are {', '.join(sorted(known))}" if known else "there is no analyzer"
    missing = sorted(set(names) - known)
    return [ConfigProblem(f"{path}.{name}", f"there is no such attribute; {have}") for name in missing]
