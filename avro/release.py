"""Keep today's schemas as the next version in `released/`, where they differ from the last: `python -m avro.release`.

What is in `released/` has been written by somebody: it stays readable for ever. A version that nobody has used yet may be
deleted and written anew.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import avro
from avro.compatibility import breaks_with_released

RELEASED = avro.FOLDER / "released"


def changed() -> list[str]:
    """Names of the schemas that differ from their last released version in more than words."""
    return [
        name for name in avro.names() if [_bare(avro.load(name))] != [_bare(old) for old in avro.released(name)[-1:]]
    ]


def release() -> Path | None:
    """The new folder, None when nothing has changed. Raises ValueError for an incompatible change."""
    if not changed():
        return None
    if found := [f"{name}: {reason}" for name in avro.names() for reason in breaks_with_released(name)]:
        raise ValueError("\n".join(found))
    last = max((int(path.name) for path in RELEASED.iterdir() if path.is_dir()), default=0)
    folder = RELEASED / str(last + 1)
    folder.mkdir()
    for name in avro.names():
        shutil.copy(avro.FOLDER / f"{name}.avsc", folder)
    return folder


def _bare(schema: Any) -> Any:
    """A schema without its docs."""
    if isinstance(schema, dict):
        return {key: _bare(value) for key, value in schema.items() if not (key == "doc" and isinstance(value, str))}
    return [_bare(branch) for branch in schema] if isinstance(schema, list) else schema


if __name__ == "__main__":
    try:
        written = release()
    except ValueError as error:
        sys.exit(
            f"{error}\nThese changes break readers of what was released. A version that nobody has used may be deleted."
        )
    print(f"released/{written.name}" if written else "nothing has changed")
