"""What a receiver sends back after its 250: a DSN (RFC 3464) to the return path, a complaint (RFC 5965) to a feedback address.

`returns` of a Behaviour names them by the start of the local part: "dsn 5.1.1 no such user here", "arf abuse". Each goes by a connection of
its own, and is tried again while the inbound MX answers 4xx or not at all.
"""

from __future__ import annotations

import asyncio
import itertools
import smtplib
import sys

TRIES, AGAIN_S, TIMEOUT_S = 30, 0.5, 10.0
_number = itertools.count(1)


def report(what: str, host: str, mail_from: str, recipient: str, raw: bytes) -> bytes:
    """The mail of `what`. `raw`: the mail that it is about, of which a complaint returns all but addresses, a DSN the header."""
    kind, _, rest = what.partition(" ")
    header = raw.partition(b"\r\n\r\n")[0] + b"\r\n"
    number = next(_number)
    if kind == "dsn":
        status, _, text = rest.partition(" ")
        said = (
            f"Reporting-MTA: dns; {host}\r\n\r\nFinal-Recipient: rfc822; {recipient}\r\nOriginal-Recipient: rfc822; {recipient}\r\n"
            f"Action: failed\r\nStatus: {status}\r\nDiagnostic-Code: smtp; 550 {status} {text}\r\n"
        )
        parts = [("message/delivery-status", said.encode()), ("text/rfc822-headers", header)]
        to, name, human = mail_from, "delivery-status", f"Your mail to {recipient} could not be delivered: {text}"
    else:
        said = f"Feedback-Type: {rest}\r\nUser-Agent: mxfarm/1.0\r\nVersion: 1\r\nReported-Domain: {mail_from.rpartition('@')[2]}\r\n"
        kept = b"\r\n".join(line for line in raw.split(b"\r\n") if not line.lower().startswith(b"to:"))
        parts = [("message/feedback-report", said.encode()), ("message/rfc822", kept)]
        to, name, human = "feedback", "feedback-report", "A recipient calls this mail spam."
    mark = f"=_mxfarm_{number}"
    head = (
        f"From: postmaster@{host}\r\nTo: {to}\r\nSubject: {name} {number}\r\nMIME-Version: 1.0\r\nAuto-Submitted: auto-replied\r\n"
        f'Content-Type: multipart/report; report-type={name}; boundary="{mark}"\r\n\r\n--{mark}\r\n\r\n{human}\r\n'
    )
    body = b"".join(
        b"--%s\r\nContent-Type: %s\r\n\r\n%s\r\n" % (mark.encode(), of.encode(), part) for of, part in parts
    )
    return head.encode() + body + f"--{mark}--\r\n".encode()


async def send(address: str, sender: str, recipient: str, raw: bytes) -> None:
    """By SMTP to the inbound MX at `address` (host:port). One that is refused for good is told on stderr, as a host logs it."""
    problem = ""
    for _ in range(TRIES):
        code, problem = await asyncio.to_thread(_deliver, address, sender, recipient, raw)
        if code == 250:
            return
        if code >= 500:
            break
        await asyncio.sleep(AGAIN_S)
    print(f"report to {recipient} was not taken: {problem}", file=sys.stderr, flush=True)


def _deliver(address: str, sender: str, recipient: str, raw: bytes) -> tuple[int, str]:
    """Reply code, 0 for none, and what was said."""
    host, _, port = address.rpartition(":")
    try:
        with smtplib.SMTP(host, int(port), "mxfarm.test", TIMEOUT_S) as client:
            client.sendmail(sender, [recipient], raw)
    except smtplib.SMTPRecipientsRefused as error:
        code, text = next(iter(error.recipients.values()))
        return code, text.decode("utf-8", "replace")
    except smtplib.SMTPResponseException as error:
        return error.smtp_code, str(error.smtp_error)
    except (smtplib.SMTPException, OSError) as error:
        return 0, repr(error)
    return 250, ""
