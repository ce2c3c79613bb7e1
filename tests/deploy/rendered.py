"""What the tests of chart and compose file share: real tools, and pods and services as the settings that their processes would read."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.local import ROOT, STATE
from postroad import settings

CHART = ROOT / "deploy/helm/postroad"
KUBERNETES = "1.33"
SECRET = "a-secret-of-some-length"  # stands for what a Secret holds
CLICKHOUSE = "clickhouse://postroad:p@clickhouse:9000/postroad"


def tool(name: str) -> str:
    """Path of a tool that `make test` has built, or the machine has; without it the test is skipped."""
    built = STATE / "bin" / name
    found = str(built) if built.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"no {name}: deploy/local/system.sh builds or unpacks it")
    return found


def helm(*arguments: str, values: Mapping[str, Any] | None = None, sets: str = "") -> subprocess.CompletedProcess[str]:
    """`helm ARGUMENTS` on the chart with a set of values (values-SETS.yaml) and `values` above it."""
    command = [tool("helm"), *arguments, str(CHART), "--kube-version", KUBERNETES, "--namespace", "mail"]
    if sets:
        command += ["--values", str(CHART / f"values-{sets}.yaml")]
    if values is not None:
        command += ["--values", "-"]
    return subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, timeout=60)


EVERYTHING: dict[str, Any] = {  # switched on, on top of the small installation
    "image": {"repository": "registry.example.com/postroad", "digest": "sha256:" + "0" * 64, "pullSecrets": ["registry"]},
    "settings": {
        "topic_prefix": "eu-", "retry_delays_s": [60, 300.5], "schema_registry": "https://registry.example.com", "webhook_http": True,
        "egress": {"default": [{"name": "a", "address": "192.0.2.1", "ehlo": "a.example.com"}]}, "grace_s": 44.5, "smtp_timeout_scale": 0.5,
        "dns_servers": ["192.0.2.53:53", "192.0.2.54:53"], "size_max": 50_000_000,
    },
    "secretSettings": {"api_token_secret": {"secret": "postroad", "key": "tokens"}},
    "shaping": '[site."example.net"]\nconnections = 5\n',
    "scaling": {
        "enabled": True,
        "authentication": {
            "metadata": {"sasl": "scram_sha512", "tls": "enable"},
            "secretTargetRef": [{"parameter": "username", "name": "keda-kafka", "key": "username"},
                                {"parameter": "password", "name": "keda-kafka", "key": "password"}],
        },
    },
    "stages": {"send": {"min": 2, "max": 4, "hostNetwork": True, "nodeSelector": {"a": "b"}, "podAnnotations": {"c": "d"},
                        "tolerations": [{"key": "e", "operator": "Exists"}]}},
    "gateways": {"api": {"maxReplicas": 5, "tls": "postroad-api"}, "smtp": {"enabled": True, "maxReplicas": 9, "tls": "postroad-smtp"}},
    "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}, "runbooks": "https://docs.example.com/runbooks/"},
    "dashboards": {"enabled": True},
    "nodeSelector": {"kubernetes.io/arch": "amd64"}, "tolerations": [{"key": "f", "operator": "Exists"}],
    "podLabels": {"team": "mail"}, "podAnnotations": {"g": "h"}, "priorityClassName": "mail", "storageClass": "fast",
    "networkPolicy": {
        "kafka": {"ports": [9093], "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kafka"}}}]},
        "metricsFrom": [{"podSelector": {"matchLabels": {"app": "prometheus"}}}],
        "extraEgress": [{"ports": [{"protocol": "TCP", "port": 4317}]}],
    },
}  # fmt: skip
SETS: dict[str, tuple[str, dict[str, Any]]] = {
    "small": ("small", {}), "large": ("large", {}), "everything": ("small", EVERYTHING),
    "no-network-policies": ("large", {"networkPolicy": {"enabled": False}, "serviceAccount": {"create": False, "name": "mail"}}),
}  # fmt: skip


@cache
def manifests(name: str) -> tuple[dict[str, Any], ...]:
    """What a set of values renders to."""
    sets, values = SETS[name]
    done = helm("template", "road", values=values, sets=sets)
    assert done.returncode == 0, done.stderr
    return tuple(one for one in yaml.safe_load_all(done.stdout) if one)


def pod_of(manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """The pod template of a workload, None of anything else."""
    spec = manifest.get("spec", {})
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    template: dict[str, Any] | None = spec.get("template")
    return template


def environment(container: Mapping[str, Any]) -> dict[str, str]:
    """What a container's process would find, with something in the place of secrets."""
    found: dict[str, str] = {}
    for variable in container["env"]:
        name = variable["name"]
        assert name not in found, f"{name} is set twice"
        secret = CLICKHOUSE if name == "POSTROAD_CLICKHOUSE" else SECRET
        found[name] = str(variable["value"]) if "value" in variable else secret
    return found


def read(variables: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> settings.Settings:
    """The settings of a process with these variables and no others. Raises SettingsError of an unknown or wrong one."""
    with monkeypatch.context() as patch:
        import os

        for name in [name for name in os.environ if name.startswith(settings.PREFIX)]:
            patch.delenv(name)
        patch.chdir(tmp_path)
        for name, value in variables.items():
            if re.match("^POSTROAD_", name):
                patch.setenv(name, value)
        return settings.read()
