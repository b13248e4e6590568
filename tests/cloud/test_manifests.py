"""Kubernetes manifests against the schemas of Kubernetes and KEDA, and against what the program knows."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from derma_classifier.remote import declare
from derma_common.cloud.streams import CLASSIFIERS, jobs_key
from derma_common.config import load_settings
from derma_common.inference.card import read_card
from derma_common.shipped import model_dir

yaml = pytest.importorskip("yaml", reason="needs PyYAML")

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "deploy" / "kubernetes"
KEDA = ROOT.parent / "shared" / "research" / "keda"
# of KEDA's redis-streams scaler; the CRD takes any text
TRIGGER_KEYS = {"address", "stream", "consumerGroup", "lagCount", "pendingEntriesCount"}
AUTHENTICATION_PARAMETERS = {"username", "password", "tls", "ca", "cert", "key"}
MODEL = "efficientnet-b0-skin"


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((MANIFESTS / name).read_text()))


def of_kind(kind: str) -> dict[str, Any]:
    (found,) = [d for name in ("classifier.yaml", "scaling.yaml") for d in documents(name) if d["kind"] == kind]
    return found


@pytest.mark.parametrize("kind", ["Deployment", "PodDisruptionBudget", "NetworkPolicy"])
def test_kubernetes_takes_it_without_an_unknown_field(kind: str) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate")
    kubernetes_validate.validate(of_kind(kind), "1.34", strict=True)


@pytest.mark.parametrize("kind", ["ScaledObject", "TriggerAuthentication"])
def test_keda_takes_it_without_an_unknown_field(kind: str) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="needs jsonschema")
    file = KEDA / f"keda.sh_{kind.lower()}s.yaml"
    if not file.exists():
        pytest.skip("needs KEDA's CRDs in ../shared/research/keda")
    crd = yaml.safe_load(file.read_text())
    (schema,) = [v["schema"]["openAPIV3Schema"] for v in crd["spec"]["versions"] if v["name"] == "v1alpha1"]
    jsonschema.validate(of_kind(kind), closed(schema))
    with pytest.raises(jsonschema.ValidationError, match="minReplicas"):
        jsonschema.validate(of_kind(kind) | {"spec": of_kind(kind)["spec"] | {"minReplicas": 1}}, closed(schema))


def closed(schema: Any) -> Any:
    """Return a schema that refuses unknown fields, as the API server's strict validation does."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    done = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        done.setdefault("additionalProperties", False)
    return done


def test_the_scaler_watches_the_stream_and_group_of_the_shipped_model() -> None:
    scaled = of_kind("ScaledObject")["spec"]
    watched = [trigger["metadata"] for trigger in scaled["triggers"]]
    for metadata in watched:
        assert set(metadata) <= TRIGGER_KEYS
        assert all(isinstance(value, str) for value in metadata.values())
        assert metadata["stream"] == jobs_key(read_card(model_dir(MODEL)).sha256)
        assert metadata["consumerGroup"] == CLASSIFIERS
    assert [sorted(set(m) & {"lagCount", "pendingEntriesCount"}) for m in watched] == [
        ["lagCount"], ["pendingEntriesCount"],
    ]  # fmt: skip
    assert scaled["minReplicaCount"] >= 1
    assert scaled["scaleTargetRef"]["name"] == of_kind("Deployment")["metadata"]["name"]
    parameters = {row["parameter"] for row in of_kind("TriggerAuthentication")["spec"]["secretTargetRef"]}
    assert parameters == AUTHENTICATION_PARAMETERS


def test_the_pod_starts_a_worker_with_arguments_and_settings_that_exist() -> None:
    (container,) = of_kind("Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["python", "-m", "derma_classifier.remote"]
    parser = argparse.ArgumentParser()
    parser.add_argument("--metrics-port", type=int)
    declare(parser)
    arguments = parser.parse_args(container["args"])
    assert arguments.model == MODEL
    assert arguments.metrics_port == container["ports"][0]["containerPort"]
    environment = {row["name"]: row["value"] for row in container["env"]}
    settings = load_settings(None, environment)
    set_here = {name.removeprefix("DERMA_").lower() for name in environment}
    assert set_here == {
        "cloud_redis", "cloud_user", "cloud_password_file", "cloud_ca_file", "cloud_cert_file", "cloud_key_file",
        "metrics_address", "logging_format",
    }  # fmt: skip
    assert settings.cloud.redis.startswith("rediss://")
    patience_s = of_kind("Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    calm = of_kind("ScaledObject")["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    assert patience_s > 2 * arguments.idle
    assert calm["stabilizationWindowSeconds"] > arguments.idle
