"""Mail addresses: RFC 5321 4.1.2 (mailbox), RFC 5890/5891 (IDNA 2008), RFC 6531 (internationalised local parts).

What the field does, not all that the grammar allows: quoted local parts are kept (and unquoted where the quotes are
needless), the limits of RFC 5321 4.5.3.1 hold (64 octets in front of the @), a domain has a dot (RFC 7085). Refused:
domain literals (`a@[192.0.2.1]`), comments, folding white space, display names, and the special-use domains that
can never have mail (`.invalid`, `.localhost`, `.local`, `.onion`). `.test` and `.example` are accepted.
"""

from dataclasses import dataclass
from functools import lru_cache

from email_validator import EmailNotValidError, validate_email

LOCAL_MAX = 64  # octets, RFC 5321 4.5.3.1.1
ADDRESS_MAX = 254  # RFC 5321 4.5.3.1.3 allows a path of 256 with its angle brackets
_GIVEN_MAX = 4 * ADDRESS_MAX  # before Unicode normalisation; longer input is not even looked at
_TEXT_MAX = 200  # the validator names every wrong character of hostile input


@dataclass(frozen=True, slots=True)
class Address:
    """A valid address. `local` keeps its case; `domain` is Unicode (U-labels), `ascii_domain` its A-labels, both lower case."""

    local: str
    domain: str
    ascii_domain: str
    needs_smtputf8: bool

    @property
    def text(self) -> str:
        """The address for an envelope or a header: local part, A-labels."""
        return f"{self.local}@{self.ascii_domain}"


class BadAddress(ValueError):
    """Not an address that mail can be sent to. `reason`: bad-address; `text`: why, for people."""

    reason = "bad-address"

    def __init__(self, text: str):
        super().__init__(text)
        self.text = text


@lru_cache(maxsize=16_384)
def normalise(address: str) -> Address:
    """The address in its one form. Raises BadAddress."""
    if len(address) > _GIVEN_MAX:
        raise BadAddress(f"the address has {len(address)} characters; at most {ADDRESS_MAX} are possible")
    try:
        found = validate_email(
            address,
            allow_quoted_local=True,
            check_deliverability=False,
            globally_deliverable=False,
            test_environment=True,
            strict=True,
        )
    except EmailNotValidError as error:
        raise BadAddress(str(error)[:_TEXT_MAX]) from None
    if len(found.local_part.encode()) > LOCAL_MAX:  # the validator does not count the quotes
        raise BadAddress(f"the part before the @ has more than {LOCAL_MAX} octets")
    ascii_domain = found.ascii_domain
    last_label = ascii_domain.rpartition(".")
    if not last_label[1]:
        raise BadAddress("the domain has no dot")
    if last_label[2].isdigit():
        raise BadAddress("the domain ends in a number: addresses at an IP address are not sent to")
    return Address(found.local_part, found.domain, ascii_domain, found.ascii_email is None)


@lru_cache(maxsize=4_096)
def ascii_domain(domain: str) -> str:
    """A domain in A-labels and lower case, without a dot at its end. Raises BadAddress."""
    return normalise("postmaster@" + domain.removesuffix(".")).ascii_domain


def domain_of(address: str) -> str:
    """Domain of an address in A-labels and lower case. Raises BadAddress."""
    return normalise(address).ascii_domain


def key(address: str) -> str:
    """What an address is compared and listed by: its one form in lower case; one that is no address as it is, in lower
    case."""
    try:
        return normalise(address).text.lower()
    except BadAddress:
        return address.lower()


def lies_in(domain: str, own: str) -> bool:
    """Whether `domain` is `own` or a subdomain of it: who holds a zone holds what is below it.

    `domain` in A-labels and lower case; `own` in any form, and nothing lies in one that is no domain.
    """
    try:
        own = ascii_domain(own)
    except BadAddress:
        return False
    return domain == own or domain.endswith("." + own)
