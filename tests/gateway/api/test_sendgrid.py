"""POST /v3/mail/send: SendGrid's own SDK against a real socket, and what we do not have is refused by name."""

import asyncio
import base64
import socket
import urllib.error

import pytest
import uvicorn
from sendgrid import SendGridAPIClient
from sendgrid.helpers.mail import (
    Asm,
    Attachment,
    Bcc,
    Category,
    Cc,
    ContentId,
    CustomArg,
    Disposition,
    Email,
    FileContent,
    FileName,
    FileType,
    GroupId,
    Header,
    Mail,
    MailSettings,
    Personalization,
    ReplyTo,
    SandBoxMode,
    SendAt,
    Substitution,
    TemplateId,
    To,
)  # fmt: skip

from topics.catalogue import SUBMISSIONS


@pytest.fixture
async def client(rig):
    """SendGrid's client, at our door."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(rig.app, lifespan="off", log_level="warning", ws="none"))
    task = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started:
        await asyncio.sleep(0.005)
    yield SendGridAPIClient(rig.key, host=f"http://127.0.0.1:{listening.getsockname()[1]}")
    server.should_exit = True
    await task


def _mail(**more):
    return Mail(from_email=("ann@acme.test", "Ann"), to_emails=[("bob@there.test", "Bob"), "carol@there.test"], subject="Hello",
                plain_text_content="Hi", html_content="<p>Hi</p>", **more)  # fmt: skip


async def test_the_sdks_first_example(rig, client):
    answer = await asyncio.to_thread(client.send, _mail())
    (sent,) = rig.log.values(SUBMISSIONS)
    assert (answer.status_code, answer.body) == (202, b"")
    assert (await rig.ask("GET", f"/v1/status/{answer.headers['X-Message-Id']}")).json()[
        "recipient"
    ] == "bob@there.test"
    assert sent["sender"] == {"address": "ann@acme.test", "name": "Ann"} and (sent["text"], sent["html"]) == (
        "Hi",
        "<p>Hi</p>",
    )
    assert [(to["address"], to["name"], to["kind"]) for to in sent["recipients"]] == [
        ("bob@there.test", "Bob", "to"),
        ("carol@there.test", "", "to"),
    ]


async def test_everything_that_we_have(rig, client):
    mail = _mail()
    mail.add_cc(Cc("dave@there.test", "Dave"))
    mail.add_bcc(Bcc("eve@there.test"))
    mail.reply_to = ReplyTo("reply@acme.test", "Desk")
    mail.header = Header("X-Order", "7")
    mail.category = [Category("receipts"), Category("spring")]
    mail.custom_arg = [CustomArg("order", "7")]
    mail.send_at = SendAt(1_790_000_900)
    mail.attachment = [
        Attachment(
            FileContent(base64.b64encode(b"PDF").decode()),
            FileName("a.pdf"),
            FileType("application/pdf"),
            Disposition("attachment"),
        ),
        Attachment(
            FileContent(base64.b64encode(b"PNG").decode()),
            FileName("b.png"),
            FileType("image/png"),
            Disposition("inline"),
            ContentId("b"),
        ),
    ]
    second = Personalization()
    second.add_to(To("frank@there.test"))
    second.subject = "For -name-"
    second.add_substitution(Substitution("-name-", "Frank"))
    mail.add_personalization(second)
    assert (await asyncio.to_thread(client.send, mail)).status_code == 202
    first, other = sorted(rig.log.values(SUBMISSIONS), key=lambda one: len(one["recipients"]), reverse=True)
    assert [to["kind"] for to in first["recipients"]] == ["to", "to", "cc", "bcc"]
    assert (sorted(first["tags"]), first["metadata"], first["send_at"]) == (
        ["receipts", "spring"],
        {"order": "7"},
        1_790_000_900_000,
    )
    assert first["reply_to"] == [{"address": "reply@acme.test", "name": "Desk"}] and first["headers"] == [
        {"name": "X-Order", "value": "7"}
    ]
    assert [(one["filename"], one["content"], one["content_id"]) for one in first["attachments"][::-1]] == [
        ("a.pdf", b"PDF", ""),
        ("b.png", b"PNG", "b"),
    ]
    assert (other["subject"], other["recipients"][0]["address"]) == ("For Frank", "frank@there.test")


def _with(name):
    mail = _mail()
    match name:
        case "template_id":
            mail.template_id = TemplateId("d-1")
        case "asm":
            mail.asm = Asm(GroupId(1))
        case "content":
            mail.add_content("BEGIN:VCALENDAR", "text/calendar")
        case "from":
            mail.from_email = Email("x@elsewhere.test")
        case "personalizations":
            mail._personalizations = []
        case "to":
            mail.add_to(To("nobody@there"))
    return mail


@pytest.mark.parametrize(
    ("name", "status", "field"),
    [("template_id", 400, "template_id"), ("asm", 400, "asm"), ("content", 400, "content.2.type"), ("from", 403, "from"),
     ("personalizations", 400, "personalizations"), ("to", 400, "to.2")],
)  # fmt: skip
async def test_what_we_do_not_have_is_named(rig, client, name, status, field):
    body = _with(name).get()
    answer = await rig.ask("POST", "/v3/mail/send", body)
    assert (answer.status, answer.json()["errors"][0]["field"]) == (status, field), answer.body
    assert answer.json()["errors"][0]["message"] and not rig.log.records[SUBMISSIONS]


async def test_errors_reach_the_sdk_as_its_users_catch_them(client):
    with pytest.raises(Exception, match="400") as caught:
        await asyncio.to_thread(client.send, _with("asm"))
    assert b"asm is not available here" in caught.value.body
    assert not isinstance(caught.value, urllib.error.URLError)


async def test_the_sandbox_checks_and_sends_nothing(rig, client):
    mail = _mail()
    mail.mail_settings = MailSettings(sandbox_mode=SandBoxMode(True))
    assert (await asyncio.to_thread(client.send, mail)).status_code == 200
    assert not rig.log.records[SUBMISSIONS]


async def test_again_under_its_key_sends_nothing_twice(rig):
    body = _mail().get()
    two = {**body, "personalizations": [{"to": [{"email": f"{name}@there.test"}]} for name in "ab"]}
    answers = [await rig.ask("POST", "/v3/mail/send", two, headers={"Idempotency-Key": "k"}) for _ in range(3)]
    assert {one.status for one in answers} == {202} and len({one.headers["x-message-id"] for one in answers}) == 1
    assert len(rig.log.records[SUBMISSIONS]) == 2
