"""Budget: how large a submission's mails become, known before any of them is built.

A record of a few KiB can ask for gigabytes: a value in the place of many placeholders, one reference named many times, one
large file for each of many recipients.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence
from itertools import islice

from avro.records import Recipient, Submission
from postroad.checks import Problem
from postroad.mime import PLACEHOLDER, has_variables

PLACEHOLDERS_MAX = 1_000  # in subject, text and html together, where they are replaced
OWN_CONTENTS_MAX = 1 << 30  # bytes of all contents of one submission whose recipients have variables


def problems(
    submission: Submission, recipients: Sequence[Recipient], attached: int, size_max: int
) -> list[Problem | None]:
    """What is too large about the mail of each recipient. `attached`: bytes of the files as they travel; `size_max`: of one
    mail. Counts parts and files, each at least as short as it will be: headers and transfer encodings come on top."""
    own = has_variables(submission)
    fixed, plain, escaped = attached + len(submission.get("raw") or b""), Counter[str](), Counter[str]()
    for name, found in (("subject", plain), ("text", plain), ("html", escaped)):
        part = str(submission.get(name) or "")
        fixed += len(part.encode())
        if own:
            for match in islice(PLACEHOLDER.finditer(part), PLACEHOLDERS_MAX + 1):
                found[match[1]] += 1
                fixed -= len(match[0].encode())
    if (number := plain.total() + escaped.total()) > PLACEHOLDERS_MAX:
        text = f"at least {number:,} placeholders; {PLACEHOLDERS_MAX:,} are allowed in subject, text and html together"
        return [Problem("content", "placeholders", text)] * len(recipients)
    if not own:
        return [_too_large(fixed, size_max)] * len(recipients)
    sizes = [
        fixed
        + sum(
            plain[name] * len(value.encode()) + escaped[name] * len(html.escape(value).encode())
            for name, value in recipient.get("variables", {}).items()
            if name in plain or name in escaped
        )
        for recipient in recipients
    ]
    if (total := sum(size for size in sizes if size <= size_max)) > OWN_CONTENTS_MAX:
        text = (
            f"variables give every recipient a content of its own, {total:,} bytes in all; {OWN_CONTENTS_MAX:,} are allowed: "
            "link to large files, leave out the variables, or name fewer recipients"
        )
        return [Problem("content", "own-contents", text)] * len(recipients)
    return [_too_large(size, size_max) for size in sizes]


def _too_large(size: int, size_max: int) -> Problem | None:
    if size <= size_max:
        return None
    return Problem("content", "size", f"the message would have more than {size:,} bytes, {size_max:,} are allowed")
