"""A wheel has the files that code reads beside it: schemas, SQL, the shipped shaping.toml, the model of replies."""

import tomllib
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parent.parent
READ = ("avro", "analytics", "postroad", "topics", "tables", "agents", "gateway")
OTHERWISE = (".py", ".pyc", ".md", ".typed")  # code goes by itself, prose stays


def test_every_file_beside_the_code_is_package_data() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        data = tomllib.load(file)["tool"]["setuptools"]["package-data"]
    assert set(data["*"]) >= {"*.avsc", "*.sql", "*.toml"}
    found = [path for package in READ for path in (ROOT / package).rglob("*") if path.is_file()]
    kept = [path for path in found if path.suffix not in OTHERWISE and path.parent != ROOT / "avro/golden"]
    assert len(kept) > 30
    for path in kept:
        package = ".".join(path.parent.relative_to(ROOT).parts)
        assert any(fnmatch(path.name, each) for key in ("*", package) for each in data.get(key, ())), (
            f"{path.relative_to(ROOT)} is in no wheel: name it in pyproject.toml, [tool.setuptools.package-data]"
        )
