"""What the rules catch beside the words that they were written from, and near misses: other reasons, or none."""

import pytest

from postroad.bounces import judge


@pytest.mark.parametrize(
    ("rule", "code", "texts", "near_misses"),
    [
        ("repeated-header", 554, ["Message has multiple header fields of one name", "header Subject appears twice", "more than one From header was found",
                                  "duplicate field Date"], ["SPF check failed", "DKIM signature header is broken"]),
        ("gave-up", 0, ["Connection refused by mx.there.test. Message could not be delivered for 3 days", "mail was not delivered within 48 hours: connection refused",
                        "the mail will be removed from the queue; host blocked", "connection refused, queue lifetime exceeded"],
         ["Connection refused by mx.there.test", "Warning: still undelivered after 4 hours, will retry"]),
        ("no-reason", 550, ["Rejected for an unspecified reason", "Mail refused, no reason given", "no further details are known",
                            "Delivery information is unavailable"], ["Reason: user unknown", "The service is unavailable"]),
        ("recipient-error", 451, ["Delivery failed because of a recipient error", "recipient error, not delivered", "there was an error with the recipient"],
         ["recipient error: no such user", "server error"]),
        ("temporary-unsaid", 451, ["transient error", "A temporary problem occurred", "temporary error, sorry"],
         ["temporary DNS failure", "temporary failure, try again later"]),
        ("access-denied-to-us", 550, ["Access denied", "access denied, see our page 12", "Sorry, access denied..."],
         ["<jo@there.test>: access denied", "5.7.1 Access denied"]),
        ("filter-unsaid", 550, ["unknown user <jo@there.test>", "Requested action not taken: mailbox unavailable", "Unknown user jo@there.test, goodbye"],
         ["5.1.1 unknown user <jo@there.test>", "unknown user: jo"]),
        ("bad-sender", 550, ["Your return path is not valid", "sender verification failed", "callout to your MX failed", "unknown user in From",
                             "could not verify your address"], ["the recipient was not found by address verification"]),
        ("host-unknown", 550, ["mail.there.test does not exist", "there.test is unknown", "<there.test> has no mail host, does not exist"],
         ["there.test does not like you", "jo@there.test does not exist"]),
        ("expired", 0, ["The server keeps on; we will continue to try", "we keep trying for two days", "will continue trying for 21 hours"],
         ["please continue with RCPT"]),
        ("too-many-connections", 452, ["invalid recipient count", "maximum number of recipients reached", "max recipients limit"],
         ["invalid recipient"]),
        ("missing-ptr", 550, ["cannot resolve your EHLO", "could not resolve your host", "unable to find your IP in DNS"], ["cannot resolve the destination"]),
        ("mailbox-full", 552, ["rejected: not enough disk space", "not enough mailbox space", "not enough storage space"], ["disk full on the server"]),
    ],
)  # fmt: skip
def test_paraphrases_and_near_misses(rule: str, code: int, texts: list[str], near_misses: list[str]) -> None:
    assert {text: judge(code, "", text).rule for text in texts} == dict.fromkeys(texts, rule)
    assert [text for text in near_misses if judge(code, "", text).rule == rule] == []
