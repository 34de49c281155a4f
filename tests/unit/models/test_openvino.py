"""OpenVINO's sessions give what ONNX Runtime's give, refuse what they refuse, and keep no memory."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import psutil
import pytest

from tests.support import tiny_networks
from tests.unit import fakes
from visaged.models.agreement import Pair, difference, face_difference, reading_difference
from visaged.models.analyzer import Analyzer
from visaged.models.detector import Detector
from visaged.models.errors import ModelError, ProviderError
from visaged.models.manifest import Manifest
from visaged.models.openvino import OpenVinoSession, _flags_allow_bfloat16, has_bfloat16, version
from visaged.models.preprocess import canvas_for, place
from visaged.models.self_test import self_test
from visaged.models.session import Session, SessionConfig, why

CPU = SessionConfig("cpu")
FLOAT32 = SessionConfig("openvino", precision="float32")
BFLOAT16 = SessionConfig("openvino", precision="bfloat16")
MANIFEST = Manifest()
DETECTOR = MANIFEST.default_detector(on_gpu=False).name
ANALYZER = next(entry.name for entry in MANIFEST.entries if entry.task == "analyzer")
PERSON = Path(__file__).parents[3] / "daemon" / "demo" / "person.jpg"


@pytest.fixture(scope="module")
def network() -> Path:
    return MANIFEST.file(MANIFEST.detector(DETECTOR))


@pytest.fixture(scope="module")
def session(network: Path) -> OpenVinoSession:
    return OpenVinoSession(network, "float32")


def noise(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, np.uint8)


def pair(config: SessionConfig, detector: str = DETECTOR) -> Pair:
    return Pair(Detector.load(MANIFEST, detector, config, 0.3), Analyzer.load(MANIFEST, ANALYZER, config))


def person() -> Any:
    return cv2.imread(str(PERSON))


def test_the_outputs_are_those_of_onnx_runtime(network: Path, session: OpenVinoSession) -> None:
    reference = Session(network, CPU)
    assert list(session.inputs) == list(reference.inputs)
    assert session.inputs["image"] == [None, None, None, 3]
    assert session.outputs == reference.outputs
    for shape in ((1, 192, 320, 3), (3, 64, 96, 3), (1, 64, 64, 3)):
        expected = reference.run(reference.outputs, {"image": noise(*shape)})
        for value, wanted in zip(session.run(session.outputs, {"image": noise(*shape)}), expected, strict=True):
            assert value.dtype == np.float32
            np.testing.assert_allclose(value, wanted, atol=1e-3)


@pytest.mark.parametrize("config", [FLOAT32, BFLOAT16], ids=["float32", "bfloat16"])
def test_both_networks_tell_what_they_tell_on_onnx_runtime(config: SessionConfig) -> None:
    found = pair(config)
    assert (found.detector.provider, found.detector.precision) == ("openvino", config.precision)
    assert not found.detector.on_gpu
    for side in (320, 640):
        assert difference(pair(CPU), found, person(), side) == ""
    canvas = place(fakes.demo_image(fakes.TWO_FACES_S), canvas_for(1280, 720, 640))
    faces, others = (p.detector.detect(canvas[None])[0] for p in (pair(CPU), found))
    assert len(faces) >= 2
    assert face_difference(faces, others, found.detector.face_threshold) == ""


def test_what_another_network_tells_is_a_difference() -> None:
    other = next(entry.name for entry in MANIFEST.entries if entry.task == "detector" and entry.name != DETECTOR)
    said = difference(pair(CPU), pair(CPU, other), person(), 640)
    assert "the face at" in said
    faces = pair(CPU).detector.detect(noise(1, 64, 64, 3))[0]
    assert len(faces) == 0
    assert face_difference(faces, faces, 0.5) == ""
    analyzer = pair(CPU).analyzer
    assert analyzer is not None
    reading = analyzer.analyze(noise(1, analyzer.aligner.size, analyzer.aligner.size, 3))[0]
    assert reading_difference(analyzer.heads, reading, reading) == ""
    for name, apart in (("age", 9), ("emotion", 0.1), ("landmarks_106", 3), ("age", np.nan)):
        assert f"{name} differs by" in reading_difference(
            analyzer.heads, reading, reading | {name: reading[name] + apart}
        )


def test_many_callers_with_pictures_of_many_shapes(session: OpenVinoSession) -> None:
    pictures = [noise(1, 64, 64, 3), noise(1, 64, 96, 3), noise(2, 64, 64, 3)]
    alone = [session.run(["cells_8"], {"image": picture})[0] for picture in pictures]
    wrong: list[int] = []
    done: list[int] = []

    def work(first: int) -> None:
        for turn in range(70):
            index = (first + turn) % len(pictures)
            (cells,) = session.run(["cells_8"], {"image": pictures[index]})
            if not np.allclose(cells, alone[index], atol=1e-4):
                wrong.append(index)
        done.append(first)

    threads = [threading.Thread(target=work, args=(index,), daemon=True) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (wrong, sorted(done)) == ([], list(range(4)))


def test_a_batch_gives_what_its_pictures_give_alone(session: OpenVinoSession) -> None:
    pictures = noise(4, 64, 96, 3)
    together = session.run(session.outputs, {"image": pictures})
    for index in range(4):
        for value, batch in zip(session.run(session.outputs, {"image": pictures[index, None]}), together, strict=True):
            np.testing.assert_allclose(value[0], batch[index], atol=1e-4)


def test_what_was_returned_stays_and_what_was_given_is_only_read(session: OpenVinoSession) -> None:
    picture = noise(1, 64, 64, 3)
    picture.flags.writeable = False
    (cells,) = session.run(["cells_8"], {"image": picture})
    kept = cells.copy()
    session.run(["cells_8"], {"image": 255 - picture})
    assert np.array_equal(cells, kept)
    mirrored = picture[:, :, ::-1]
    (turned,) = session.run(["cells_8"], {"image": mirrored})
    assert np.array_equal(turned, session.run(["cells_8"], {"image": mirrored.copy()})[0])


def test_a_run_takes_place_in_the_thread_that_asks_for_it(session: OpenVinoSession) -> None:
    """No stream of OpenVINO's wakes up, and none spins: the caller's control group and affinity bind all of it."""
    picture = noise(1, 192, 320, 3)
    for _ in range(30):
        session.run(["cells_8"], {"image": picture})
    threads = {thread.id for thread in psutil.Process().threads()} - {threading.get_native_id()}
    before, own = _spent(threads), time.thread_time()
    for _ in range(20):
        session.run(["cells_8"], {"image": picture})
    assert time.thread_time() - own > 0
    assert _spent(threads) - before <= 0.02, "clock ticks of 10 ms"


def _spent(threads: set[int]) -> float:
    return sum(t.user_time + t.system_time for t in psutil.Process().threads() if t.id in threads)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, "the network takes image; it was given "),
        ({"other": noise(1, 64, 64, 3)}, "takes image; it was given other"),
        ({"image": noise(1, 64, 64, 3).astype(np.float32)}, "image takes uint8; it was given float32"),
        ({"image": noise(64, 64, 3)}, r"the shape \[None, None, None, 3\]; it was given \[64, 64, 3\]"),
        ({"image": noise(1, 64, 64, 4)}, r"it was given \[1, 64, 64, 4\]"),
    ],
)
def test_inputs_that_the_network_does_not_take(session: OpenVinoSession, inputs: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        session.run(["cells_8"], inputs)


def test_after_a_run_that_failed_others_succeed(session: OpenVinoSession) -> None:
    with pytest.raises(RuntimeError):
        session.run(["cells_8"], {"image": noise(1, 7, 9, 3)})  # its sides are not multiples of 32
    with pytest.raises(KeyError, match="cells_9"):
        session.run(["cells_9"], {"image": noise(1, 64, 64, 3)})
    assert session.run(["cells_8"], {"image": noise(1, 64, 64, 3)})[0].shape == (1, 8, 8, 15)


def test_a_file_of_one_size_takes_that_size_alone(tmp_path: Path, network: Path) -> None:
    model = onnx.load(str(network))
    for dimension, side in zip(model.graph.input[0].type.tensor_type.shape.dim, (1, 64, 96, 3), strict=True):
        dimension.dim_value = side
    onnx.save(model, str(tmp_path / "fixed.onnx"))
    fixed = Session(tmp_path / "fixed.onnx", FLOAT32)
    detector = Detector(fixed, MANIFEST.detector(DETECTOR))
    assert (detector.fixed_size, detector.sides) == (True, (64, 96))
    with pytest.raises(ValueError, match=r"takes the shape \[1, 64, 96, 3\]; it was given \[1, 64, 64, 3\]"):
        detector.detect(noise(1, 64, 64, 3))
    reference = Pair(Detector(Session(tmp_path / "fixed.onnx", CPU), MANIFEST.detector(DETECTOR)), None)
    assert difference(reference, Pair(detector, None), person(), 640) == ""


@pytest.mark.parametrize("style", ["scrfd", "yunet"])
def test_networks_of_others_pass_their_self_test(tmp_path: Path, style: str) -> None:
    tiny_networks.detector(tmp_path / "red.onnx", style)
    scale = {key: tiny_networks.SCALES[style][key] for key in ("colour", "mean", "scale")}
    entry = {"name": "red", "task": "detector", "file": "red.onnx", "decoder": style, "strides": [8, 16, 32]}
    entry |= {"input": {"name": "in", "layout": "NCHW", "dtype": "float32"} | scale}
    path = tiny_networks.manifest(tmp_path, entry)
    detector = Detector.load(Manifest(path), "red", FLOAT32)
    self_test(detector)
    red = np.zeros((1, 64, 96, 3), np.uint8)
    red[:, :, :, 2] = 255
    (found,), (expected,) = (d.detect(red) for d in (detector, Detector.load(Manifest(path), "red", CPU)))
    assert len(found) == len(expected) > 0
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)
    entry["input"] = {"name": "in", "layout": "NCHW", "dtype": "uint8"}
    with pytest.raises(ModelError, match=r"in takes float32; it was given uint8; compare its entry's input"):
        self_test(Detector.load(Manifest(tiny_networks.manifest(tmp_path, entry)), "red", FLOAT32))


def test_the_shipped_networks_do_as_their_entries_say() -> None:
    self_test(Detector.load(MANIFEST, DETECTOR, FLOAT32))
    self_test(Analyzer.load(MANIFEST, ANALYZER, FLOAT32))


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"this is no network" * 50, b"<net name='x' version='11'/>"])
def test_garbage_is_no_network(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "garbage.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"garbage\.onnx cannot be loaded as a network by OpenVINO"):
        Session(tmp_path / "garbage.onnx", FLOAT32)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_network_that_was_cut_short_is_refused(tmp_path: Path, network: Path, share: float) -> None:
    content = network.read_bytes()
    (tmp_path / "short.onnx").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match=r"short\.onnx cannot be loaded"):
        Session(tmp_path / "short.onnx", FLOAT32)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.onnx cannot be loaded"):
        Session(tmp_path / "gone.onnx", FLOAT32)


def test_an_operator_that_openvino_lacks_is_named(tmp_path: Path) -> None:
    tiny_networks.analyzer(tmp_path / "red.onnx")
    model = onnx.load(str(tmp_path / "red.onnx"))
    model.opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", 3))
    last = model.graph.node[-1]
    model.graph.node.append(onnx.helper.make_node("Binarizer", ["between"], list(last.output), domain="ai.onnx.ml"))
    last.output[0] = "between"
    onnx.save(model, str(tmp_path / "red.onnx"))
    assert Session(tmp_path / "red.onnx", CPU).provider == "cpu"
    with pytest.raises(ModelError, match=r"No conversion rule found for operations: ai\.onnx\.ml\.Binarizer"):
        Session(tmp_path / "red.onnx", FLOAT32)


@pytest.mark.parametrize("provider", ["cpu", "cuda", "tensorrt"])
def test_bfloat16_is_openvinos_alone(network: Path, provider: Any) -> None:
    with pytest.raises(ProviderError, match=f"bfloat16 is OpenVINO's alone, and the provider is {provider}"):
        Session(network, SessionConfig(provider, precision="bfloat16"))


def test_a_required_gpu_and_openvino_contradict(network: Path) -> None:
    with pytest.raises(ProviderError, match="a GPU is required, but the provider is openvino"):
        Session(network, SessionConfig("openvino", require_gpu=True))


@pytest.mark.parametrize(
    ("hide", "said"),
    [
        ("sys.modules['openvino'] = None", "is installed and does not load"),
        (
            "sys.modules['openvino'] = None; import importlib.metadata as m; "
            "class_ = m.PackageNotFoundError; known = m.version\n"
            "def version(name):\n"
            "    if name == 'openvino': raise class_(name)\n"
            "    return known(name)\n"
            "m.version = version",
            r"needs the package openvino: pip install 'visaged[openvino]'",
        ),
    ],
    ids=["does not load", "not installed"],
)
def test_without_the_package_the_error_says_what_to_install(network: Path, hide: str, said: str) -> None:
    code = f"""import sys
{hide}
from pathlib import Path
from visaged.models.errors import ProviderError
from visaged.models.session import Session, SessionConfig, why
assert Session(Path({str(network)!r}), SessionConfig()).provider == "cpu"
try:
    Session(Path({str(network)!r}), SessionConfig("openvino"))
except ProviderError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert said in done.stdout


def test_loading_and_running_writes_nothing_home_and_keeps_quiet(tmp_path: Path, network: Path) -> None:
    """By itself the package makes an id of the machine there, and sends it to Google Analytics when it is imported."""
    code = f"""import numpy as np, psutil
from visaged.models.session import *
s = Session(Path({str(network)!r}), SessionConfig("openvino"))
s.run(s.outputs, {{"image": np.zeros((1, 64, 64, 3), np.uint8)}})
import sys
assert sys.modules["openvino_telemetry"] is None
assert psutil.Process().net_connections() == psutil.Process().children() == []
"""
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | {"HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.rglob("*")) == []


def test_one_core_of_many_does(network: Path) -> None:
    code = f"""import os, numpy as np
os.sched_setaffinity(0, {{max(os.sched_getaffinity(0))}})
from visaged.models.session import *
s = Session(Path({str(network)!r}), SessionConfig("openvino"))
s.run(s.outputs, {{"image": np.zeros((1, 64, 64, 3), np.uint8)}})
print(len(os.sched_getaffinity(0)), len(os.listdir("/proc/self/task")))
"""
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no affinity")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split()[0] == "1"


def test_where_no_code_may_be_made_the_error_says_what_forbids_it(network: Path) -> None:
    """As under a systemd unit with MemoryDenyWriteExecute=yes."""
    code = f"""import ctypes
from pathlib import Path
from visaged.models.session import Session, SessionConfig
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):  # PR_SET_MDWE, from Linux 6.3 on
    raise SystemExit("not here")
Session(Path({str(network)!r}), SessionConfig("cpu"))
Session(Path({str(network)!r}), SessionConfig("openvino"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    if "not here" in done.stderr:
        pytest.skip("this kernel cannot forbid it")
    assert "with systemd it needs MemoryDenyWriteExecute=no" in done.stderr


def test_memory_does_not_grow_with_shapes_and_runs(network: Path) -> None:
    session = OpenVinoSession(network, "float32")
    shapes = [(1 + i // 6, 32 * (1 + i % 2), 32 * (1 + i // 2 % 3), 3) for i in range(12)]
    pictures = [noise(*shape) for shape in shapes]

    def work(runs: int) -> float:
        for index in range(runs):
            session.run(session.outputs, {"image": pictures[index % len(pictures)]})
        gc.collect()
        return psutil.Process().memory_info().rss / 2**20

    before = work(700)  # every shape was met often by then
    assert work(2000) - before < 24


def test_a_large_canvas_gives_its_memory_back(network: Path) -> None:
    session = OpenVinoSession(network, "float32")
    session.run(session.outputs, {"image": noise(1, 64, 64, 3)})
    before = psutil.Process().memory_info().rss
    canvas = np.zeros((1, 1536, 2048, 3), np.uint8)  # the runs take 130 MB
    for _ in range(2):
        session.run(session.outputs, {"image": canvas})
    del canvas
    assert psutil.Process().memory_info().rss - before < 40 * 2**20


@pytest.mark.parametrize(
    ("flags", "allowed"),
    [
        ("fpu avx512f avx512_vnni", False),
        ("fpu avx512f avx512_bf16", True),
        ("avx2 amx_tile amx_bf16", True),
        ("not_avx512_bf16_at_all", False),
    ],
)
def test_bfloat16_is_taken_from_what_the_system_says_of_the_cpu(tmp_path: Path, flags: str, allowed: bool) -> None:
    (tmp_path / "cpuinfo").write_text(f"model name\t: avx512_bf16\nflags\t\t: {flags}\nbugs\t: amx_bf16\n")
    assert _flags_allow_bfloat16(tmp_path / "cpuinfo") == allowed
    (tmp_path / "arm").write_text("Features\t: fp asimd bf16\n")
    assert not _flags_allow_bfloat16(tmp_path / "arm")
    assert _flags_allow_bfloat16(tmp_path / "none"), "a system without the file says nothing against it"


def test_the_words_for_the_choice() -> None:
    assert version() is not None
    assert why(SessionConfig("openvino"), "openvino") == "openvino was asked for"
    auto = SessionConfig("auto")
    assert "it finds the faces that ONNX Runtime finds" in why(auto, "openvino")
    assert ("no bfloat16" in why(auto, "cpu")) != has_bfloat16() or "NVIDIA" not in why(auto, "cpu")


def test_what_was_asked_for_is_in_the_words_for_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visaged.models.openvino.has_bfloat16", lambda: True)
    monkeypatch.setattr("visaged.models.session.nvidia_driver_present", lambda: False)
    assert "float32 was asked for" in why(SessionConfig(precision="float32"), "cpu")
    monkeypatch.setattr("visaged.models.openvino.has_bfloat16", lambda: False)
    assert "the log says more" in why(SessionConfig(precision="bfloat16"), "cpu")
