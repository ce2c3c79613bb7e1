"""Keep today's schemas as the next version in `released/`, where they differ from the last: `python -m avro.release`.

What is in `released/` has been written by somebody: it stays readable for ever. A version that nobody has used yet may be
deleted and written anew.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import avro
from avro.compatibility import bare, breaks_the_release_before, breaks_with_released

RELEASED = avro.FOLDER / "released"


def changed() -> list[str]:
    """Names of the schemas that differ from their last released version in more than words."""
    return [name for name in avro.names() if [bare(avro.load(name))] != [bare(old) for old in avro.released(name)[-1:]]]


def release() -> Path | None:
    """The new folder, None when nothing has changed. Raises ValueError for an incompatible change."""
    if not changed():
        return None
    found = [f"{name}: {reason}" for name in avro.names() for reason in breaks_with_released(name)]
    found += [f"{name}: workers that run now: {r}" for name in avro.names() for r in breaks_the_release_before(name)]
    if found:
        raise ValueError("\n".join(found))
    last = max((int(path.name) for path in RELEASED.iterdir() if path.is_dir()), default=0)
    folder = RELEASED / str(last + 1)
    folder.mkdir()
    for name in avro.names():
        shutil.copy(avro.FOLDER / f"{name}.avsc", folder)
    return folder


if __name__ == "__main__":
    try:
        written = release()
    except ValueError as error:
        sys.exit(
            f"{error}\nThese changes break readers. A version that nobody has used may be deleted; docs/runbooks/rolling-upgrade.md says"
            " how a field or a symbol is added and removed."
        )
    print(f"released/{written.name}" if written else "nothing has changed")
