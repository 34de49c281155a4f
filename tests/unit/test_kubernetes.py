"""The files for Kubernetes fit its schemas, those of KubeRay, and visaged. That they work, no test looks at.

What pods and a `RayCluster` may hold is said here for the fields that are used, after Kubernetes 1.31 and KubeRay's
`ray-operator/apis/ray/v1/raycluster_types.go`. Who changes the files asks the makers' own schemas too, which are too
large for every run: Kubernetes' are asked where its package is installed (`pip install kubernetes-validate`, 110 MB),
KubeRay's where VISAGED_RAYCLUSTER_CRD names its definition
(`helm-chart/kuberay-operator/crds/ray.io_rayclusters.yaml`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from visaged.daemon.settings import parse

ROOT = Path(__file__).parents[2]
FILE = ROOT / "configs" / "kubernetes" / "fleet.yaml"
DOCUMENTS: list[dict[str, Any]] = list(yaml.safe_load_all(FILE.read_text()))
VERSION = "1.31"
CRD = os.environ.get("VISAGED_RAYCLUSTER_CRD")


def only(names: str, **fields: Any) -> dict[str, Any]:
    """A schema of an object that may have these fields alone; of some it says more."""
    return {"type": "object", "additionalProperties": False, "properties": {key: {} for key in names.split()} | fields}


_CONTAINERS = {
    "type": "array",
    "items": only("name image command args env ports resources securityContext volumeMounts"),
}
POD = only(
    "hostname hostNetwork dnsPolicy automountServiceAccountToken terminationGracePeriodSeconds affinity restartPolicy "
    "volumes securityContext",
    initContainers=_CONTAINERS,
    containers=_CONTAINERS,
)
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_TEMPLATE = only("metadata", spec=POD) | {"required": ["spec"]}
_GROUP = {"rayStartParams": _TEXTS, "template": _TEMPLATE}
_COUNT = {"type": "integer", "minimum": 0}
RAYCLUSTER: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["headGroupSpec"],
    "properties": {
        "rayVersion": {"type": "string"},
        "authOptions": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"mode": {"enum": ["disabled", "token"]}},
        },
        "headGroupSpec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["rayStartParams", "template"],
            "properties": _GROUP,
        },
        "workerGroupSpecs": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["groupName", "maxReplicas", "minReplicas", "rayStartParams", "template"],
                "properties": _GROUP
                | {
                    "groupName": {"type": "string"},
                    "replicas": _COUNT,
                    "minReplicas": _COUNT,
                    "maxReplicas": _COUNT,
                },
            },
        },
    },
}


def of_kind(kind: str) -> dict[str, Any]:
    (found,) = (one for one in DOCUMENTS if one["kind"] == kind)
    return found


def groups() -> list[dict[str, Any]]:
    spec = of_kind("RayCluster")["spec"]
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def strict(schema: Any) -> Any:
    """A schema that allows no key that it does not name."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        found.setdefault("additionalProperties", False)
    return found


@pytest.fixture
def kubernetes() -> Any:
    """Kubernetes' own schemas."""
    return pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")


@pytest.mark.parametrize("kind", ["ConfigMap", "Service", "Job"])
def test_what_is_kubernetes_own_fits_its_schema(kubernetes: Any, kind: str) -> None:
    kubernetes.validate(of_kind(kind), VERSION, strict=True)


def test_the_cluster_has_the_fields_that_kuberay_knows() -> None:
    cluster = of_kind("RayCluster")
    assert cluster["apiVersion"] == "ray.io/v1"
    jsonschema.Draft202012Validator(RAYCLUSTER).validate(cluster["spec"])


@pytest.mark.parametrize("group", groups(), ids=["head", "workers"])
def test_the_pods_of_the_cluster_fit_kubernetes_schema(kubernetes: Any, group: dict[str, Any]) -> None:
    template = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": group["template"]}
    kubernetes.validate(template, VERSION, strict=True)


@pytest.mark.skipif(CRD is None, reason="VISAGED_RAYCLUSTER_CRD does not name KubeRay's definition")
def test_the_cluster_fits_kuberays_own_schema() -> None:
    definition = yaml.safe_load(Path(str(CRD)).read_text())
    (version,) = (one for one in definition["spec"]["versions"] if one["name"] == "v1")
    schema = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    jsonschema.Draft202012Validator(strict(schema)).validate(of_kind("RayCluster")["spec"])


def test_the_pod_of_the_job_has_fields_that_are_known() -> None:
    jsonschema.validate(of_kind("Job")["spec"]["template"]["spec"], POD)


def test_a_schema_finds_what_does_not_belong() -> None:
    cluster = of_kind("RayCluster")["spec"]
    with pytest.raises(jsonschema.ValidationError, match="workerGroups"):
        jsonschema.validate(cluster | {"workerGroups": []}, RAYCLUSTER)
    pod = of_kind("Job")["spec"]["template"]["spec"]
    with pytest.raises(jsonschema.ValidationError, match="volumeMount'"):
        jsonschema.validate(pod | {"containers": [pod["containers"][0] | {"volumeMount": []}]}, POD)
    assert strict({"properties": {"a": {}}})["additionalProperties"] is False


def test_visaged_takes_the_configuration() -> None:
    document = yaml.safe_load(of_kind("ConfigMap")["data"]["fleet.yaml"])
    settings = parse(document)
    assert settings.http.fleet.enabled
    head = of_kind("RayCluster")["spec"]["headGroupSpec"]["template"]["spec"]
    assert settings.fleet.nodes[head["hostname"]].capacity == 0
    workers = of_kind("RayCluster")["spec"]["workerGroupSpecs"][0]
    assert len(settings.fleet.nodes) == workers["replicas"] + 1
    assert workers["template"]["spec"]["hostNetwork"]  # which gives nodes their machines' names


def test_what_is_named_is_there() -> None:
    config = of_kind("ConfigMap")
    document = yaml.safe_load(config["data"]["fleet.yaml"])
    wanted = {login["password_env"] for login in [document["mqtt"], *document["cameras"]]}
    for group in groups():
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        given = {one["name"] for one in container["env"]}
        assert wanted <= given
        secrets = {one["valueFrom"]["secretKeyRef"]["name"] for one in container["env"] if "valueFrom" in one}
        assert secrets == {"visaged-secrets"}
        assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in pod["volumes"]}
        (mounted,) = (one for one in pod["volumes"] if one["name"] == "config")
        assert mounted["configMap"]["name"] == config["metadata"]["name"]
    job = of_kind("Job")["spec"]["template"]["spec"]["containers"][0]
    name = of_kind("RayCluster")["metadata"]["name"]
    assert f"http://{name}-head-svc:8265" in job["command"]
    assert job["args"][-2] == "/etc/visaged/fleet.yaml"
    service = of_kind("Service")["spec"]
    assert service["selector"]["ray.io/cluster"] == name
    assert service["ports"][0]["targetPort"] == document["http"]["fleet"]["port"]
    assert "was never applied" in FILE.read_text()
