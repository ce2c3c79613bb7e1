"""README says what is true: its programs are the tested ones, and its commands exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def test_the_producers_in_readme_are_those_that_the_tests_run():
    for file in ("tests/contract/java/src/main/java/Producer.java", "tests/contract/python_producer.py"):
        assert (ROOT / file).read_text("utf-8").strip() in README, f"{file} has changed: put it into README again"


def test_every_make_target_in_readme_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    named = set(re.findall(r"make ([a-z][a-z-]+)", README)) | {"bench-latency", "bench-capacity", "restart-drill"}
    assert named <= targets | {"sure"}, named - targets


def test_every_named_query_in_readme_exists():
    queries = {path.stem for path in (ROOT / "analytics" / "queries").glob("*.sql")}
    table = README.split("| query | answers |")[1].split("\n\n")[0]
    assert set(re.findall(r"`([a-z_]+)`", table)) == queries


def test_every_place_in_readme_exists():
    for place in re.findall(r"^\| `([a-z]+/[a-z/]*)` \|", README, re.M):
        assert (ROOT / place).exists(), place
    for file in re.findall(r"`((?:docs|topics|tables|tests|avro|loadtest)/[\w./-]+)`", README):
        assert (ROOT / file).exists(), file
