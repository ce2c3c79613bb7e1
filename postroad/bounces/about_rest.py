"""Rules for what is about neither side's standing: policy, content, systems, networks, time; and what bare codes say."""

from postroad.bounces.rules import rule
from postroad.bounces.words import ADDRESS

REFUSALS = (
    rule(
        "security", "security", "535 5.7.8 Authentication failed: try again",
        "authentication failure/is/turned/failed", "requires? authentication", "unauthenticated senders/sender", "not subscribed to ses", "verification failure", "not .. authorized to perform", "access denied state", "anmeldung erforderlich", "authentification", "autenticacion", "autenticazione", "認証",
        "you are not authorized/authorised to send", "delivery not authorized",
    ),
    rule(
        "policy", "policy", "554 5.7.1 Message rejected due to local policy",
        "policy/policies/richtlinie*/politique/politica/politicas/policyviolation", "administrative/administratively prohibit*/deni*", "not authorised/authorized/allowed/permitted/accepted", "prohibited/forbidden", "potential security issue", "illegal/forbidden/prohibited/dangerous/executable/blocked attachment/attachments/extension/file", "attachment/attachments .. not/blocked/prohibited/forbidden", "protocol violation", "message given low priority", "denied by", "solving a captcha",
        "политик*", "策略", "ポリシー",
    ),
    rule(
        "content", "content", "554 5.6.0 Message has malformed MIME headers",
        "header/headers/mime/charset/encoding/subject .. invalid/malformed/illegal/bad/broken/error/corrupt*/large/improper/8bit", "invalid/malformed/illegal/bad/broken/improper/missing .. header/headers/mime/charset/encoding/8bit", "media error", "8 bit data", "8bit data", "too many received", "message .. malformed", "improper use of", "not .. valid mime", "decode/parse .. message/mime/header", "message format error", "header size", "message content .. error",
    ),
    rule(
        "mailer-error", "mailer-error", "550 5.3.0 unknown mailer error 2",
        "pipe failed/delivery", "command returned", "exit code", "x unix", "prog mailer", "service unavailable .. unix", "unknown mailer error", "mailer .. exit*/died/error", "operating system error", "cannot execute", "child process/status", "cannot open .. mailbox/file/forward", "unable to run/write",
    ),
)  # fmt: skip

UNSAID = (
    rule("recipient-error", "undetermined", "451 4.3.0 This message could not be delivered due to a recipient error", "recipient/recipients error", "error with/at/of the? recipient"),
    rule("no-reason", "undetermined", "550 Message was not delivered, no reason given", "no reason given/known/specified/stated", "reason not/isnt/wasnt given/known/specified/stated/available", "unknown/unspecified/undisclosed reason/reasons", "delivery report/details/information is/are? unavailable", "no further/more details/information/explanation"),
)  # fmt: skip

SYSTEMS = (
    rule("no-service", "blocked", "554 Service not available (after initial connection)", "service/server not/currently? available/refused/unavailable", phase="connect"),
    rule(
        "routing-loop", "network", "554 5.4.6 Too many hops, mail loop", "too many hops", "hop/hops count/limit .. exceed*", "maximum hop", "routing/mail/mailer/forwarding loop/loops", "loop detected", "looping/mailloop/loops", "loops back", "delivered to line", retry=False,
    ),
    rule(
        "network", "network", "451 4.4.0 Lost connection with the host", "could not resolve", "no route to host", "network is? unreachable", "network error", "host unreachable .. network", "lost connection", "connection was? lost/closed/aborted/broken", "closed connection/unexpectedly", "broken pipe", "connection died", "remote .. dropped", "no relevant answers", "socket error .. reset", "protocol error .. network", "winsock error code 10054",
    ),
    rule("try-later", "rate-limited", "421 4.7.0 Try again later, closing connection", "try again later", "server busy", status="7.0 7.500 7.501 7.650 7.651 7.652"),
    rule(
        "system-error", "system-error", "451 4.3.0 Error: queue file write error",
        "internal/local/system/server/configuration/config/queue/software/database/ldap/backend/directory .. error/errors/problem/failure/misconfigured/misconfiguration", "local error", "misconfigured/misconfiguration", "unable/cannot/could .. contact/connect .. ldap/database/backend/daemon/sql", "service/server/system currently? temporarily? unavailable/down/busy/overloaded/overload", "service not available", "service/system/server is/are/was/has? currently/temporarily/now/not/too/just/been? unavailable/busy", "service .. unavailable", "transaction failed/fails", "insufficient permission*/resources/resource/memory", "resources temporarily", "duplicated message id", "error .. processing", "queue file", "write error", "read error/timeout", "unexpected .. error/failure/condition", "interrupted system call", "out of memory", "maintenance/overloaded", "no mdb", "try .. later .. overload*", "load average", "stoerung", "storung", "interner fehler", "erreur interne", "error interno", "errore interno", "erro interno", "внутренн* ошибк*", "internal", "系统错误", "系统繁忙", "サーバーエラー", "bugs in the",
    ),
    rule(
        "expired", "expired", "554 5.4.7 Message expired: delivery time is over",
        "expired/expire", "in the queue too long", "queue .. too long", "not .. delivered within/for/after .. days/hours/day/hour/minutes/seconds", "deliver* .. for the last", "giving up .. trying/after", "giving up", "retry time* exceeded/not", "retry timeout", "failing for a long time", "timed out/timeout", "time/timeout .. out/expired", "connection timeout", "did not accept our requests to connect", "could/unable/cannot/failed .. connect/connection/gateway/establish/reach*", "host/server not reachable/responding/available", "not reachable/responding", "delivery .. timed/timeout", "has been delayed", "been delayed", "still undelivered/retrying", "undelivered after", "will be retried", "delivery failed .. attempts", "attempts .. failed", "no answer/response from", "not .. been delivered .. hours/days", "zeituberschreitung", "delai depasse", "no .. se? ha podido entregar .. horas", "tempo scaduto", "time .. elapsed", "message .. too old", "final warning", "could not be delivered for", "queued .. too long", "continue/keep trying", "continue to try/attempt", "超时", "タイムアウト",
    ),
    rule(
        "greylisted-briefly", "greylisted", "451 4.7.1 Try again later",
        # rspamd says "4.7.1 Try again later"; Exim and OpenBSD's spamd no more than that without a code
        "try again later", "retry later", "come back later", "temporarily deferred/rejected", "temporary failure .. later", status="- 7.0 7.1", code="450 451",
    ),
    rule("syntax-error", "syntax-error", "503 5.5.1 Bad sequence of commands", "sequence of commands", "command/parameter .. unrecognized/unrecognised/unknown/unimplemented", "command/parameter not implemented/recognized", "syntax error", "unrecognized/unknown/invalid/unexpected command/commands/argument*/parameter*", "error in parameters", "need/needs rcpt/mail/helo/ehlo", "send hello first", "polite people say"),
    rule("temporary-unsaid", "undetermined", "450 4.0.0 Temporary failure", "temporary/transient/temporarily failure/error/problem/failed", status="- 0.", code="4"),
    rule("vacation", "vacation", "550 I am out of office until Monday", "out of office", "vacation/autoreply/autoresponder", "automatic reply"),
)  # fmt: skip

REJECTED = (
    rule("access-denied", "security", "550 5.7.1 <user@example.com>... Access denied", "access denied", status="1. 7."),
    rule("access-denied-to", "security", "550 <user@example.com>... Access denied", f"{ADDRESS} access denied", "access .. denied to/for", status="-"),
    rule("access-denied-to-us", "blocked", "550 Access denied", "access denied", status="-"),  # names nobody, so it is us
    rule(
        "recipient-rejected", "user-unknown", "550 5.1.1 <user@example.com> recipient rejected",
        "recipient/address rejected", "recipient refused/denied", status="- 1. 4.1", phase="- rcpt",
    ),
)  # fmt: skip

CONNECT = (rule("refused-at-connect", "blocked", "554 No service here (after initial connection)", phase="connect"),)

CODES = (
    rule("greylist-code", "greylisted", "450 4.7.1 Nope", status="7.1", code="450 451"),
    rule("moved-code", "moved", "551 5.1.6 Nope", status="1.6 7.17 7.18"),
    rule("null-mx-code", "null-mx", "556 5.1.10 Nope", status="1.10 7.27"),
    rule("user-unknown-code", "user-unknown", "550 5.1.1 Nope", status="1.0 1.1 1.3 1.10"),
    rule("recipient-not-found-code", "user-unknown", "550 5.1.351 Nope", status="1.351"),
    rule("host-unknown-code", "host-unknown", "550 5.1.2 Nope", status="1.2 4.4"),
    rule("ambiguous-code", "filtered", "550 5.1.4 Nope", status="1.4 2.0 2.4"),
    rule("suspended-code", "suspended", "550 5.2.1 Nope", status="2.1 7.13"),
    rule("mailbox-full-code", "mailbox-full", "552 5.2.2 Nope", status="2.2"),
    rule("too-big-code", "message-too-big", "552 5.3.4 Nope", status="2.3 3.4 7.16"),
    rule("sender-refused-code", "bad-sender", "550 5.1.8 Nope", status="1.7 1.8"),
    rule("smtputf8-code", "smtputf8", "553 5.6.7 Nope", status="6.7 6.8 6.9"),
    rule("content-code", "content", "554 5.6.0 Nope", status="6."),
    rule("auth-failure-code", "auth-failure", "550 5.7.23 Message refused", status="7.20 7.21 7.22 7.23 7.24 7.26 7.29 7.30 7.509 7.515"),
    rule("missing-ptr-code", "missing-ptr", "550 5.7.25 Nope", status="7.25"),
    rule("blocked-code", "blocked", "550 5.7.511 Nope", status="7.511 7.606 7.607 7.608 7.609 7.610 7.649"),
    rule("tls-required-code", "tls-required", "550 5.7.10 Nope", status="7.10 7.11"),
    rule("system-full-code", "system-full", "452 4.3.1 Nope", status="3.1 4.5"),
    rule("routing-loop-code", "network", "554 5.4.6 Nope", status="4.6", retry=False),
    rule("expired-code", "expired", "550 5.4.7 Nope", status="4.1 4.7"),
    rule("network-code", "network", "550 5.4.0 Nope", status="4.0 4.2 4.8", retry=False),
    rule("recipients-code", "too-many-connections", "452 4.5.3 Nope", status="5.3"),
    rule("syntax-code", "syntax-error", "500 5.5.2 Nope", status="5.1 5.2 5.6"),
    rule("system-code", "system-error", "554 5.3.0 Nope", status="3. 4.3 5.4 5.5 1.9"),
    rule("security-code", "security", "550 5.7.1 Nope", status="7."),
    rule("mailbox-full-552", "mailbox-full", "552 Requested mail action aborted", code="552 522"),
    rule("no-mail-host", "null-mx", "556 Domain does not take that", code="556 521"),  # RFC 7504
    rule("not-our-user", "moved", "551 Nope", code="551"),
    rule("auth-required", "security", "530 Nope", code="530 535"),
    rule("syntax", "syntax-error", "500 Nope", code="500 501 502 503 504 555"),
)  # fmt: skip
