"""The repository as a whole: its packages are its own, its layers hold, its lock file names no place."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from deploy.local import ROOT


@pytest.mark.parametrize("package", ["avro", "topics", "tables", "agents", "postroad", "analytics", "gateway"])
def test_packages_are_those_of_this_repository(package):
    """Their names are short; `avro` is also a package of others."""
    found = importlib.util.find_spec(package)
    assert Path(found.origin).parent == ROOT / package


def test_layers():
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_lock_names_no_place_and_hashes_everything():
    text = (ROOT / "requirements.lock").read_text()
    assert not re.search(
        r"https?:|file:|^-|--(index|find|trusted|extra-index)[^ ]*[ =]\S|/\w+/\w+", re.sub(r"(?m)^#.*$", "", text), re.M
    )
    pins = re.findall(r"^([a-z0-9._-]+)==\S+ \\$\n    --hash=sha256:[0-9a-f]{64}", text, re.M)
    assert len(pins) == len(re.findall(r"^\S+==", text, re.M)) > 50


def test_the_lock_has_what_the_project_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {
        name: extra for name, extra in project["optional-dependencies"].items() if name != "fuzz"
    }  # `make fuzz` alone
    asked = [*project["dependencies"], *(one for extra in extras.values() for one in extra)]
    names = {re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower().replace("_", "-") for requirement in asked}
    locked = set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / "requirements.lock").read_text(), re.M))
    assert names <= locked
