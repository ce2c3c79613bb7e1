"""Mail that speaks of bounces, or comes as they do, and must suppress nobody: {name: mail}."""

from tests.postroad.feedback.samples import RETURNED, mail, report

_PERSON = "Ann <ann@there.test>"
_AWAY = {
    "English": ("Out of Office: The news", "I am out of the office. For urgent matters write to bob@there.test."),
    "German": ("Automatische Antwort: Neues", "Ich bin nicht im Büro. Ihre Nachricht wird nicht weitergeleitet. Vertretung: bob@there.test"),
    "French": ("Réponse automatique : nouvelles", "Je suis en congés. Contactez bob@there.test"),
    "Spanish": ("Respuesta automática: noticias", "Estoy de vacaciones. Escriba a bob@there.test"),
    "Portuguese": ("Resposta automática: novidades", "Estou de férias. Contacte bob@there.test"),
    "Italian": ("Risposta automatica: notizie", "Sono in ferie. Scrivere a bob@there.test"),
    "Dutch": ("Automatisch antwoord: nieuws", "Ik ben afwezig. Mail bob@there.test"),
    "Polish": ("Autoodpowiedź: nowości", "Jestem na urlopie. Kontakt: bob@there.test"),
    "Russian": ("Автоответ: новости", "Я в отпуске. Пишите на bob@there.test"),
    "Japanese": ("自動返信: お知らせ", "不在にしております。bob@there.test までご連絡ください。"),
    "Swedish": ("Autosvar: nyheter", "Jag är på semester. Kontakta bob@there.test"),
    "Turkish": ("Otomatik yanıt: haberler", "Ofis dışındayım. bob@there.test"),
}  # fmt: skip


def _list(body: str, **more: str) -> bytes:
    return mail(body, sender="News <news@list.test>", more="List-Id: <news.list.test>\nPrecedence: bulk\n", **more)


MAIL: dict[str, bytes] = {
    **{f"away, {language}": mail(f"{text}\n", sender=_PERSON, subject=subject) for language, (subject, text) in _AWAY.items()},
    "a newsletter about bounces": _list(
        "This week: what does 550 5.1.1 User unknown mean?\n\nSuppose that ann@there.test does not exist. Your server says\n\n"
        "    550 5.1.1 <ann@there.test>: Recipient address rejected: User unknown\n\nand your message could not be delivered.\n",
        subject="Why mail was not delivered: delivery failure explained",
    ),
    "a thread about a bounce": mail(
        "Hi,\n\nmy mail to ann@there.test came back with 550 5.1.1 User unknown, see below. Any idea?\n\n> <ann@there.test>: host mx.there.test"
        " said: 550 5.1.1 User unknown\n> (in reply to RCPT TO command)\n",
        sender="Bob <bob@there.test>", subject="Re: Undelivered Mail Returned to Sender", more="In-Reply-To: <1@x.test>\n",
    ),
    "moderation": mail(
        "Your mail to 'news' with the subject\n\n    The news\n\nIs being held until the list moderator can review it for approval.\n\n"
        "The reason it is being held:\n\n    Post by non-member to a members-only list\n",
        sender="news-bounces@list.test", subject="Your message to news awaits moderator approval", more="List-Id: <news.list.test>\nPrecedence: bulk\n",
    ),
    "a warning of an account": mail(
        "Dear user, your mailbox ann@there.test is almost full (95 %). Mail to it will not be delivered soon.\nDelete mail or click here.\n",
        sender="System Administrator <helpdesk@there.test>", subject="Your mailbox is almost full",
    ),
    "bait": mail(
        "You have 4 undelivered messages for ann@there.test. Click to release them: https://bait.test/x\n",
        sender="Mail Support <support@bait.test>", subject="You have undelivered messages",
    ),
    "subscriptions disabled": _list(
        "Your membership in the mailing list News has been disabled due to excessive bounces. The last bounce received from you was dated 1-Nov-2026.\n",
        subject="Bounce action notification",
    ),
    "challenge": mail(
        "ann@there.test uses a filter. Your message has not been delivered yet; reply to this mail to have it delivered.\n",
        sender="ann@there.test", subject="Please confirm your message", more="Auto-Submitted: auto-replied\n",
    ),
    "ticket": mail(
        "Your request has been received (ticket 4711) and will be handled soon. If our answer cannot be delivered, write to ann@there.test.\n",
        sender="Support <support@there.test>", subject="[#4711] Re: The news", more="Auto-Submitted: auto-generated\n",
    ),
    "read receipt": mail(
        "--b\nContent-Type: text/plain\n\nYour message was deleted without being read.\n--b\nContent-Type: message/disposition-notification\n\n"
        "Reporting-UA: there.test; x\nFinal-Recipient: rfc822;ann@there.test\nDisposition: automatic-action/MDN-sent-automatically; deleted\n--b--\n",
        sender=_PERSON, subject="Not read: The news", more="Content-Type: multipart/report; report-type=disposition-notification; boundary=b\n",
    ),
    "DMARC failure report without its part": mail(
        "This is an email abuse report for a message that failed DMARC, sent to ann@there.test and rejected with 550 5.7.1.\n",
        sender="noreply@there.test", subject="FW: The news",
    ),
    "TLS report": mail(
        "--b\nContent-Type: text/plain\n\nSMTP TLS report: 3 failed sessions.\n--b\nContent-Type: application/tlsrpt+json\n\n{}\n--b--\n",
        sender="tls@there.test", subject="Report Domain: sender.test Submitter: there.test Report-ID: <x>",
        more="Content-Type: multipart/report; report-type=tlsrpt; boundary=b\n",
    ),
    "delay of Postfix": report("Final-Recipient: rfc822; ann@there.test\nAction: delayed\nStatus: 4.4.1\nDiagnostic-Code: smtp; 450 4.1.1 user unknown\n"),
    "delay that says user unknown": report("Final-Recipient: rfc822; ann@there.test\nAction: delayed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 user unknown\n"),
    "delay of Exchange": mail(
        "Delivery to the following recipients has been delayed.\n\n       ann@there.test\n",
        sender="postmaster@there.test", subject="Delivery Status Notification (Delay)",
    ),
    "delay of qmail": mail(
        "This is a warning message only. You do not need to resend your message.\n\nThe message has not yet been delivered to <ann@there.test>.\n",
        subject="delayed mail notification",
    ),
    "delay of MDaemon": mail(
        "WARNING: message still in the queue after 4 hours; attempts to deliver will continue.\n\nRecipient: ann@there.test\n",
        sender="MDaemon@there.test", subject="Warning: delivery delayed",
    ),
    "success with a hard text": report("Final-Recipient: rfc822; ann@there.test\nAction: delivered\nStatus: 2.0.0\nDiagnostic-Code: smtp; 550 5.1.1 user unknown\n"),
    "a bounce of somebody's, sent on": mail(
        f"FYI\n\n---------- Forwarded message ----------\n{RETURNED}\n\nann@there.test: 550 5.1.1 User unknown\n",
        sender="Bob <bob@there.test>", subject="Fwd: Undeliverable: The news",
    ),
    "a claim without a form": mail("ann@there.test is a bad address. Remove it.\n", sender="someone@else.test", subject="ann@there.test"),
}  # fmt: skip
