"""The contract: Avro schemas (`*.avsc`), their Python types (`records`), released versions and golden records.

`load(name)` is the only way to a schema; it needs nothing but the files beside this one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
NAMESPACE = "postroad"


def names() -> list[str]:
    """Names of all schemas, sorted: Attempt, Cancellation, ..."""
    return sorted(path.stem for path in FOLDER.glob("*.avsc"))


def load(name: str) -> dict[str, Any]:
    """The schema `name` as JSON gives it. Raises FileNotFoundError for a name that is not in `names()`."""
    schema: dict[str, Any] = json.loads((FOLDER / f"{name}.avsc").read_text(encoding="utf-8"))
    return schema


def released(name: str) -> list[dict[str, Any]]:
    """Every released version of the schema `name`, oldest first: `released/<n>/<name>.avsc`."""
    folders = sorted(
        (path for path in (FOLDER / "released").iterdir() if path.is_dir()), key=lambda path: int(path.name)
    )
    return [
        json.loads(file.read_text(encoding="utf-8")) for folder in folders if (file := folder / f"{name}.avsc").exists()
    ]
