"""A release after this one: a copy of the repository with a field more in Message, in each packed value and each JSON value of a table."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import avro
from deploy.local import ROOT

PACKAGES = ("agents", "analytics", "avro", "deploy", "gateway", "loadtest", "postroad", "tables", "topics")
CAMPAIGN = {"name": "campaign", "type": "string", "doc": "What it belongs to.", "default": ""}
CHANGES = {
    "agents/validate.py": [("    yield VALIDATED.send(message)", '    message["campaign"] = "spring"\n    yield VALIDATED.send(message)')],
    "tables/deliveries.py": [("    delivered: bool\n", "    delivered: bool\n    tries: int = 7\n"), ('">i?"', '">i?i"')],
    "tables/due.py": [("    cleared: bool = False\n", "    cleared: bool = False\n    rank: int = 7\n"), ('">iq?"', '">iq?i"')],
    "tables/ended.py": [('FIELDS = ("message_id",', 'FIELDS = ("message_id", "campaign",')],
    "tables/values.py": [("return json.dumps(value,", 'return json.dumps({**value, "newer": [1]} if isinstance(value, dict) else value,')],
}  # fmt: skip


def newer_release(folder: Path) -> Path:
    """A checkout of it. Raises ValueError where what it changes is not there any more."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file, replacements in CHANGES.items():
        text = (folder / file).read_text("utf-8")
        for old, new in replacements:
            if text.count(old) != 1:
                raise ValueError(f"{file} has changed, and {old!r} is not in it once: change {Path(__file__).name} too")
            text = text.replace(old, new)
        (folder / file).write_text(text, "utf-8")
    for name in avro.names():
        schema = avro.load(name)
        add_campaign(schema)
        (folder / "avro" / f"{name}.avsc").write_text(json.dumps(schema), "utf-8")
    subprocess.run(
        [sys.executable, "-P", "-m", "avro.generate"], check=True, env={"PYTHONPATH": str(folder)}, cwd=folder
    )
    if "campaign" not in (folder / "avro" / "records.py").read_text("utf-8"):
        raise ValueError("the types of the newer release lack its field: avro.generate ran on another checkout")
    return folder


def add_campaign(schema: Any) -> None:
    """The field, wherever a Message stands in a schema."""
    for node in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        add_campaign(node)
    if isinstance(schema, dict) and schema.get("name") == "Message" and "fields" in schema:
        schema["fields"].append(CAMPAIGN)
