"""Reports of our own making, in the forms that mail systems write: one per family, none taken from a corpus."""

OURS = "bounce@sender.test"


def mail(
    body: str, *, sender: str = "MAILER-DAEMON@mx.there.test", subject: str = "failure notice", more: str = ""
) -> bytes:
    return (
        f"Return-Path: <>\nFrom: {sender}\nTo: {OURS}\nSubject: {subject}\nMessage-ID: <1@mx.there.test>\n{more}\n{body}"
    ).encode()


RETURNED = """Return-Path: <bounce@sender.test>
Received: from out.sender.test by mx.there.test; Mon, 2 Nov 2026 10:00:00 +0000
From: News <news@sender.test>
To: ann@there.test
Subject: The news
Message-ID: <abc@sender.test>
Feedback-ID: spring:broadcast:shop:one
X-Postroad-Id: b-token

Hello
"""


def report(
    status: str, *, text: str = "Your mail was not delivered.\n", kind: str = "message/delivery-status"
) -> bytes:
    return mail(
        f"--b\nContent-Type: text/plain\n\n{text}\n--b\nContent-Type: {kind}\n\nReporting-MTA: dns; mx.there.test\n\n{status}\n"
        f"--b\nContent-Type: message/rfc822\n\n{RETURNED}\n--b--\n",
        subject="Undelivered Mail Returned to Sender",
        more='MIME-Version: 1.0\nContent-Type: multipart/report; report-type=delivery-status; boundary="b"\n',
    )


def mixed(text: str, original: str = RETURNED, **more: str) -> bytes:
    return mail(
        f"--b\nContent-Type: text/plain; charset=utf-8\n\n{text}\n--b\nContent-Type: message/rfc822\n\n{original}\n--b--\n",
        more='Content-Type: multipart/mixed; boundary="b"\n',
        **more,
    )


# name: mail, {address: (reply code, enhanced status)}
BOUNCES: dict[str, tuple[bytes, dict[str, tuple[int, str]]]] = {
    "qmail": (
        mail(
            "Hi. This is the qmail-send program at mx.there.test.\nI'm afraid I wasn't able to deliver your message to the"
            " following addresses.\nThis is a permanent error; I've given up. Sorry it didn't work out.\n\n<ann@there.test>:\n"
            "192.0.2.1 does not like recipient.\nRemote host said: 550 5.1.1 no such person\nGiving up on 192.0.2.1.\n\n"
            f"<bob@there.test>:\nSorry, no mailbox here by that name. (#5.1.1)\n\n--- Below this line is a copy of the message.\n\n{RETURNED}"
        ),
        {"ann@there.test": (550, "5.1.1"), "bob@there.test": (0, "5.1.1")},
    ),
    "exim": (
        mail(
            "This message was created automatically by mail delivery software.\n\nA message that you sent could not be delivered to"
            " one or more of its\nrecipients. This is a permanent error. The following address(es) failed:\n\n  ann@there.test\n"
            "    host mx.there.test [192.0.2.1]\n    SMTP error from remote mail server after RCPT TO:<ann@there.test>:\n"
            f"    550 5.2.1 mailbox disabled\n\n------ This is a copy of the message, including all the headers. ------\n\n{RETURNED}",
            subject="Mail delivery failed: returning message to sender",
            more="X-Failed-Recipients: ann@there.test\nAuto-Submitted: auto-replied\n",
        ),
        {"ann@there.test": (550, "5.2.1")},
    ),
    "exim with an alias": (
        mail(
            "This message was created automatically by mail delivery software.\n\nThe following address(es) failed:\n\n"
            "  far@away.test\n    (generated from ann@there.test)\n    Unrouteable address\n",
            subject="Mail delivery failed",
        ),
        {"far@away.test": (0, "")},
    ),
    "postfix without fields": (
        mixed(
            "This is the Postfix program at host mx.there.test.\n\nI'm sorry to have to inform you that your message could not be\n"
            "delivered to one or more recipients.\n\nFor further assistance, please send mail to <postmaster@mx.there.test>\n\n"
            "<ann@there.test>: host mx2.there.test[192.0.2.1] said: 554 5.7.1 Relay access denied (in reply to RCPT TO command)\n"
        ),
        {"ann@there.test": (554, "5.7.1")},
    ),
    "sendmail": (
        mail(
            "The original message was received at Mon, 2 Nov 2026 10:00:00 GMT\nfrom out.sender.test [192.0.2.9]\n\n"
            "   ----- The following addresses had permanent fatal errors -----\n<ann@there.test>\n    (reason: 552 5.2.2 over quota)\n\n"
            "   ----- Transcript of session follows -----\n... while talking to mx.there.test.:\n>>> RCPT To:<ann@there.test>\n"
            f"<<< 552 5.2.2 over quota\n\n   ----- Original message follows -----\n\n{RETURNED}",
            sender="Mail Delivery Subsystem <MAILER-DAEMON@there.test>",
            subject="Returned mail: see transcript for details",
        ),
        {"ann@there.test": (552, "5.2.2")},
    ),
    "transcript alone": (
        mail(
            "   ----- Transcript of session follows -----\nWhile talking to mx.there.test:\n>>> RCPT To:<ann@there.test>\n"
            f"<<< 550 User unknown\n550 <ann@there.test>... User unknown\n   ----- Unsent message follows -----\n{RETURNED}",
            subject="Returned mail: User unknown",
        ),
        {"ann@there.test": (550, "")},
    ),
    "exchange": (
        mixed(
            "Your message\n\n  To:      ann@there.test\n  Subject: The news\n  Sent:    Mon, 2 Nov 2026 10:00:00 -0000\n\n"
            "did not reach the following recipient(s):\n\nann@there.test on Mon, 2 Nov 2026 10:00:01 -0000\n"
            "    The recipient name is not recognized\n\tThe MTS-ID of the original message is: c=us;a= ;p=there;l=EX1\n",
            sender="System Administrator <postmaster@there.test>",
            subject="Undeliverable: The news",
        ),
        {"ann@there.test": (0, "")},
    ),
    "outlook": (
        mail(
            "Delivery has failed to these recipients or groups:\n\nann@there.test<mailto:ann@there.test>\nThe e-mail address you entered"
            " couldn't be found.\n\nDiagnostic information for administrators:\n\nGenerating server: ex1.there.test\n\nann@there.test\n"
            f"#550 5.1.1 RESOLVER.ADR.RecipNotFound; not found ##\n\nOriginal message headers:\n\n{RETURNED}",
            sender="postmaster@there.test",
            subject="Undeliverable: The news",
        ),
        {"ann@there.test": (550, "5.1.1")},
    ),
    "notes": (
        mail(
            f"------- Failure Reasons  --------\n\nUser not listed in public Name & Address Book\nann@there.test\n\n------- Returned Message --------\n\n{RETURNED}",
            sender="postmaster@there.test",
            subject="Undeliverable message",
        ),
        {"ann@there.test": (0, "")},
    ),
    "domino": (
        mail(
            "Your message\n\n  Subject: The news\n\nwas not delivered to:\n\n  ann@there.test\n\nbecause:\n\n"
            "  User ann (ann@there.test) not listed in Domino Directory\n",
            sender="Postmaster@there.test",
            subject="DELIVERY FAILURE: User ann not listed in Domino Directory",
        ),
        {"ann@there.test": (0, "")},
    ),
    "a mail gateway": (
        mixed(
            "****** Message from Some Gateway ******\n\nSent <<< RCPT TO:<ann@there.test>\nReceived >>> 550 5.1.1 unknown user\n\n"
            "Unable to deliver message to <ann@there.test>.\n",
            sender="gateway@there.test",
            subject="Mail could not be delivered",
        ),
        {"ann@there.test": (550, "5.1.1")},
    ),
    "a server of one line": (
        mail(f"Unknown user: ann@there.test\n\nRCPT TO generated following response:\n550 no such user\n\nOriginal message follows.\n\n{RETURNED}",
             sender="Postmaster <postmaster@there.test>", subject="Undeliverable Mail"),
        {"ann@there.test": (550, "")},
    ),
    "a queue that gave up": (
        mail(
            "This is the DragonFly Mail Agent v0.13 at mx.there.test.\n\nThere was an error delivering your mail to <ann@there.test>.\n\n"
            f"Could not deliver for the last 432000 seconds. Giving up.\n\nMessage headers follow.\n\n{RETURNED}",
            subject="Mail delivery failed",
        ),
        {"ann@there.test": (0, "")},
    ),
    "HTML alone": (
        mail(
            "<html><head><style>a@import { x }</style></head><body><p>Your message could not be delivered to:</p><ul><li>"
            '<a href="mailto:ann@there.test">ann@there.test</a></li></ul><p>The response was:<br>550 5.1.1 No such user</p></body></html>',
            subject="Delivery Status Notification (Failure)",
            more="Content-Type: text/html; charset=utf-8\n",
        ),
        {"ann@there.test": (550, "5.1.1")},
    ),
    "Gmail": (
        mail(
            "Delivery to the following recipient failed permanently:\n\n     ann@there.test\n\nTechnical details of permanent failure:\n"
            "Google tried to deliver your message, but it was rejected by the server for the recipient domain there.test by mx.there.test."
            f" [192.0.2.1].\n\nThe error that the other server returned was:\n550 5.1.1 <ann@there.test>... User Unknown\n\n----- Original message -----\n\n{RETURNED}",
            sender="Mail Delivery Subsystem <mailer-daemon@googlemail.com>",
            subject="Delivery Status Notification (Failure)",
        ),
        {"ann@there.test": (550, "5.1.1")},
    ),
    "Yahoo": (
        mail(
            "Sorry, we were unable to deliver your message to the following address.\n\n<ann@there.test>:\nRemote host said: 554 delivery"
            f" error: dd This user doesn't have an account\n\n--- Below this line is a copy of the message.\n\n{RETURNED}",
            subject="Failure Notice",
        ),
        {"ann@there.test": (554, "")},
    ),
    "Japanese": (
        mail(
            "次のメールアドレスに送信できませんでした。\n宛先のアドレスが見つかりません。\n\n<ann@there.test>\n\n--------元のメール--------\n" + RETURNED,
            sender="Postmaster@there.test",
            subject="配信エラー",
        ),
        {"ann@there.test": (0, "")},
    ),
    "German": (
        mail("Ihre Nachricht konnte nicht zugestellt werden:\n\nann@there.test: Empfänger unbekannt (550)\n", subject="Unzustellbar: Neues"),
        {"ann@there.test": (550, "")},
    ),
    "Russian": (
        mail("К сожалению, Ваше письмо не может быть доставлено:\n\n  ann@there.test\n    550 пользователь не найден\n", subject="Ваше сообщение не доставлено"),
        {"ann@there.test": (550, "")},
    ),
    "Spanish": (
        mail("No se pudo entregar su mensaje al destinatario:\n\n  <ann@there.test>\n\nEl usuario no existe.\n", subject="Mensaje no entregado"),
        {"ann@there.test": (0, "")},
    ),
    "Portuguese": (
        mail("A mensagem não pôde ser entregue para:\n\n  ann@there.test\n\n550 5.1.1 usuário desconhecido\n", subject="Falha na entrega"),
        {"ann@there.test": (550, "5.1.1")},
    ),
    "French": (
        mail("Votre message n'a pas pu être remis à :\n\n  ann@there.test\n\nAdresse inconnue.\n", subject="Échec de la remise"),
        {"ann@there.test": (0, "")},
    ),
    "Chinese": (
        mail("您的邮件无法投递到以下地址：\n\nann@there.test\n\n550 用户不存在\n", subject="系统退信"),
        {"ann@there.test": (550, "")},
    ),
    "X.400": (
        report(
            "Original-Recipient: rfc822; ann@there.test\nFinal-Recipient: X400; /G=Ann/S=Bee/O=There/PRMD=T/C=GB/\nAction: failed\n"
            "Status: 5.1.1\nDiagnostic-Code: X400; Unrecognised-OR-Name\n"
        ),
        {"ann@there.test": (0, "5.1.1")},
    ),
    "fields in the text": (
        mail(
            "An error occurred while trying to deliver the mail to the following recipients:\nann@there.test\n\nTechnical report:\n\n"
            "Reporting-MTA: dns; mx.there.test\n\nAction: failed\nFinal-Recipient: rfc822; ann@there.test\n"
            "Diagnostic-Code: smtp; 550 5.1.1 unknown\nStatus: 5.1.1\n",
            subject="Delivery Status Notification (Failure)",
        ),
        {"ann@there.test": (550, "5.1.1")},
    ),
    "local names": (
        mail("Your mail to the following recipients could not be delivered:\n\tann\n", sender="MAILER-DAEMON@there.test"),
        {"ann@there.test": (0, "")},
    ),
    "recipient in the returned message alone": (
        mixed("Hello,\n\nthe attached mail could not be delivered.\n", subject="Delivery failure"),
        {"ann@there.test": (0, "")},
    ),
}  # fmt: skip

DELAYS: dict[str, bytes] = {
    "fields": report("Final-Recipient: rfc822; ann@there.test\nAction: delayed\nStatus: 4.4.1\nWill-Retry-Until: Fri, 6 Nov 2026\n"),
    "exim": mail(
        "This message was created automatically by mail delivery software.\nA message that you sent has not yet been delivered to one or"
        " more of its\nrecipients after more than 24 hours on the queue on mx.there.test.\n\nThe address to which the message has not yet"
        " been delivered is:\n\n  ann@there.test\n\nNo action is required on your part. Delivery attempts will continue for\nsome time."
        " Eventually the mail delivery software will give up, and the message will be returned to you.\n",
        subject="Warning: message 1abc delayed 24 hours",
        more="X-Failed-Recipients: ann@there.test\nAuto-Submitted: auto-replied\n",
    ),
    "sendmail": mail(
        "    **********************************************\n    **      THIS IS A WARNING MESSAGE ONLY      **\n"
        "    **  YOU DO NOT NEED TO RESEND YOUR MESSAGE  **\n    **********************************************\n\n"
        "   ----- The following addresses had transient non-fatal errors -----\n<ann@there.test>\n\n   ----- Transcript of session"
        " follows -----\n<ann@there.test>... Deferred: Connection timed out\nWarning: message still undelivered after 4 hours\n"
        "Will keep trying until message is 5 days old\n",
        subject="Warning: could not send message for past 4 hours",
    ),
    "Gmail": mail(
        "THIS IS A WARNING MESSAGE ONLY.\n\nYOU DO NOT NEED TO RESEND YOUR MESSAGE.\n\nDelivery to the following recipient has been"
        " delayed:\n\n     ann@there.test\n\nMessage will be retried for 2 more day(s)\n",
        subject="Delivery Status Notification (Delay)",
    ),
}  # fmt: skip

_PERSON = "Ann Bee <ann@there.test>"
VACATIONS: dict[str, bytes] = {
    "RFC 3834": mail("I am away.\n", sender=_PERSON, subject="Re: The news", more="Auto-Submitted: auto-replied\n"),
    "Exchange": mail("Back on Monday; ask bob@there.test.\n", sender=_PERSON, subject="Automatic reply: The news", more="X-Auto-Response-Suppress: All\n"),
    "old": mail("I left.\n", sender=_PERSON, subject="Re: The news", more="Precedence: auto_reply\n"),
    "German": mail("Ich bin im Urlaub.\n", sender=_PERSON, subject="Abwesenheitsnotiz: Neues"),
    "French": mail("Je suis absent.\n", sender=_PERSON, subject="Réponse automatique : nouvelles"),
    "Japanese": mail("休暇をいただいております。\n", sender=_PERSON, subject="自動返信: お知らせ"),
    "no longer here": mail(
        "This is an automatic reply. Ann no longer works for us; the mailbox ann@there.test is not read and mail is not delivered."
        " Please write to bob@there.test.\n", sender=_PERSON, subject="Out of Office: The news", more="Auto-Submitted: auto-replied\n"),
    "challenge": mail("Your message was not delivered yet. Click to prove that you are a person.\n", sender=_PERSON,
                      subject="Please confirm your message to ann@there.test", more="Auto-Submitted: auto-replied\n"),
}  # fmt: skip

OTHERS: dict[str, bytes] = {
    "success": report("Final-Recipient: rfc822; ann@there.test\nAction: delivered\nStatus: 2.0.0\n"),
    "relayed": report("Final-Recipient: rfc822; ann@there.test\nAction: relayed\nStatus: 2.0.0\n"),
    "read receipt": mail(
        "--b\nContent-Type: text/plain\n\nYour message was deleted without being read: could not be delivered to ann@there.test\n--b\n"
        "Content-Type: message/disposition-notification\n\nFinal-Recipient: rfc822; ann@there.test\n"
        "Disposition: automatic-action/MDN-sent-automatically; deleted\n--b--\n",
        sender=_PERSON, subject="Not read: The news",
        more="Content-Type: multipart/report; report-type=disposition-notification; boundary=b\n"),
    "DMARC": mail("This is a report.\n", sender="noreply-dmarc@there.test", subject="Report domain: sender.test Submitter: there.test"),
    "TLS report": mail("--b\nContent-Type: text/plain\n\nTLS report\n--b\nContent-Type: application/tlsrpt+gzip\n\nx\n--b--\n",
                       sender="tls@there.test", subject="Report Domain: sender.test", more="Content-Type: multipart/report; report-type=tlsrpt; boundary=b\n"),
    "a list that speaks of bounces": mail(
        "> <ann@there.test>: 550 5.1.1 user unknown\n\nAnn, I get this from your server: the user ann@there.test is unknown.\n",
        sender="Bob <bob@else.test>", subject="Re: mail problem", more="List-Id: <talk.else.test>\nIn-Reply-To: <1@else.test>\n"),
    "a person's answer": mail("Hi,\n\ncould not reach you by phone. My old address ann@old.test does not exist any more.\n\n> The news\n",
                              sender=_PERSON, subject="Re: The news", more="In-Reply-To: <abc@sender.test>\n"),
    "spam": mail("MAKE MONEY FAST, write to rich@quick.test\n", sender="postmaster@quick.test", subject="Undelivered fortune"),
    "a question to postmaster": mail("Please call me.\n", sender="postmaster@there.test", subject="Question"),
    "nothing": b"",
    "no header": b"\n\nhello",
}  # fmt: skip
