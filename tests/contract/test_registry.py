"""Our codec and registry client against a real schema registry: Apicurio, by Maven (140 MB once), under Confluent's API."""

import copy
import shutil
import subprocess
import time
import urllib.error
import urllib.request

import pytest
from aiohttp.test_utils import unused_port

import avro
from avro import samples
from deploy.local import STATE, child
from topics.codec import Codec, DecodeError, SchemaRefused, UnknownSchema
from topics.registry import HttpRegistry

ARTIFACT = "io.apicurio:apicurio-registry-app:2.6.13.Final:tar.gz:all"
HOME = STATE / "apicurio-2.6.13"

pytestmark = [
    pytest.mark.registry,
    pytest.mark.skipif(not (shutil.which("mvn") and shutil.which("java")), reason="needs Maven and Java"),
]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """Address of an empty registry."""
    if not (HOME / "complete").exists():
        HOME.mkdir(parents=True, exist_ok=True)
        unpack = ["mvn", "-q", "-B", "dependency:unpack", f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={HOME}"]
        subprocess.run(unpack, cwd=HOME, check=True)
        (HOME / "complete").touch()
    port = unused_port()
    log = tmp_path_factory.mktemp("apicurio") / "out"
    jar = next(HOME.glob("*-runner.jar"))
    java = ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    http = ["-Dquarkus.http.host=127.0.0.1", f"-Dquarkus.http.port={port}"]
    process = child.spawn([*java, *http, "-jar", str(jar)], log)
    url = f"http://127.0.0.1:{port}/apis/ccompat/v7"
    try:
        wait(f"{url}/subjects", process, log)
        yield url
    finally:
        child.stop(process, 10)


def wait(url, process, log):
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (TimeoutError, urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    pytest.fail(f"the registry does not start\n{child.tail(log)}")


async def test_all_our_schemas_are_taken_and_read_back(url):
    for name in avro.names():
        ours = Codec(name, HttpRegistry(url))
        id = await ours.register(f"topic.{name}")
        value = samples.read(name, "full")
        raw = ours.encode(value)
        assert raw[:5] == b"\0" + id.to_bytes(4, "big")
        other = Codec(name, HttpRegistry(url))
        with pytest.raises(UnknownSchema):
            other.decode(raw)
        await other.learn(id)
        assert other.decode(raw) == value


async def test_the_same_schema_again_has_the_same_id(url):
    first = await HttpRegistry(url).register("a-value", avro.load("Event"))
    assert await HttpRegistry(url).register("a-value", avro.load("Event")) == first
    assert await HttpRegistry(url).register("b-value", avro.load("Event")) == first


async def test_an_incompatible_schema_is_refused_also_behind_a_compatible_one(url):
    registry, schema = HttpRegistry(url), avro.load("Suppression")
    await registry.register("c-value", schema)
    fewer = {**schema, "fields": schema["fields"][:-1]}
    await registry.register("c-value", fewer)
    required = copy.deepcopy(fewer)
    required["fields"].append({"name": "brand_new", "type": "string"})
    with pytest.raises(SchemaRefused, match="brand_new"):
        await registry.register("c-value", required)
    # compatible with the version before it, not with the one before that: it is transitive
    retyped = {**schema, "fields": [*fewer["fields"], {**schema["fields"][-1], "type": "boolean", "default": False}]}
    with pytest.raises(SchemaRefused):
        await registry.register("c-value", retyped)


async def test_an_id_that_is_not_there(url):
    with pytest.raises(DecodeError, match="no schema with id 4000"):
        await Codec("Event", HttpRegistry(url)).learn(4000)
