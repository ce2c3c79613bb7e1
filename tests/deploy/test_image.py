"""The image's files agree with each other and with the project; `make image-steps` runs them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib

import yaml

from agents.worker import STAGES
from deploy.docker import steps
from deploy.local import ROOT

DOCKER = ROOT / "deploy/docker"


def pins(file: str) -> dict[str, str]:
    return dict(
        re.findall(
            r"^([a-z0-9._-]+)==(\S+) \\$\n    --hash=sha256:[0-9a-f]{64}", (ROOT / file).read_text("utf-8"), re.M
        )
    )


def test_the_image_has_what_is_tested():
    """Its packages are those of requirements.lock, without what only tests, analysts and one machine need."""
    image, tested = pins("deploy/docker/requirements.lock"), pins("requirements.lock")
    assert len(image) > 40
    assert image.items() <= tested.items()
    assert not {"pytest", "mypy", "ruff", "chdb", "matplotlib"} & set(image)
    assert {"cyclonedx-bom", "setuptools", "pip"} <= set(pins("deploy/docker/tools.lock"))


def test_locks_name_no_place_and_hash_everything():
    for lock in ("requirements", "tools"):
        text = re.sub(r"(?m)^\s*#.*$", "", (DOCKER / f"{lock}.lock").read_text("utf-8"))
        assert not re.search(r"https?:|file:|^-", text, re.M)
        assert len(re.findall(r"(?m)^\S+==", text)) == len(pins(f"deploy/docker/{lock}.lock"))


def test_dockerfile_takes_its_steps_from_the_script():
    text = (DOCKER / "Dockerfile").read_text("utf-8")
    runs = re.findall(r"^RUN (?:--mount=\S+ )?(.*)$", text, re.M)
    assert [run.split()[-1] for run in runs] == ["tools", "packages", "program", "system"]
    assert all(run.split()[0].endswith("/deploy/docker/build.sh") for run in runs)
    script = (DOCKER / "build.sh").read_text("utf-8")
    assert re.findall(r"^  (\w+)\)$", script, re.M) == [run.split()[-1] for run in runs]


def test_dockerfile_is_of_a_user_without_rights():
    last = (DOCKER / "Dockerfile").read_text("utf-8").split("\nFROM ")[-1]
    assert re.search(r"^USER 10001:10001$", last, re.M)
    assert json.loads(steps.declared_line("ENTRYPOINT")) == ["tini", "--", "postroad"]
    assert "postroad-health" in steps.declared_line("HEALTHCHECK")
    assert steps.declared("ENV")["PATH"].startswith("/opt/postroad/bin:")
    assert not re.search(r"^(ADD|COPY \.)", last, re.M)


def test_nothing_goes_to_the_engine_but_the_program():
    files = {str(path) for path in steps.context()}
    assert "agents/worker.py" in files and "deploy/docker/build.sh" in files
    assert {f"agents/{stage}.py" for stage in STAGES} <= files
    assert not [
        file for file in files if re.match(r"(tests|loadtest|\.local|\.git|deploy/compose|deploy/helm)\b", file)
    ]


def test_health_says_no_where_nothing_answers():
    for variables in ({}, {"POSTROAD_METRICS": "127.0.0.1:1"}):
        done = subprocess.run(
            [sys.executable, DOCKER / "health.py", "readyz"], env=variables, capture_output=True, text=True
        )
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1


def test_health_says_yes_where_the_metrics_port_answers():
    from agents.exporter import serve
    from deploy.local.kafka import free_port

    address = f"127.0.0.1:{free_port()}"
    end = serve(address, [])
    try:
        done = subprocess.run(
            [sys.executable, DOCKER / "health.py"], env={"POSTROAD_METRICS": address}, capture_output=True, text=True
        )
    finally:
        end()
    assert (done.returncode, done.stderr) == (0, "")


def test_one_version():
    """Of the program, the chart, the image and compose.yaml."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    chart = yaml.safe_load((ROOT / "deploy/helm/postroad/Chart.yaml").read_text("utf-8"))
    assert chart["appVersion"] == chart["version"] == version
    assert f'image.version="{version}"' in (DOCKER / "Dockerfile").read_text("utf-8")
    assert f"postroad:{version}" in (ROOT / "deploy/compose/compose.yaml").read_text("utf-8")
