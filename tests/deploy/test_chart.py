"""The Helm chart by real `helm`: it renders to what Kubernetes' own schemas allow and the program takes, or says why not."""

from __future__ import annotations

import json
from functools import cache
from importlib import import_module
from typing import Any

import jsonschema
import pytest
import referencing
import yaml
from kubernetes_validate import utils as kubernetes
from typer.testing import CliRunner

from agents.worker import STAGES
from deploy.local import ROOT
from postroad import settings
from postroad.cli import app
from tests.deploy.rendered import CHART, KUBERNETES, SETS, environment, helm, manifests, pod_of, read
from topics.installation import Installation

ROAD = yaml.safe_load((CHART / "files/road.yaml").read_text("utf-8"))
VALUES = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))


@cache
def validator(kind: str, version: str) -> jsonschema.Draft202012Validator:
    """Of a kind by Kubernetes' schemas, which allow no other field (`--strict` of kubernetes-validate)."""
    folder = f"kubernetes-json-schema/v{KUBERNETES}.0-local-strict"
    group, _, name = version.rpartition("/")
    file = f"{kind.lower()}-{group.partition('.')[0] + '-' if group else ''}{name}.json"
    registry = referencing.Registry()
    for part in (file, "_definitions.json"):
        registry = (
            referencing.Resource.from_contents(kubernetes.schema_contents(f"{folder}/{part}", KUBERNETES)) @ registry
        )
    return jsonschema.Draft202012Validator(
        kubernetes.schema_contents(f"{folder}/{file}", KUBERNETES), registry=registry
    )


# What KEDA's and the Prometheus operator's CRDs ask for; their schemas are in no package.
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
OWN: dict[str, dict[str, Any]] = {
    "ScaledObject": {
        "required": ["scaleTargetRef", "triggers", "minReplicaCount", "maxReplicaCount"],
        "additionalProperties": False,
        "properties": {
            "scaleTargetRef": {"required": ["name", "kind", "apiVersion"], "additionalProperties": False,
                               "properties": {"name": {}, "kind": {"enum": ["StatefulSet", "Deployment"]}, "apiVersion": {"const": "apps/v1"}}},
            "minReplicaCount": {"type": "integer", "minimum": 1}, "maxReplicaCount": {"type": "integer", "minimum": 1},
            "pollingInterval": {"type": "integer"}, "cooldownPeriod": {"type": "integer"},
            "fallback": {"required": ["failureThreshold", "replicas"]},
            "advanced": {"additionalProperties": False, "properties": {"horizontalPodAutoscalerConfig": {}}},
            "triggers": {"type": "array", "minItems": 1, "items": {
                "required": ["type", "metadata"], "additionalProperties": False,
                "properties": {"type": {"const": "kafka"}, "authenticationRef": {"required": ["name"]}, "metadata": {
                    **TEXTS, "required": ["bootstrapServers", "consumerGroup", "topic", "lagThreshold"],
                    "properties": {"allowIdleConsumers": {"const": "false"}, "offsetResetPolicy": {"enum": ["earliest", "latest"]}}}}}},
        },
    },
    "TriggerAuthentication": {"required": ["secretTargetRef"], "properties": {
        "secretTargetRef": {"items": {"required": ["parameter", "name", "key"], "additionalProperties": TEXTS["additionalProperties"]}}}},
    "PodMonitor": {"required": ["selector", "podMetricsEndpoints"]},
    "PrometheusRule": {"required": ["groups"], "additionalProperties": False, "properties": {"groups": {"minItems": 1, "items": {
        "required": ["name", "rules"], "properties": {"rules": {"minItems": 1, "items": {"required": ["expr"]}}}}}}},
}  # fmt: skip


def faults(manifest: dict[str, Any]) -> list[str]:
    """What Kubernetes would refuse."""
    kind = manifest["kind"]
    if kind in OWN:
        assert manifest["apiVersion"] in ("keda.sh/v1alpha1", "monitoring.coreos.com/v1")
        found = list(jsonschema.Draft202012Validator(OWN[kind]).iter_errors(manifest["spec"]))
        if kind == "ScaledObject":  # KEDA makes an autoscaler of it, whose schema is Kubernetes' own
            behavior = manifest["spec"]["advanced"]["horizontalPodAutoscalerConfig"]
            scaler = {"scaleTargetRef": manifest["spec"]["scaleTargetRef"], "maxReplicas": 1, **behavior}
            made = {
                "apiVersion": "autoscaling/v2",
                "kind": "HorizontalPodAutoscaler",
                "metadata": {"name": "a"},
                "spec": scaler,
            }
            found += list(validator("HorizontalPodAutoscaler", "autoscaling/v2").iter_errors(made))
    else:
        found = list(validator(kind, manifest["apiVersion"]).iter_errors(manifest))
    return [f"{kind} {manifest['metadata']['name']}: {error.json_path}: {error.message[:300]}" for error in found]


def of(name: str, kind: str) -> list[dict[str, Any]]:
    return [one for one in manifests(name) if one["kind"] == kind]


@pytest.mark.parametrize("sets", ["small", "large"])
def test_lint(sets):
    done = helm("lint", "--strict", sets=sets)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", SETS)
def test_every_manifest_is_one_that_kubernetes_takes(name):
    found = manifests(name)
    assert len(found) > 40
    assert not [fault for manifest in found for fault in faults(manifest)]
    names = [(one["kind"], one["metadata"]["name"]) for one in found]
    assert len(set(names)) == len(names)
    assert all(len(one["metadata"]["name"]) <= 52 for one in found)  # of a CronJob; a StatefulSet's pods add to theirs


def test_the_check_finds_what_is_wrong():
    stage = json.loads(json.dumps(of("small", "StatefulSet")[0]))
    stage["spec"]["template"]["spec"]["containers"][0]["securitycontext"] = {}
    assert faults(stage)
    scaled = json.loads(json.dumps(of("large", "ScaledObject")[0]))
    scaled["spec"]["triggers"][0]["metadata"]["lagThreshold"] = 5
    scaled["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]["policies"][0]["pods"] = 1
    assert len(faults(scaled)) == 2


# -- the chart and the program know the same road ----------------------------------------------------------------------


def test_stages_and_their_topics_are_those_of_the_program():
    declared = {}
    for name in STAGES:
        stage = import_module(f"agents.{name}").stage
        road = getattr(stage, "road", None)
        reads = []
        for topic in stage.reads:
            read = {"topic": topic.name}
            if topic.partitions:
                read["partitions"] = topic.partitions
            if road is not None and topic is road.source:
                read["waits"] = True
            reads.append(read)
        declared[name] = {"state": bool(getattr(stage, "tables", ())), "reads": reads}
    known = {name: {"state": what["state"], "reads": what["reads"]} for name, what in ROAD["stages"].items()}
    assert known == declared, (
        f"deploy/helm/postroad/files/road.yaml: stages must be\n{yaml.safe_dump(declared, sort_keys=False)}"
    )
    assert list(VALUES["stages"]) == list(STAGES)


def test_settings_that_the_chart_names_are_settings():
    named = {
        *ROAD["ours"],
        *ROAD["only"],
        *VALUES["settings"],
        *(port["setting"] for what in ROAD["gateways"].values() for port in what["ports"]),
    }
    assert named <= set(settings.Settings.model_fields)


@pytest.mark.parametrize("name", SETS)
def test_no_stage_has_more_replicas_than_its_topics_have_partitions(name, monkeypatch, tmp_path):
    """topics/ says how many partitions a topic has in an installation with the settings of the pods."""
    workloads = {one["metadata"]["name"]: one for one in [*of(name, "StatefulSet"), *of(name, "Deployment")]}
    scaled = {one["spec"]["scaleTargetRef"]["name"]: one["spec"] for one in of(name, "ScaledObject")}
    seen = 0
    for workload_name, workload in workloads.items():
        container = pod_of(workload)["spec"]["containers"][0]
        if container["args"][0] != "worker":
            continue
        stage = import_module(f"agents.{container['args'][1]}").stage
        here = Installation(**read(environment(container), monkeypatch, tmp_path).installation())
        partitions = max(map(here.partitions_of, stage.reads))
        spec = scaled.get(workload_name)
        most = spec["maxReplicaCount"] if spec else workload["spec"]["replicas"]
        assert most <= partitions
        if spec:
            assert "replicas" not in workload["spec"], "who scales it says how many there are"
            waits = stage.road.source if getattr(stage, "road", None) else None
            asked = {(t["metadata"]["consumerGroup"], t["metadata"]["topic"]) for t in spec["triggers"]}
            assert asked == {(here.group(stage.name), here.name(topic)) for topic in stage.reads if topic is not waits}
            assert {t["metadata"]["bootstrapServers"] for t in spec["triggers"]} == {here.bootstrap}
        seen += 1
    assert seen == len(STAGES)
    assert (len(scaled) == len(STAGES) - 1) == (name != "small")  # reputation has one partition


@pytest.mark.parametrize("name", SETS)
def test_the_program_takes_every_setting(name, monkeypatch, tmp_path):
    pods = [pod for one in manifests(name) if (pod := pod_of(one))]
    assert len(pods) >= 16
    for pod in pods:
        for container in pod["spec"]["containers"]:
            found = read(environment(container), monkeypatch, tmp_path)
            assert found.partitions == {"small": 8, "everything": 8}.get(name, 64)
            assert pod["spec"].get("terminationGracePeriodSeconds", 60) >= found.grace_s + 10
    if name == "everything":
        assert found.retry_delays_s == [60, 300.5]
        assert found.dns_servers == ["192.0.2.53:53", "192.0.2.54:53"]
        assert (found.egress["default"][0].name, found.size_max, found.webhook_http) == ("a", 50_000_000, True)


def test_every_container_runs_a_command_that_there_is():
    pods = [pod for name in SETS for one in manifests(name) if (pod := pod_of(one))]
    commands = {tuple(container["args"]) for pod in pods for container in pod["spec"]["containers"]}
    assert {command[1:] for command in commands if command[0] == "worker"} == {(stage,) for stage in STAGES}
    for command in commands - {("worker", stage) for stage in STAGES[1:]}:
        done = CliRunner().invoke(app, [*command, "--help"])
        assert done.exit_code == 0, f"postroad {' '.join(command)}: {done.output}"


# -- security ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_pods_keep_to_the_restricted_standard_and_to_a_root_that_is_read_only(name):
    for one in manifests(name):
        if not (pod := pod_of(one)):
            continue
        spec, where = pod["spec"], one["metadata"]["name"]
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 10001, where
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert not spec.get("hostNetwork") or where.endswith("-send")
        assert not any("hostPath" in volume for volume in spec["volumes"])
        for container in spec["containers"]:
            own = container["securityContext"]
            assert own == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"/tmp", "/var/lib/postroad"} <= {mount["mountPath"] for mount in container["volumeMounts"]}
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]


def test_secrets_are_references_and_go_to_who_needs_them():
    """The large installation has every secret."""
    having: dict[str, set[str]] = {}
    for one in manifests("large"):
        for container in (pod_of(one) or {"spec": {"containers": []}})["spec"]["containers"]:
            for variable in container["env"]:
                if variable["name"].endswith("_SECRET") or variable["name"] == "POSTROAD_CLICKHOUSE":
                    assert set(variable["valueFrom"]["secretKeyRef"]) == {"name", "key"}
                    having.setdefault(variable["name"], set()).add(
                        one["metadata"]["labels"]["app.kubernetes.io/component"]
                    )
    assert having["POSTROAD_API_TOKEN_SECRET"] == {"api"}
    assert having["POSTROAD_CLICKHOUSE"] == {"events-sink", "api", "retain"}
    assert having["POSTROAD_ANALYTICS_ADDRESS_SECRET"] == {"events-sink", "api"}
    assert not of("large", "Secret")


@pytest.mark.parametrize("name", ["small", "large", "everything"])
def test_network_policies_cover_every_pod_and_let_only_send_out_to_mail_servers(name):
    policies = of(name, "NetworkPolicy")
    labels = [pod["metadata"]["labels"] for one in manifests(name) if (pod := pod_of(one))]

    def cover(policy, labels):
        return policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()

    for pod in labels:
        mine = [policy for policy in policies if cover(policy, pod)]
        assert {"Ingress", "Egress"} <= {kind for policy in mine for kind in policy["spec"]["policyTypes"]}
        rules = [rule for policy in mine for rule in policy["spec"].get("egress", ())]
        ports = {port["port"] for rule in rules for port in rule["ports"]}
        assert 53 in ports and ports & {9092, 9093}
        assert (25 in ports) == (pod["app.kubernetes.io/component"] == "send")
        assert (9000 in ports) == (pod["app.kubernetes.io/component"] in ("events-sink", "api", "retain"))
        for rule in rules:
            if 25 in {port["port"] for port in rule["ports"]}:
                assert {block["ipBlock"]["cidr"] for block in rule["to"]} == {"0.0.0.0/0", "::/0"}
                assert all(
                    "10.0.0.0/8" in b["ipBlock"]["except"] or "fc00::/7" in b["ipBlock"]["except"] for b in rule["to"]
                )


# -- running, ending, moving -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_every_workload_has_probes_a_budget_and_is_spread(name):
    budgets = [one["spec"] for one in of(name, "PodDisruptionBudget")]
    for one in [*of(name, "StatefulSet"), *of(name, "Deployment")]:
        pod = pod_of(one)
        container = pod["spec"]["containers"][0]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert environment(container)["POSTROAD_METRICS"].endswith(f":{ports['metrics']}")
        for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
            assert container[probe]["httpGet"] == {"path": path, "port": "metrics"}
        selector = one["spec"]["selector"]["matchLabels"]
        assert selector.items() <= pod["metadata"]["labels"].items()
        assert [b["maxUnavailable"] for b in budgets if b["selector"]["matchLabels"] == selector] == [1]
        keys = {spread["topologyKey"] for spread in pod["spec"]["topologySpreadConstraints"]}
        assert keys == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}


def test_a_stage_with_tables_has_a_name_and_a_volume_of_its_own():
    found = {pod_of(one)["spec"]["containers"][0]["args"][1]: one for one in of("small", "StatefulSet")}
    assert set(found) == {name for name, what in ROAD["stages"].items() if what["state"]}
    services = {one["metadata"]["name"] for one in of("small", "Service") if one["spec"].get("clusterIP") == "None"}
    for one in found.values():
        instance = next(v for v in pod_of(one)["spec"]["containers"][0]["env"] if v["name"] == "POSTROAD_INSTANCE_ID")
        assert instance["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
        assert one["spec"]["serviceName"] in services
        assert [claim["metadata"]["name"] for claim in one["spec"]["volumeClaimTemplates"]] == ["data"]


def test_services_lead_to_ports_that_the_doors_listen_at(monkeypatch, tmp_path):
    doors = {one["metadata"]["name"]: pod_of(one)["spec"]["containers"][0] for one in of("large", "Deployment")}
    ports = set()
    for service in of("large", "Service"):
        if service["spec"].get("clusterIP") == "None":
            continue
        container = doors[service["metadata"]["name"]]
        listens = {port["name"]: port["containerPort"] for port in container["ports"]}
        own = read(environment(container), monkeypatch, tmp_path)
        addresses = {own.api, own.submission, own.submission_tls, own.inbound}
        for port in service["spec"]["ports"]:
            assert f"0.0.0.0:{listens[port['targetPort']]}" in addresses
            ports.add(port["port"])
    assert ports == {8080, 587, 465, 25}


def test_the_text_of_shaping_is_mounted_where_it_is_looked_for(monkeypatch, tmp_path):
    text = of("everything", "ConfigMap")[0]["data"]["shaping.toml"]
    assert text == SETS["everything"][1]["shaping"]
    for one in [*of("everything", "StatefulSet"), *of("everything", "Deployment")]:
        container = pod_of(one)["spec"]["containers"][0]
        file = read(environment(container), monkeypatch, tmp_path).shaping
        assert str(file.parent) in {mount["mountPath"] for mount in container["volumeMounts"]}


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"stages": {"send": {"max": 9}}}, "stages.send.max is 9, but its topics (mail.outbound, mail.outbound-broadcast) have 8 partitions"),
        ({"stages": {"route": {"min": 9}}}, "stages.route.min is 9, but its topics (mail.cleared) have 8 partitions"),
        ({"stages": {"reputation": {"min": 2}}}, "mail.reputation) have 1 partitions"),
        ({"stages": {"send": {"min": 4, "max": 3}}}, "stages.send.max is 3, less than its min, 4"),
        ({"stages": {"send": {"min": 0}}}, "/stages/send/min"),
        ({"stages": {"sending": {"min": 1}}}, "additional properties 'sending' not allowed"),
        ({"stages": {"send": {"maximum": 3}}}, "additional properties 'maximum' not allowed"),
        ({"stages": {"send": {"volume": "ten"}}}, "/stages/send/volume"),
        ({"settings": {"kafka": ""}}, "settings.kafka is not set"),
        ({"settings": {"content_url": "file:///bodies"}}, "a folder of one pod is no store for all of them"),
        ({"secretSettings": {"clickhouse": None}}, "clickhouse is not set"),
        ({"settings": {"return_path_secret": "0123456789abcdef"}}, "settings.return_path_secret holds a secret"),
        ({"secretSettings": {"clickhouse": None}, "settings": {"clickhouse": "clickhouse://a:b@c:9000/d"}}, "settings.clickhouse holds a secret"),
        ({"settings": {"data_dir": "/data"}}, "settings.data_dir: the chart writes this one itself"),
        ({"secretSettings": {"ehlo": {"secret": "a", "key": "b"}}}, "ehlo is in settings and in secretSettings"),
        ({"secretSettings": {"clickhouse": "clickhouse://a:b@c:9000/d"}}, "/secretSettings/clickhouse"),
        ({"image": {"digest": "latest"}}, "/image/digest"),
        ({"metrics": {"port": 80}}, "/metrics/port"),
        ({"replicas": 3}, "additional properties 'replicas' not allowed"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_and_named(values, said):
    done = helm("template", "road", values=values, sets="small")
    assert done.returncode != 0
    assert said in done.stderr


# -- what watches it ---------------------------------------------------------------------------------------------------


def test_alerts_and_dashboards_are_those_of_compose():
    """files/ has links to them; `runbooks` is the URL that stands before a page."""
    text = (ROOT / "deploy/prometheus/postroad.rules.yml").read_text("utf-8")
    (plain,), (linked,) = of("large", "PrometheusRule"), of("everything", "PrometheusRule")
    assert plain["spec"] == yaml.safe_load(text)
    assert linked["spec"] == yaml.safe_load(text.replace("docs/runbooks/", "https://docs.example.com/runbooks/"))
    files = [*(ROOT / "deploy/grafana/dashboards").glob("*.json"), *(ROOT / "analytics/grafana").glob("*.json")]
    found = [one for one in of("large", "ConfigMap") if "grafana_dashboard" in one["metadata"]["labels"]]
    texts = {name: json.loads(text) for one in found for name, text in one["data"].items()}
    assert texts == {f"postroad-{file.name}": json.loads(file.read_text("utf-8")) for file in files}
    assert not of("small", "PrometheusRule") and not of("small", "PodMonitor")


def test_what_is_scraped_is_the_job_that_alerts_know():
    (monitor,) = of("large", "PodMonitor")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": "postroad"}]
