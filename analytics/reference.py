"""Keeps docs/analysts.md true: its tables from the migrations, its answers from the demo data that it tells the reader to load.

    python -m analytics.reference             # the tables
    python -m analytics.reference --answers   # and the answers, from demo data in a new chdb (a minute or two)

A column is described by the comment behind it in its migration; without one, by that of the column of the same name in `events`.
"""

from __future__ import annotations

import io
import re
import shlex
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from analytics import formats, queries
from analytics.clickhouse import Warehouse, connect
from analytics.demo import load
from analytics.migrate import FOLDER, migrate, migrations

DOC = Path(__file__).parents[1] / "docs" / "analysts.md"
BEGIN, END = "<!-- tables: python -m analytics.reference -->", "<!-- end of tables -->"
_CREATE = re.compile(r"CREATE TABLE IF NOT EXISTS (\w+)\n\((.*?)\n\)\nENGINE", re.S)
_COLUMN = re.compile(r"^    (\w+) +(.+)$")
_ADDED = re.compile(r"^ALTER TABLE (\w+) ADD COLUMN (\w+) (\S+)(?: AFTER (\w+))?;(?:\s+-- (.*))?$", re.M)
_QUESTION = re.compile(r"^\$ (postroad query .*?) \| head -(\d+)\n(.*?)(?=^```)", re.M | re.S)
_DEMO = re.compile(r"postroad demo-data (.*)")


class Column(NamedTuple):
    """`says`: what it is, in words."""

    name: str
    type: str
    says: str


def tables(folder: Path = FOLDER) -> dict[str, list[Column]]:
    """The columns of each table after all migrations, in order. Raises ValueError for one that nobody describes."""
    found: dict[str, list[Column]] = {}
    for migration in migrations(folder):
        for name, body in _CREATE.findall(migration.text):
            found[name] = [_column(line) for line in _lines(body)]
        for table, name, kind, after, says in _ADDED.findall(migration.text):
            names = [column.name for column in found[table]]
            found[table].insert(names.index(after) + 1 if after else len(names), Column(name, kind, says))
    known = {column.name: column.says for column in found["events"]}
    for table, columns in found.items():
        found[table] = [column._replace(says=column.says or known.get(column.name, "")) for column in columns]
        if silent := [column.name for column in found[table] if not column.says]:
            raise ValueError(f"table {table}: say behind {', '.join(silent)} in its migration what it is (-- ...)")
    return found


def _lines(body: str) -> list[str]:
    """A line for each column: those of an Enum in one."""
    lines: list[str] = []
    for line in body.strip("\n").splitlines():
        if _COLUMN.match(line) and not line.startswith("     "):
            lines.append(line)
        else:
            lines[-1] += " " + line.strip()
    return lines


def _column(line: str) -> Column:
    told, _, says = line.partition(" -- ")
    found = _COLUMN.match(told)
    if found is None:
        raise ValueError(f"no column: {line!r}")
    kind = re.sub(r"Enum8\(.*\)", "Enum8", found[2].strip().rstrip(","))
    return Column(found[1], re.sub(r" ALIAS .*", " ALIAS", kind), says.strip())


def with_tables(doc: str) -> str:
    """The document with the tables as they are now."""
    parts = []
    for name, columns in tables().items():
        rows = [f"| `{column.name}` | {column.type} | {column.says} |" for column in columns]
        parts.append("\n".join([f"### {name}", "", "| column | type | what it is |", "|---|---|---|", *rows]))
    before, _, rest = doc.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n" + "\n\n".join(parts) + f"\n\n{END}{after}"


def demo_arguments(doc: str) -> dict[str, Any]:
    """What `analytics.demo.load` is to be given for the data that the document's answers are from."""
    found = _DEMO.search(doc)
    if found is None:
        raise ValueError(f"{DOC.name} does not say how the demo data is made")
    given = _options(found[1])
    return {**{name: int(given[name]) for name in ("days", "messages", "seed")}, "end": queries.moment(given["end"])}


def with_answers(doc: str, warehouse: Warehouse) -> str:
    """The document with the answers that its queries have in `warehouse`."""

    def answered(question: re.Match[str]) -> str:
        return f"$ {question[1]} | head -{question[2]}\n{_answer(question[1], int(question[2]), warehouse)}"

    return _QUESTION.sub(answered, doc)


def _answer(command: str, lines: int, warehouse: Warehouse) -> str:
    command, _, pattern = command.partition(" | grep -E ")
    name, *rest = shlex.split(command)[2:]
    out, given = io.BytesIO(), _options(shlex.join(rest))
    if given.pop("format") != "csv":
        raise ValueError(f"{command!r}: answers are shown as CSV")
    formats.write(queries.run(warehouse, name, **given), "csv", out)
    wanted = re.compile("".join(shlex.split(pattern)))
    found = [line for line in out.getvalue().decode().splitlines() if wanted.search(line)]
    return "".join(f"{line}\n" for line in found[:lines])


def _options(text: str) -> dict[str, str]:
    words = shlex.split(text)
    return {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}


def main(arguments: list[str], say: Callable[[str], object] = print) -> None:
    """Rewrite the document."""
    doc = with_tables(DOC.read_text("utf-8"))
    if "--answers" in arguments:
        with tempfile.TemporaryDirectory() as folder:
            warehouse = connect(folder)
            migrate(warehouse)
            load(warehouse, **demo_arguments(doc))
            doc = with_answers(doc, warehouse)
            warehouse.close()
    DOC.write_text(doc, "utf-8")
    say(f"{DOC} is true again")


if __name__ == "__main__":
    main(sys.argv[1:])
