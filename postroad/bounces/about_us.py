"""Rules for what is about us: our pace, our address, our domains and what we wrote. The recipient is not at fault.

They come before those about the recipient, as such replies often name the recipient or carry a recipient's code.
"""

from postroad.bounces.rules import rule
from postroad.bounces.words import IP

PACE = (
    rule(
        "greylisted", "greylisted", "451 4.7.1 Greylisting in action, please come back later",
        "greylist*/graylist*/postgrey/greylst", "grey/gray list/listed/listing", "grey rbl", "first time sender", "try again in .. seconds/minutes",
        "deferred for .. minutes", "retry/come back in? .. minutes/seconds", "confirm this mail server", "new sender .. try again",
    ),
    rule(
        "recipient-rate", "rate-limited", "450 4.2.1 The user you are trying to contact is receiving mail at a rate that prevents delivery",
        "receiving mail/email/messages too quickly", "receiving mail/email/messages at a rate", "receivingrate*", "mailbox .. receiving .. too many",
        "recipient .. exceeded .. messages .. hour/day/limit", "user .. receiving .. too many",
    ),
    rule(
        "too-many-connections", "too-many-connections", "421 4.7.0 Too many concurrent SMTP connections",
        "too many .. connection/connections/sessions", "too many concurrent/simultaneous", "connection/connections/session/sessions limit/limits/count",
        "maximum number of? .. connection/connections/sessions", "max connections/sessions", "limit .. number of connections",
        "exceeded .. connection/connections/sessions", "connection/connections rate limit*", "connection/ip frequency limited",
        "concurrent connections/sessions .. exceeded/reached/limit*", "limits the number of concurrent", "trop de connexions/sessions",
        "zu viele verbindungen", "demasiadas conexiones", "troppe connessioni", "too many recipients", "invalid/wrong/maximum/max recipient/recipients count/number/limit", "number of recipients", "te veel verbindingen",
        "messages/message per connection/session", "too many messages/mails in? this/one session", "throttled .. connections",
        "连接频率限制", "连接数超", "同時接続数",
    ),
    rule(
        "rate-limited", "rate-limited", "451 4.7.650 The mail server has been temporarily rate limited",
        "rate limit/limited/limiting/limits/limitation/exceeded", "ratelimit*", "too fast/quickly/frequently",
        "too many messages/mails/emails/mail/email/invalid/unknown/bad/errors/requests/attempts/failed/failures/bounces", "too much mail/email/traffic",
        "throttl*", "slow down", "at a rate that", "sending/sender rate/limit/quota", "hourly/daily/message/messages/relay/sending limit/quota/cap",
        "exceed*/over .. rate/messages .. per/hour/minute/day", "exceed* .. sending/rate/message/messages/hourly/daily limit/quota/limits",
        "unusual/abnormal rate/volume/amount/traffic", "unusual .. rate of", "excessive rate/volume/connections/traffic", "reached .. limit .. hour/day/minute/messages",
        "max* .. emails/messages/mails per hour/day/minute/domain", "sent too many/much", "sending/send too many/much", "message/mail/sender frequency", "limite .. mensajes/messages .. hora/heure",
        "zu viele nachrichten/mails/e/emails", "trop de messages/mails", "demasiados mensajes/correos", "troppi messaggi", "reputation .. throttl*",
        "more than .. messages/emails .. hour/day/minute", "frequency limited/limit", "mails/messages .. exceeded .. limit", "busy .. slow", "发送频率", "频率限制", "超过限制",
    ),
)  # fmt: skip

LINK = (
    rule(
        "tls-required", "tls-required", "530 5.7.0 Must issue a STARTTLS command first",
        "must/please/required/require/requires .. starttls/tls/ssl", "starttls/tls/encryption/encrypted .. is? required/needed/mandatory/necessary",
        "starttls/tls .. failed/failure/handshake/refused/unavailable", "tls negotiation", "no shared cipher", "certificate .. verif*/expired/invalid/trusted/untrusted/mismatch",
        "tls/starttls is required", "failed .. starttls/tls", "tls .. not available/offered/supported", "mta sts", "dane .. failed/validation",
    ),
)  # fmt: skip

CONTENT = (
    rule(
        "named-spam", "spam-detected", "550 5.7.1 Message rejected due to spam classification",
        "due to spam", "spam classification/content/contents", "message/mail/email rejected as spam", "spam message rejected",
    ),
    rule(
        "virus", "virus", "554 5.7.1 Message contains a virus: Eicar-Test-Signature",
        "virus .. detected/found/infected/blocked/rejected", "contains/contained/contain/detected/found/infected .. virus/viruses/malware/trojan/worm",
        "malware/trojan/infected/eicar/clamav/viren/viruses/wirus", "message/mail/content virus/infected", "mcspamsignature sa", "possible virus", "a virus", "due to virus",
        "病毒", "ウイルス", "ウィルス", "вирус*",
    ),
    rule(
        "domain-listed", "spam-detected", "554 5.7.1 Service unavailable; Sender address [user@example.com] blocked using dbl.spamhaus.org",
        # a list of domains or links: about what is in the mail, the same from any address of ours
        "dbl/rhsbl/surbl/uribl/surbl*/ivmuri", "url/urls/link/links/uri .. blacklist*/blocklist*/black/block/listed", "blacklisted/blocklisted/listed url/link/domain/urls/links",
        "domain .. blacklisted/blocklisted in/by/at/on .. surbl/uribl/dbl",
    ),
    rule(
        "repeated-header", "not-rfc-compliant", "554 Transaction failed: duplicate header 'DKIM-Signature'",
        # RFC 5322 3.6: whichever header it names, the repetition is the fault
        "duplicate/duplicated/repeated/multiple/more/several header/headers/field/fields", "header/headers/field .. duplicate/duplicated/repeated/twice", "more than one .. header/headers/field",
    ),
    rule(
        "auth-failure", "auth-failure", "550 5.7.26 This mail is unauthenticated: SPF and DKIM did not pass",
        "dmarc/dkim/spf/dmarcrejection/spfhardfail", "anti/anti? spoofing/spoof/spoofed", "antispoof*", "sender policy framework/framwork", "unauthenticated email/mail/message/sender is/from/was",
        "unauthenticated email/mail/message", "email/mail/message/sender is/was? not authenticated", "was not authenticated", "sender is unauthenticated",
        "fail*/does .. pass .. authentication/verification check/checks", "authentication/verification check/checks failed/fail", "multiple authentication checks", "fails authentication", "requires all senders to authenticate", "required authentication level",
        "sender id .. pra/fail*", "not authorized to send .. behalf", "arc .. fail*",
    ),
    rule(
        "not-rfc-compliant", "not-rfc-compliant", "550 5.7.1 This message is not RFC 5322 compliant",
        "not .. rfc .. compliant/conform*/complian*", "rfc 5322/2822/822 .. not/violation/noncompliant/non/spec*", "not rfc .. compliant", "non rfc .. compliant", "rfcmessagenoncompliant", "not conform* .. rfc", "violates rfc",
        "multiple/duplicate/missing .. from/subject/date/to/message .. header/headers", "header/headers are/is? multiple/duplicate/missing", "multiple addresses in from", "multiple subject/from/to/date headers",
        "missing .. from/date/message header/headers", "missing message id", "no date/from/message header", "bare lf/cr/linefeed*/newline*", "stray newline*", "from header .. missing/invalid/blank/malformed",
        "blank from addresses", "ip addresses are not allowed as a from", "message must be rfc", "messages without .. from/date header/headers", "malformed header/headers .. rfc",
        "headers .. not .. compliant", "mail .. not .. rfc", "non compliant",
    ),
)  # fmt: skip

STANDING = (
    rule(
        "missing-ptr", "missing-ptr", "550 5.7.25 The IP address sending this message does not have a PTR record",
        "ptr", "ptr* record/records", "reverse dns/lookup/hostname/name/resolution/mapping/record", "rdns/fcrdns", "ip name lookup failed", "cannot/unable/could .. resolve/find your helo/ehlo/ip/host/hostname/reverse/address",
        "unverifyable/unverifiable sending", "no/without/missing/invalid/lacks .. reverse", "mismatches client ip", "hostname .. mismatch", "forward confirmed", "cannot find your hostname/reverse", "does not resolve .. ip/host/hostname", "client host rejected cannot find",
        "reverso dns", "dns inverso", "resolution inverse", "unresolvable relay/client host", "generic/dynamic .. hostname/ptr/rdns", "反向解析",
    ),
    rule(
        "bad-reputation", "bad-reputation", "550 5.7.1 Rejected due to the very low reputation of the sending domain",
        "reputation", "senderscore/reputationauthority", "due to .. unexpected volume or user complaints", "user complaints", "high number/volume/rate of? complaints",
    ),
    rule(
        "provider-blocked", "blocked", "550 5.7.606 Access denied, banned sending IP [192.0.2.1]",
        "banned sending/sender/ip", "sending/sender ip .. banned/blocked/denied/rejected", "part of their network is on our block list", "s3140/s3150", "aup cdrbl", "too many unwanted messages",
        "sc 001/002/003/004", "dy 001", "ou 001/002", "bl21/bl23/tss07/tss09/tss11", "permanently deferred", "rly bl/b2", "con b1/b2", "rtr bl/sc/bb/du", "hvu b1/b2", "dns blacklist",
    ),
    rule(
        "blocked-list", "blocked", "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org",
        "spamhaus/spamcop/sorbs/barracuda/barracudacentral/barracudanetworks/abuseat/invaluement/ivmsip/hostkarma/spamrl/uceprotect/dnsbl/dnsbls/rbl/rbls/drbl/nixspam/mailspike/abusix/spamrats/psbl/manitu/njabl/blocklist/blocklisted/blocklisting/csi",
        "blacklist/blacklists/denylist/denylisted/blacklistis/blackholed", "black/block/deny list/listed/lists/listing", "real time/realtime block/blackhole/black list", "mail abuse", "ipcheck proofpoint", "symantec zodiac", "listed at/in/on/by .. org/net/com/list/database",
        "client/host/server/ip/address/connection/message/mail/email blocked using/by", "found in .. xbl/sbl/pbl/dnsbl/list/listing", "your/sender/sending/client ip .. blacklisted", "is blacklisted", "ip blacklisted", "blacklisted by/at/in/on", "is .. listed .. http/https/see",
        "problem occurred ... bl", "schwarze/schwarzen liste", "liste noire", "lista negra/nera", "zwarte lijst", "kara liste*", "czarn* list*", "черный/черном/черного список/списке/списка", "黑名单", "ブラックリスト", "in/on lista", "symantec .. reputation", "cloudmark",
    ),
    rule(
        "blocked-by-name", "blocked", "501 5.0.0 Invalid domain name in HELO",
        "my name was rejected", "helo/ehlo .. invalid/rejected/rejet*/refused/denied/wrong/unknown/bad/require*/exist", "helo/ehlo name/host/hostname/argument/command? is? not", "invalid/bad/wrong/unknown/unresolvable/nonexistent .. helo/ehlo", "invalid domain name",
        "ip .. sending mail of/from/for domain", "client host rejected access denied", "refused to talk to me .. service/not/refused/denied/blocked/rejected/go",
    ),
    rule(
        "gave-up", "expired", "451 4.4.7 Connection refused. Message could not be delivered for 5 days",
        # whatever the last try met: the time is over
        "not be? delivered for/within/in .. days/hours/day", "deleted/removed from the? queue", "queue lifetime/time exceeded/expired",
    ),
    rule(
        "blocked-address", "blocked", "554 5.7.1 Your server is not allowed to connect",
        "not allowed to connect", "banned", "bad ip", "ip/ips/host/server/network/client/connection/connections/connecting/adresse .. blocked/denied/banned/refused/bloque*/gesperrt/bloccat*/zablok*/refuse/blockiert/geblokkeerd",
        "your/sending/source/client ip/host/server/access/network/address .. block*/reject*/deni*/refus*/spam*/bann*/prohibit*/restrict*", "ip/ips/address/adresse/client/server/host .. abuse/abusive/spammer/zombie/dynamic/suspicious", "your ip", "client host rejected",
        "connection/connections .. not accepted/permitted/allowed", "connections will not be accepted", "connection refused/dropped/rejected/reset", "access to this mail/email/system/server .. rejected/denied", "access to submit messages", "currently sending spam", "you are sending spam",
        f"{IP} .. blocked/rejected/listed/denied/refused/banned/found/blacklisted", f"from {IP} .. refused/rejected/denied/not", "recipients .. blocked", "no access from", "dynamic ip/ips/address/addresses/pool", "geoip/geographic/geographical/country .. blocked/filter/denied/location/based", "based on geographical/country", "blocked/banned country/region", "bloquee pour incident", "rejecting open proxy", "open relay/proxy", "spam source",
        "mail/messages/email/message from .. ip/server/host .. not accepted/allowed/permitted/rejected/blocked/refused", "messages from .. werent sent", "not currently accepting mail from your", "banni/bannie", "ldap .. blocked", "blocked for abuse/spam",
        "was blocked by", "go away", "ip is/was/has .. blocked/denied/rejected/banned/listed", "blocked see http/https", "ip in/on our/the .. list", "ip地址", "IP被",
    ),
)  # fmt: skip

PAGES = (
    # what two French providers write behind their words, with a number that they document
    rule("orange-102", "blocked", "550 mx ME Adresse IP source bloquee. Client host blocked. OFR006_102", "ofr/lpn/ofr*/lpn*/ouk 102/103/510/999/401"),
    rule("orange-403", "bad-sender", "501 5.0.1 Emetteur invalide. Invalid Sender. OFR004_403", "ofr/lpn/ofr*/lpn*/ouk 403/405/415/421", "emetteur invalide", "mail from not owned"),
    rule("orange-506", "spam-detected", "550 5.2.0 Mail rejete. Mail rejected. OFR_506", "ofr/lpn/ofr*/lpn*/ouk 506/515/517/518/519", "mail rejete"),
    rule("orange-420", "suspended", "550 5.5.0 Boite archivee. Archived recipient. LPN_420", "ofr/lpn/ofr*/lpn*/ouk 420/426"),
    rule("orange-505", "system-error", "421 4.2.0 Service refuse. Veuillez essayer plus tard. OFR_505", "ofr/lpn/ofr*/lpn*/ouk 505"),
    rule("orange-402", "security", "550 5.5.0 Authentification requise. LPN105_402", "ofr/lpn/ofr*/lpn*/ouk 305/402", "authentification requise/invalide"),
    rule("orange-630", "policy", "554 5.7.1 Client host rejected LPN000_630", "ofr/lpn/ofr*/lpn*/ouk 630"),
    rule("orange-416", "user-unknown", "550 5.1.1 Adresse d au moins un destinataire invalide. OFR_416", "ofr/lpn/ofr*/lpn*/ouk 416/418"),
    rule("orange-417", "mailbox-full", "552 5.1.1 Boite du destinataire pleine. OFR_417", "ofr/lpn/ofr*/lpn*/ouk 417"),
    rule("orange-104", "too-many-connections", "421 ME Trop de connexions. OFR005_104", "ofr/lpn/ofr*/lpn*/ouk 104"),
    rule("orange-514", "message-too-big", "552 5.2.3 Taille limite du message atteinte. OFR_514", "ofr/lpn/ofr*/lpn*/ouk 514", "taille limite du message"),
    # what a US cable provider documents: AUP#I-1310 and the like
    rule("aup-connections", "too-many-connections", "421 4.1.0 sender rejected. AUP#In-1310", "aup .. 1300/1310/1320/1330/1340"),
    rule("aup-rate", "rate-limited", "421 4.1.0 sender rejected. AUP#In-1400", "aup .. 1350/1360/1370/1380/1390/1400/1410/1420/1430/1440/1450/1460/1470/1480/1490/1540/1550/1580"),
    rule("aup-ptr", "missing-ptr", "421 4.1.0 sender rejected. AUP#In-1110", "aup .. 1100/1110/1120/1130/1140/1150"),
    rule("aup-policy", "policy", "550 5.1.0 sender rejected. AUP#In-1170", "aup .. 1160/1170/1180/1190/1560"),
    rule("aup-sender", "bad-sender", "550 5.1.0 sender rejected. AUP#O-1500", "aup .. 1010/1020/1030/1040/1050/1060/1070/1080/1500/1510/1520", "aup cxsndr/dnssndr"),
    rule("aup-blocked", "blocked", "550 5.1.0 <b@example.com> sender rejected. AUP#In-1220", "aup"),
)  # fmt: skip
