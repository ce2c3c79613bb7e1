"""One connection of the submission door: the session of gateway/session.py, with sign-in.

RFC 6409 (submission), 4954 (AUTH), 4616 (PLAIN), 8314 (TLS), 2920 (PIPELINING), 2034 (ENHANCEDSTATUSCODES), 6531 (SMTPUTF8).
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from aiosmtpd.smtp import AuthResult, LoginPassword

from avro.records import ApiKey
from gateway.session import Session

if TYPE_CHECKING:
    from gateway.submission import Submissions

SIGN_INS_MAX = 3  # that fail, of one connection
_CODED = re.compile(r"\d\d\d[ -]\d\.\d+\.\d+ ")
# RFC 3463, for what aiosmtpd says without: of 220 only the answer to STARTTLS has one
_CODES = {
    "221": "2.0.0", "235": "2.7.0", "250": "2.0.0", "251": "2.1.5", "252": "2.1.5", "421": "4.3.0", "451": "4.3.0", "452": "4.3.1", "454": "4.7.0",
    "500": "5.5.2", "501": "5.5.4", "502": "5.5.1", "503": "5.5.1", "504": "5.5.4", "530": "5.7.0", "535": "5.7.8", "538": "5.7.11",
    "550": "5.7.1", "552": "5.3.4", "553": "5.1.3", "554": "5.5.0", "555": "5.5.4",
}  # fmt: skip
_STARTTLS = "220 Ready to start TLS"
# RFC 4954 5: who it was that wrote the mail first, as relays pass on. Nobody is believed, so it may be passed over.
_AUTH_PARAMETER = re.compile(r"(?i)\sAUTH=\S+")


class SubmissionSession(Session):
    """One connection; `key` is who has signed in."""

    key: ApiKey | None = None

    def __init__(self, host: Submissions, **options: Any) -> None:
        super().__init__(host, **options)
        self._auth_required = True  # as an argument it warns where TLS is not aiosmtpd's own
        self._submissions, self._failed, self._coded = host, 0, True

    async def push(self, status: str | bytes) -> None:
        """With an enhanced code, where there is none."""
        said = status.decode() if isinstance(status, bytes) else status
        if said == _STARTTLS:
            said = f"220 2.0.0 {said[4:]}"
        elif self._coded and said[3:4] == " " and said[:3] in _CODES and not _CODED.match(said):
            said = f"{said[:3]} {_CODES[said[:3]]} {said[4:]}"
        await super().push(said)

    async def smtp_EHLO(self, hostname: str) -> None:
        """Its answer has no enhanced codes (RFC 2034 4)."""
        self._coded = False
        try:
            await super().smtp_EHLO(hostname)
        finally:
            self._coded = True

    async def smtp_HELO(self, hostname: str) -> None:
        """The same."""
        self._coded = False
        try:
            await super().smtp_HELO(hostname)
        finally:
            self._coded = True

    async def smtp_AUTH(self, arg: str | None) -> None:
        """As aiosmtpd's, which knows mechanisms in capitals only."""
        mechanism, _, rest = (arg or "").partition(" ")
        try:
            await super().smtp_AUTH(f"{mechanism.upper()} {rest}".strip())
        except ValueError:  # of its reader, which has lost its place
            await self.push("500 5.5.6 the line is too long")
            self._failed = SIGN_INS_MAX
        if self._failed >= SIGN_INS_MAX:
            self.end("421 4.7.0 too many failed sign-ins, try again later")

    async def smtp_MAIL(self, arg: str | None) -> None:
        """Without AUTH=."""
        await super().smtp_MAIL(arg and _AUTH_PARAMETER.sub("", arg))

    async def auth_PLAIN(self, server: Any, args: list[str]) -> AuthResult:
        """aiosmtpd reads what the client gives, and cannot wait."""
        return await self._waited(await super().auth_PLAIN(server, args))

    async def auth_LOGIN(self, server: Any, args: list[str]) -> AuthResult:
        """The same."""
        return await self._waited(await super().auth_LOGIN(server, args))

    def _authenticate(self, mechanism: str, given: LoginPassword) -> Any:
        return self._sign_in(given)

    async def _waited(self, found: Any) -> AuthResult:
        result: AuthResult = await found if asyncio.iscoroutine(found) else found
        self._failed += not result.success
        return result

    async def _sign_in(self, given: LoginPassword) -> AuthResult:
        self.key = await self._submissions.sign_in(given.password.decode("utf-8", "replace"), self.peer)
        if self.key is None:
            return AuthResult(success=False, handled=False)
        return AuthResult(success=True, auth_data=self.key["key_id"])
