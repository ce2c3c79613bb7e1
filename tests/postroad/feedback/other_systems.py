"""Bounces in the forms of systems that are rare or retired, addresses invented: {name: (mail, {address: (code, status)})}."""

from tests.postroad.feedback.samples import RETURNED, mail, mixed

_COPY = f"\n----- Original message -----\n\n{RETURNED}"

BOUNCES: dict[str, tuple[bytes, dict[str, tuple[int, str]]]] = {
    "qmail-ldap": (
        mail(
            "Hi. This is the qmail-send program at mx.there.test.\nI'm afraid I wasn't able to deliver your message to the following"
            " addresses.\nThis is a permanent error; I've given up. Sorry it didn't work out.\n\n<ann@there.test>:\nThis mailbox is over"
            f" quota. (#5.2.2)\n\n--- Below this line is a copy of the message.\n\n{RETURNED}"
        ),
        {"ann@there.test": (0, "5.2.2")},
    ),
    "Courier": (
        mixed(
            "This is a delivery status notification from mx.there.test,\nrunning the Courier mail server.\n\nThe original message was received"
            " on Mon, 02 Nov 2026 10:00:00 +0000\nfrom out.sender.test (out.sender.test [192.0.2.5])\n\n"
            "---------------------------------------------------------------------------\n\n"
            "                           UNDELIVERABLE MAIL\n\nYour message to the following recipients cannot be delivered:\n\n"
            "<ann@there.test>:\n    mx.there.test [192.0.2.1]:\n>>> RCPT TO:<ann@there.test>\n<<< 550 5.1.1 Unknown user\n",
            sender='"Courier mail server at mx.there.test" <@mx.there.test>',
            subject="NOTICE: mail delivery status.",
        ),
        {"ann@there.test": (550, "5.1.1")},
    ),
    "OpenSMTPD": (
        mixed(
            "    Hi!\n\n    This is the MAILER-DAEMON, please DO NOT REPLY to this email.\n\n    An error has occurred while attempting to"
            " deliver a message for\n    the following list of recipients:\n\nann@there.test: 550 5.1.1 mailbox unavailable\n\n"
            "    Below is a copy of the original message:\n",
            subject="Delivery status notification: error",
        ),
        {"ann@there.test": (550, "5.1.1")},
    ),
    "MailEnable": (
        mail(
            "MailEnable: Message could not be delivered to some recipients.\nThe following recipient(s) could not be reached:\n\n"
            "\tRecipient: [SMTP:ann@there.test]\n\tReason: Remote SMTP Server Returned: 550 5.1.1 no such mailbox\n\n\nMessage headers follow:\n\n"
            f"{RETURNED}",
            sender="Postmaster@here.test",
            subject="Message delivery failure",
        ),
        {"ann@there.test": (550, "5.1.1")},
    ),
    "hMailServer": (
        mail(
            "Your message did not reach some or all of the intended recipients.\n\n   Sent: Mon, 2 Nov 2026 10:00:00 +0000\n   Subject: The news\n\n"
            "The following recipient(s) could not be reached:\n\nann@there.test\n   Error Type: SMTP\n   Remote server (192.0.2.1) issued an error.\n"
            "   hMailServer sent: RCPT TO:<ann@there.test>\n   Remote server replied: 550 5.1.1 User unknown\n\nhMailServer\n",
            subject="Message undeliverable: The news",
        ),
        {"ann@there.test": (550, "5.1.1")},
    ),
    "MDaemon": (
        mail(
            "The following data may contain sections which represent BASE64 encoded\nfile attachments.\n\nYour message can not be delivered.\n\n"
            "Failed address: ann@there.test\n\n--- Session Transcript ---\n Mon 2026-11-02 10:00:00: --> RCPT To:<ann@there.test>\n"
            f" Mon 2026-11-02 10:00:00: <-- 550 5.1.1 unknown recipient\n--- End Transcript ---\n{_COPY}",
            sender="MDaemon@here.test",
            subject="MDaemon Notification -- Invalid recipient",
        ),
        {"ann@there.test": (550, "5.1.1")},
    ),
    "IMail": (
        mail(
            f"Unknown user: ann@there.test\n\nOriginal message follows.\n\n{RETURNED}",
            sender='"Postmaster" <postmaster@there.test>',
            subject="Undeliverable Mail",
        ),
        {"ann@there.test": (0, "")},
    ),
    "James": (
        mixed(
            "Hi. This is the James mail server at mx.there.test.\nI'm afraid I wasn't able to deliver your message to the following addresses.\n"
            "This is a permanent error; I've given up. Sorry it didn't work out.  Below\nI include the list of recipients and the reason why I"
            " was unable to deliver\nyour message.\n\nFailed recipient(s):\nann@there.test\n\nError message:\n550 5.1.1 no such user here\n",
            sender="postmaster@mx.there.test",
            subject="Re: The news",
        ),
        {"ann@there.test": (550, "5.1.1")},
    ),
    "GroupWise": (
        mixed(
            "The message that you sent was undeliverable to the following:\n\tann@there.test (user not found)\n\n"
            "Possibly truncated original message follows:\n",
            sender="Mailer-Daemon@there.test",
            subject="Message status - undeliverable",
        ),
        {"ann@there.test": (0, "")},
    ),
    "Lotus cc:Mail": (
        mail(
            "Message could not be delivered to:\n\n    ann@there.test\n\nReason: User not listed in public Name & Address Book\n"
            + _COPY,
            sender="Postmaster@there.test",
            subject="cc:Mail Link to SMTP Undeliverable Message",
        ),
        {"ann@there.test": (0, "")},
    ),
    "PMDF": (
        mixed(
            "This report relates to a message you sent with the following header fields:\n\n  Message-id: <abc@sender.test>\n"
            "  From: News <news@sender.test>\n  To: ann@there.test\n  Subject: The news\n\nYour message cannot be delivered to the following"
            " recipients:\n\n  Recipient address: ann@there.test\n  Reason: Remote SMTP server has rejected address\n  Diagnostic code:"
            " smtp;550 5.1.1 unknown user\n  Remote system: dns;mx.there.test (TCP|192.0.2.5|1|192.0.2.1|25)\n",
            sender="PMDF Internet Messaging <postmaster@here.test>",
            subject="Delivery Notification: Delivery has failed",
        ),
        {"ann@there.test": (550, "5.1.1")},
    ),
    "Smail": (
        mail(
            "|------------------------- Message log follows: -------------------------|\n no valid recipients were found for this message\n"
            "|------------------------- Failed addresses follow: ---------------------|\n <ann@there.test> ... unknown user\n"
            f"|------------------------- Message text follows: ------------------------|\n{RETURNED}",
            subject="mail failed, returning to sender",
        ),
        {"ann@there.test": (0, "")},
    ),
    "SIMS": (
        mail(
            "Failed to deliver to 'ann@there.test'\nSMTP module(domain there.test) reports:\n mx.there.test: 550 5.1.1 unknown user account\n"
            + _COPY,
            subject="Undeliverable mail: The news",
        ),
        {"ann@there.test": (550, "5.1.1")},
    ),
    "VM": (
        mail(
            "Your mail was not delivered to some or all of its intended recipients for the following reason(s):\n\n"
            f"No such user: ann@there.test\n\n--------------------RETURNED MAIL FILE--------------------\n{RETURNED}",
            sender="SMTP@there.test",
            subject="Undeliverable Mail",
        ),
        {"ann@there.test": (0, "")},
    ),
    "Compuserve": (
        mail(
            "Receiver not found: ann@there.test\n\nYour message could not be delivered as addressed.\n\n--- Returned message ---\n\n"
            + RETURNED,
            sender="Electronic Postmaster <postmaster@there.test>",
            subject="Undeliverable message",
        ),
        {"ann@there.test": (0, "")},
    ),
    "X.400 in a report for people": (
        mixed(
            "This report relates to your message: Subject: The news\n\nYour message was not delivered to   ann@there.test\n"
            " for the following reason:\n Recipient's Mailbox unavailable\n Originator/Recipient name not recognised\n",
            sender="postmaster@there.test",
            subject="Delivery Report (failure) for ann@there.test",
        ),
        {"ann@there.test": (0, "")},
    ),
    "Mimecast": (
        mixed(
            "Mimecast was unable to deliver your message.\n\nThe following recipients were not reached:\n\n  ann@there.test\n"
            "    Remote server response: 550 5.1.1 Recipient not found\n",
            sender="Postmaster <postmaster@here.test>",
            subject="[Postmaster] Email Delivery Failure",
        ),
        {"ann@there.test": (550, "5.1.1")},
    ),
    "MessageLabs": (
        mail(
            "This is the mail delivery agent at messagelabs.example.\nI was unable to deliver your message to the following addresses.\n\n"
            f"ann@there.test\n\nReason: 550 5.1.1 Invalid recipient\n\nThe message subject was: The news\n\n{_COPY}",
            sender="MAILER-DAEMON@messagelabs.example",
            subject="Mail Delivery Failure",
        ),
        {"ann@there.test": (550, "5.1.1")},
    ),
    "a gateway that filters": (
        mail(
            "Your message to: ann@there.test\nwas blocked by our Spam Firewall. The email you sent with the following subject has NOT BEEN"
            " DELIVERED:\n\nSubject: The news\n",
            sender="postmaster@there.test",
            subject="**Message you sent blocked by our bulk email filter**",
        ),
        {"ann@there.test": (0, "")},
    ),
    "ezweb": (
        mail(
            f"The user(s) account is disabled.\n\n<ann@there.test>: 550 user unknown (in reply to RCPT TO command)\n{_COPY}",
            sender="Postmaster@there.test",
            subject="Mail System Error - Returned Mail",
        ),
        {"ann@there.test": (550, "")},
    ),
    "GMX": (
        mail(
            "This message was created automatically by mail delivery software.\n\nA message that you sent could not be delivered to\none or more"
            f' of its recipients. The following addresses\nfailed:\n\n"ann@there.test":\nSMTP error from remote server after RCPT command:\n'
            f"host: mx.there.test\n5.1.1 unknown user\n\n--- The header of the original message is following. ---\n\n{RETURNED}",
            subject="Mail delivery failed: returning message to sender",
        ),
        {"ann@there.test": (0, "5.1.1")},
    ),
    "Zoho": (
        mixed(
            "This message was created automatically by mail delivery software.\nA message that you sent could not be delivered to one or more of"
            " its recipients. This is a permanent error.\n\nann@there.test Invalid Address, ERROR_CODE :550, ERROR_CODE :5.1.1 no such user\n",
            sender="mailer-daemon@mail.zoho.example",
            subject="Undelivered Mail Returned to Sender",
        ),
        {"ann@there.test": (550, "5.1.1")},
    ),
    "InterScan": (
        mail(
            "Sent >>> RCPT TO:<ann@there.test>\nReceived <<< 550 5.1.1 no such user\n\nUnable to deliver message to <ann@there.test>.\n"
            + _COPY,
            sender="InterScan MSS <postmaster@there.test>",
            subject="Mail delivery failure",
        ),
        {"ann@there.test": (550, "5.1.1")},
    ),
    "Kerio": (
        mixed(
            "Your message could not be delivered to the following recipients:\n\n<ann@there.test>\n    (550 5.1.1 no such mailbox)\n\nKerio Connect\n",
            sender="postmaster@here.test",
            subject="Undeliverable: The news",
        ),
        {"ann@there.test": (550, "5.1.1")},
    ),
    "two recipients of one transcript": (
        mail(
            "   ----- Transcript of session follows -----\n... while talking to mx.there.test.:\n>>> RCPT To:<ann@there.test>\n"
            "<<< 550 5.1.1 <ann@there.test>... User unknown\n550 5.1.1 <ann@there.test>... User unknown\n>>> RCPT To:<bob@there.test>\n"
            f"<<< 552 5.2.2 <bob@there.test>... Mailbox full\n554 5.2.2 <bob@there.test>... Mailbox full\n\n   ----- Unsent message follows -----\n{RETURNED}",
            subject="Returned mail: User unknown",
        ),
        {"ann@there.test": (550, "5.1.1"), "bob@there.test": (552, "5.2.2")},
    ),
}
