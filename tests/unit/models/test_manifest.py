"""The manifest: the one that is shipped, and what its user is told when one is wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from visaged.models.errors import ModelError
from visaged.models.manifest import Manifest

NETWORK = b"\x08\x08"  # version 8 of the format, and nothing else


def detector(**changes: Any) -> dict[str, Any]:
    return {
        "name": "finder",
        "task": "detector",
        "file": "finder.onnx",
        "sha256": hashlib.sha256(NETWORK).hexdigest(),
        "version": "1",
        "date": "2026-01-01",
        "licence": "Apache-2.0",
        "training_data": [{"name": "faces", "terms": "free"}],
        "accuracy": {"measure": "none"},
        "input": {"name": "image"},
        "decoder": "distances",
        "strides": [8, 16],
    } | changes


def analyzer(*heads: dict[str, Any], **changes: Any) -> dict[str, Any]:
    entry = detector(name="reader", task="analyzer", heads=list(heads), **changes)
    entry["input"] = {"name": "crop", "size": 112, "template": [[40, 46], [70, 46], [56, 63], [44, 80], [68, 80]]}
    del entry["decoder"], entry["strides"]
    return entry


AGE = {"name": "age", "kind": "number", "output": "age"}
GENDER = {"name": "gender", "kind": "binary", "output": "female", "labels": ["male", "female"]}

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a manifest of these entries beside a network file."""
    (tmp_path / "finder.onnx").write_bytes(NETWORK)

    def write(*entries: dict[str, Any], **more: Any) -> Path:
        path = tmp_path / "manifest.yaml"
        path.write_text(yaml.safe_dump({"models": list(entries)} | more), encoding="utf-8")
        return path

    return write


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        Manifest(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_the_shipped_networks_are_what_their_manifest_says() -> None:
    manifest = Manifest()
    assert {entry.task for entry in manifest.entries} == {"detector", "analyzer"}
    for entry in manifest.entries:
        assert manifest.file(entry).is_file()
        assert entry.training_data
        assert entry.accuracy


def test_an_entry_is_found_by_its_name_and_task(write: Write) -> None:
    manifest = Manifest(write(detector(), analyzer(AGE)))
    assert manifest.detector("finder").strides == [8, 16]
    assert manifest.analyzer("reader").heads[0].name == "age"
    assert manifest.file(manifest.detector("finder")).read_bytes() == NETWORK


def test_an_unknown_name_is_answered_with_the_known_ones(write: Write) -> None:
    manifest = Manifest(write(detector(), analyzer(AGE)))
    with pytest.raises(ModelError, match=r"no detector named 'reader'.*there: finder"):
        manifest.detector("reader")
    with pytest.raises(ModelError, match=r"no analyzer named 'x'.*there: reader"):
        manifest.analyzer("x")
    with pytest.raises(ModelError, match="there: none"):
        Manifest(write(detector())).analyzer("x")


@pytest.mark.parametrize(
    ("gpu", "on_gpu", "found"),
    [
        ((False, True), False, "first"),
        ((False, True), True, "second"),
        ((True, False), False, "second"),
        ((True, False), True, "first"),
        ((False, False), True, "first"),
        ((True, True), False, "first"),
    ],
)
def test_a_manifest_has_a_detector_for_where_it_runs(
    write: Write, gpu: tuple[bool, bool], on_gpu: bool, found: str
) -> None:
    entries = [detector(name=name, gpu=made) for name, made in zip(("first", "second"), gpu, strict=True)]
    assert Manifest(write(*entries)).default_detector(on_gpu=on_gpu).name == found


def test_a_manifest_without_a_detector_has_none_for_anywhere(write: Write) -> None:
    with pytest.raises(ModelError, match=r"no detector in .*manifest\.yaml"):
        Manifest(write(analyzer(AGE))).default_detector(on_gpu=False)


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    assert "cannot read the model manifest" in refusal(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    "text",
    [
        b"models: [",
        b"a: b: c",
        b"models: [{date: " + b"9" * 5000 + b"}]",
        b"a: 1\na: 2",
        b"[" * 3000,
        b"models:\n  - date: 2026-13-45\n",
    ],
)
def test_what_is_not_yaml_is_called_that(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "manifest.yaml"
    path.write_bytes(text)
    assert "is not YAML" in refusal(path)


def test_what_is_no_text_is_called_that(tmp_path: Path) -> None:
    path = tmp_path / "manifest.yaml"
    path.write_bytes(b"\xff\xfe\x00\x01")
    assert "is not UTF-8 text" in refusal(path)
    path.write_bytes(b"#" * 2_000_000)
    assert "is larger than 1 MiB" in refusal(path)


@pytest.mark.parametrize("text", ["", "[]", "just text", "models: 5"])
def test_yaml_of_another_kind_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "manifest.yaml"
    path.write_text(text)
    assert "is wrong" in refusal(path)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (detector(tresholt=0.5), "models.0.detector.tresholt: Extra inputs"),
        (detector(input={"name": "image", "size": 3}), "models.0.detector.input.size: Extra inputs"),
        (detector(decoder="magic"), "models.0.detector.decoder"),
        (detector(strides=[]), "models.0.detector.strides"),
        (detector(sha256="abc"), "models.0.detector.sha256"),
        (detector(threshold=0), "models.0.detector.threshold"),
        (detector(name="../../etc"), "models.0.detector.name"),
        (detector(task="guess"), "models.0: Input tag 'guess'"),
        ({key: value for key, value in detector().items() if key != "file"}, "models.0.detector.file: Field required"),
        (analyzer(), "models.0.analyzer.heads"),
        (analyzer(AGE, AGE), "two heads have one name"),
        (analyzer({"name": "g", "kind": "binary", "output": "g"}), "kind binary needs two labels"),
        (analyzer({"name": "g", "kind": "binary", "output": "g", "labels": ["a", "b", "c"]}), "needs two labels"),
        (analyzer({"name": "e", "kind": "classes", "output": "e"}), "kind classes needs its labels"),
        (analyzer({"name": "p", "kind": "points", "output": "p"}), "kind points needs its count"),
        (analyzer(AGE | {"deviation": "d"}), "needs a tolerance"),
        (analyzer(AGE | {"name": "Age 1"}), "heads.0.name"),
        (analyzer(AGE | {"memory_s": -1}), "heads.0.memory_s"),
        (analyzer(AGE | {"min_confidence": 1.5}), "heads.0.min_confidence"),
        (analyzer(AGE | {"min_confidence": -0.1}), "heads.0.min_confidence"),
        (analyzer(AGE, no_face={"small": -0.1}), "models.0.analyzer.no_face.small"),
        (analyzer(AGE, no_face={"base": float("nan")}), "no_face.base"),
        (analyzer(AGE, no_face={"small": float("inf")}), "no_face.small"),
        (analyzer(AGE, no_face={"bearded": 1}), "no_face.bearded: Extra inputs"),
        (analyzer(GENDER | {"doubt": {"blurred": -1}}), "heads.0.doubt.blurred"),
        (analyzer(GENDER | {"doubt": {"size": 1}}), "heads.0.doubt.size: Extra inputs"),
        (analyzer(AGE | {"doubt": {"small": 1}}), "a head of kind number has none"),
        (analyzer({"name": "c", "kind": "score", "output": "c", "doubt": {}}), "a head of kind score has none"),
        (
            analyzer({"name": "p", "kind": "points", "output": "p", "count": 5, "min_confidence": 0.5}),
            "kind points has no confidence",
        ),
    ],
)
def test_a_wrong_entry_is_named_by_its_key(write: Write, entry: dict[str, Any], said: str) -> None:
    assert said in refusal(write(entry))


def test_an_unknown_key_of_the_document_is_named(write: Write) -> None:
    assert "networks: Extra inputs" in refusal(write(detector(), networks=[]))


def test_two_models_of_one_name_are_refused(write: Write) -> None:
    assert "more than one model is named finder" in refusal(write(detector(), detector()))


def test_a_missing_file_is_named(write: Write) -> None:
    manifest = Manifest(write(detector(file="gone.onnx")))
    with pytest.raises(ModelError, match=r"file of model finder, .*gone\.onnx: No such file"):
        manifest.file(manifest.detector("finder"))


def test_a_folder_is_no_network(write: Write) -> None:
    manifest = Manifest(write(detector(file=".")))
    with pytest.raises(ModelError, match="file of model finder"):
        manifest.file(manifest.detector("finder"))


@pytest.mark.parametrize("content", [NETWORK[:-1], b"", NETWORK + b"!", b"N" + NETWORK[1:]])
def test_a_file_that_is_not_the_described_one_is_refused(write: Write, content: bytes) -> None:
    manifest = Manifest(write(detector()))
    (manifest.path.parent / "finder.onnx").write_bytes(content)
    found, wanted = (hashlib.sha256(data).hexdigest() for data in (content, NETWORK))
    with pytest.raises(ModelError, match=f"file of model finder, .*has sha256 {found}, but the manifest says {wanted}"):
        manifest.file(manifest.detector("finder"))
