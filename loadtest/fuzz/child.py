"""One target under libFuzzer, which ends the process itself: `python -m loadtest.fuzz.child TARGET [libFuzzer's arguments]`."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(
    include=[
        "avro",
        "topics",
        "postroad",
        "email",
        "email_validator",
        "fastavro",
        "gateway",
        "aiosmtpd",
        "python_multipart",
    ]
):
    from loadtest.fuzz.targets import TARGETS


def main() -> None:
    program, target, *arguments = sys.argv
    atheris.Setup([program, *arguments], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
