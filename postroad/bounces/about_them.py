"""Rules for what is about the recipient: the mailbox, its owner's wishes, its domain."""

from postroad.bounces.rules import rule
from postroad.bounces.words import ADDRESS, NAMELESS

STATE = (
    rule("inactive-address", "user-unknown", "550 5.1.1 <u@example.com>: inactive email address", "inactive email address", status="1.1", sure=True),
    rule("system-full", "system-full", "452 4.3.1 Insufficient system storage", "insufficient .. system storage/resources/disk", "mail system full", "no space left", "disk full", "filesystem/file system is? full", "insufficient disk"),
    rule("long-message", "message-too-big", "552 5.2.3 Message length exceeds administrative limit", "message/mail/email/attachment length/size exceed*"),
    rule("on-hold", "undetermined", "550 Recipient address rejected: On hold", "rejected on hold", "is/was/been/put/placed on hold"),
    rule(
        "malformed-header", "content", "552 5.6.0 Headers too large (32768 max)", "header/headers too large/long/big", "header size",
    ),
    rule("potential-danger", "policy", "552 5.7.0 This message was blocked because its content presents a potential security issue", "content presents a potential", "potential security issue", "policy/policies reasons/reason/violation", "for policy"),
    rule(
        "mailer-program", "mailer-error", "550 procmail: Could not create the mailbox", "procmail/maildrop/vdelivermail", "pipe to", "command died/failed/output", "died with status", "exit status", "couldnt create",
    ),
    rule(
        "mailbox-full", "mailbox-full", "552 5.2.2 The email account that you tried to reach is over quota",
        "mailbox/box/inbox/quota/account/storage/user/recipient/recipients/maildrop/mailfolder is/are/has/was? .. full/exceeded/exceeds/overquota/over/exhausted",
        "mailbox/inbox/account/recipient/user full/overfull", "quota .. exceeded/violation/violated/limit/full/reached/overdrawn/exhausted", "over/exceed*/above/beyond .. quota/storage/allocation/disk", "overquota*/overquotaperm/mailboxfull/quotaexceeded",
        "mailbox/inbox/account/recipient/user .. exceed* .. size/limit/storage/quota/space/allowed", "out of storage/disk/space/quota", "insufficient .. storage/space/disk .. user/recipient/mailbox/available", "not enough/no storage/space/room .. mailbox/account/user/recipient/inbox/left/disk", "not enough disk/mailbox/storage? space/quota",
        "mailbox/account/inbox .. size limit", "mail/disk/storage quota", "too much mail data", "mailbox .. limit .. exceeded/exeeded/reached", "mailbox .. too large/big", "account storage limit", "space limit .. exceeded/reached", "over the? maximum allowed", "blocks/inode limit exceeded",
        "postfach .. voll/uberfullt/limit/quota", "mailbox .. voll/vol", "speicherplatz .. erschopft/uberschritten/voll", "boite .. pleine/saturee", "boite .. quota", "quota .. depasse*", "buzon/casilla/bandeja .. lleno/llena/llen*/excedid*", "cuota .. excedid*/superad*", "casella .. piena/esaurit*", "quota .. superat*",
        "caixa .. cheia/lotada", "cota .. excedida", "postvak .. vol", "skrzynk* .. jest? pelna/przepeln*/zapeln*", "przekroczon* .. limit/quot*/pojemn*", "ящик* .. переполнен*/полон", "переполнен*", "превышен* .. квот*/лимит*/размер", "posta kutusu .. dolu", "kota* .. asild*/dolu/dolmus*", "邮箱已满", "空间不足", "邮箱空间", "信箱已滿", "容量超過", "容量オーバー", "一杯です", "いっぱい",
    ),
    rule(
        "message-too-big", "message-too-big", "552 5.3.4 This message is larger than the current system limit",
        "message/mail/email/size/attachment/attachments/content/length/data/body size/is/was/too? too? big/large/long", "message .. is too big/large/long", "message/mail/email/size/attachment/attachments/length .. exceed* .. size/limit/limits/maximum/max", "max/maximum .. message/mail/email size/length", "size/length .. exceeds/exceeded/larger/bigger/greater/over", "size limit",
        "message/mail/email .. larger/bigger/greater than", "larger/bigger than .. allowed/limit/maximum/current/fixed", "line/data limit exceeded", "line too long", "exceed* .. message/maximum/max .. size/length", "too large .. message/mail/email", "limits? .. message size", "message/mail/email size/length",
        "nachricht/mail .. zu gross/groß", "message .. trop volumineux/gros/grand/lourd", "mensaje .. demasiado grande", "tamano .. excede/maximo/superad*", "messaggio .. troppo grande", "mensagem .. muito grande", "bericht .. te groot", "слишком больш*", "boyut* .. asiyor/buyuk", "邮件太大", "邮件大小", "サイズ", "wiadomosc .. duza",
    ),
    rule(
        "spam-detected", "spam-detected", "554 5.7.1 This message looks like spam to our filter",
        "spam/spammy/spams/spamassassin/ube/uce/junk/junkmail/spamtext/rspamd/spamdetected", "bulk mail/email/message", "unsolicited", "phish*", "content .. rejected/blocked/filter*/denied/restrict*/refused/inappropriate/prohibited/unacceptable", "rejected/refused/blocked/denied .. content/contents", "suspicious .. message/mail/content/email", "message .. suspicious", "likely suspicious",
        "high/spam probability/score", "looks like .. spam/junk/bulk", "unerwunscht*", "courrier indesirable", "indesirable*", "correo no deseado", "no deseado", "indesiderat*", "ongewenst*", "niechcian*", "спам/спама/спамом/спаме", "istenmeyen", "垃圾邮件", "垃圾郵件", "迷惑メール", "スパム", "cm analyze/bayes", "identified .. as? bulk/junk/advert*", "advertis* .. mail/content",
    ),
    rule(
        "moved", "moved", "551 5.1.6 The recipient has moved, no forwarding address",
        "has/have moved", "recipient/user/mailbox/address .. moved to/elsewhere/no", "no longer on/at/with .. server/company/organi*/us/here", "not our user", "has a new address", "address/email/e/mail has changed", "address .. changed to", "forwarding address", "left the company/organi*/university", "gone away", "user not local please try", "user has left", "nouvelle adresse", "neue adresse", "nueva direccion", "nuovo indirizzo", "been replaced by",
        "адрес .. изменил*/сменил*",
    ),
    rule(
        "suspended", "suspended", "550 5.2.1 The email account that you tried to reach is disabled",
        "account/mailbox/user/users/recipient/address/accounts/box/email/domain .. disabled/inactive/suspended/deactivated/locked/frozen/discontinued/terminated/blocked/dormant/unactive/archived/onhold/disactivated",
        "inactive/disabled/suspended/deactivated/locked/expired/frozen/blocked/dormant/archived/closed account/mailbox/user/recipient/address/email/box", "account/mailbox/user/address/recipient .. not active/activated", "account/mailbox/user/address .. expired/closed/cancelled/canceled/removed/deleted",
        "account/mailbox/user/address/recipient/email .. no longer active/available/valid/use/used/accepts/accepting/accepted/monitored/exists", "is no longer valid", "disableduser", "tried to reach is disabled/inactive/suspended", "mailbox currently suspended", "unpaid/unpayed", "temporary/temporarily locked/disabled", "suspend the service",
        "invalid inactive user", "konto .. gesperrt/deaktiviert/inaktiv", "postfach .. gesperrt/deaktiviert/inaktiv", "compte .. bloque/desactive/suspendu/ferme/inactif", "boite .. desactivee/archivee/inactive/bloquee/fermee/suspendue", "cuenta .. suspendida/deshabilitada/desactivada/bloqueada/inactiva/cancelada", "buzon .. deshabilitado/inactivo/bloqueado", "account .. disattivat*/sospes*/disabilitat*", "casella .. disattivat*/disabilitat*/sospes*",
        "conta .. desativada/suspensa/bloqueada/inativa", "konto .. zablokowane/nieaktywne/zawieszone", "account .. geblokkeerd/gedeactiveerd", "ящик* .. заблокирован*/отключен*/неактив*/заморожен*", "аккаунт* .. заблокирован*/отключен*/удален*", "hesap/hesab* .. kapali/askiya/devre/pasif", "账号被", "账户已停用", "已停用", "已禁用", "被冻结", "邮箱被", "無効になって", "停止されて", "利用停止",
    ),
)  # fmt: skip

WISHES = (
    rule(
        "suppressed", "suppressed", "550 5.1.1 The recipient is on the account suppression list", "suppression list", "suppressionlist", "bounce/bounced list", "previously bounced", "address is? suppressed", "dropped due to .. bounce",
    ),
    rule(
        "filtered", "filtered", "550 5.2.0 Message filtered by the recipient",
        "message filtered", "user rules", "rejected/blocked/refused by .. user/recipient/recipients/addressee/owner", "recipient/user/recipients refuses/refuse/reject/rejects/refused/declined/blocked", "recipient preferences", "only accepting/accepts mail/email/messages from", "protected by .. challenge/filter", "account is protected", "not accepting any mail/email/messages", "blocked by the recipient", "recipient .. on .. bypass/white list", "recipient .. restricted .. mail",
        "you are not on .. recipient* .. list", "user reject", "header error", "not found recipient account", "受信拒否", "拒收",
    ),
    rule(
        "group-closed", "bad-sender", "550 5.7.1 The group may not exist, or you may not post messages to it",
        "groups google com support", "permission to post", "group .. may not exist", "grupo .. exist*/publicar/permisos/permissao", "groupe .. existe/autorise/publier", "gruppe .. existiert/berechtig*", "gruppo .. esist*/autorizz*/pubblicare", "groep .. bestaat", "grupa .. istniej*/uprawnie*", "групп* .. существует/разрешен*/публик*", "grup .. olmayabilir/izniniz", "ομαδα* .. υπαρχει/δημοσιευσ*/μην", "群組", "群组", "グループ", "그룹", "المجموعة", "گروه", "הקבוצה", "קבוצה", "समूह", "กลุ่ม", "not .. member of? .. list/group", "non member .. list", "closed/moderated/members mailing/only list", "not .. subscribed to .. group/list", "allowed to post", "only members/subscribers .. post/send", "not .. permitted .. post", "sender not pre approved", "delivery to this group/list .. restricted", "restrict* .. authenticated/internal senders",
    ),
)  # fmt: skip

PLACE = (
    rule(
        "relay-denied", "relay-denied", "554 5.7.1 <user@example.com>: Relay access denied",
        # soft: a domain moved to a new host with an old MX record says so for every recipient
        "relay/relaying .. denied/prohibited/permitted/allowed/accepted/disallowed/refused/rejected/forbidden/verboten/interdit", "unable/cannot/not/permitted/configured .. relay", "does/do/dont/doesnt/wont/will .. relay", "rcpthosts", "we do not relay", "not a gateway", "not a local host/domain", "allowed .. relay", "no relaying/relay", "insecure mail relay", "relay .. not", "relaying", "refus* .. relay*",
        "email address is not verified", "not a local domain", "not .. hosted/handled/served here", "not hosted/local/handled on/to? this server/host", "weiterleitung .. verboten/erlaubt/gestattet", "relais .. refuse/interdit", "reenvio .. denegado/permitido", "domain .. not .. hosted/configured/handled .. here/server", "mail for .. not accepted here", "domain isnt/not .. my list", "we dont handle mail for", "gatewaying",
    ),
    rule("not-from-you", "bad-sender", "550 This server does not accept mail from that address", "accept/accepts/accepting/receive mail/email/e/messages/mails? mail? from"),
    rule(
        "null-mx", "null-mx", "556 5.1.10 The recipient's domain takes no mail (null MX)",
        "null mx", "host/domain/server/system/site does/do not accept/receive mail/email/messages/any", "doesnt/dont/not receive/accept/accepts mail/email according/domain", "no mx found/for/record*", "not accept mail", "takes no mail", "does not accept mail", "not .. accepting .. mail/email/messages for domain", "does not receive email", "nullmx",
        "malformed or unexpected name server reply",
    ),
    rule("credentials", "security", "550 Unauthenticated senders not allowed", "unauthenticated senders", "smtp authentication", "authentication required/credentials/needed", "must authenticate"),
    rule(
        "sender-unknown", "bad-sender", "553 5.1.0 example.com does not exist (in reply to MAIL FROM command)",
        "does not exist", "not/doesnt found/exist/resolve", "unknown/unroutable/invalid/denied/rejected/refused", phase="mail",
    ),
    rule(
        "bad-sender", "bad-sender", "550 5.1.0 <b-1@bounce.example.com>: Sender address rejected: Domain not found",
        "sender/senders address/domain/email/e/mail? .. reject*/invalid/unknown/not/does/refused/unverif*/denied/verify/cannot/no/must/blocked/nonexist*", "sender rejected/denied/refused/verify/verification/unknown/invalid/blocked/not", "mail/envelope from/sender .. invalid/rejected/refused/not/unknown/denied/isnt/exist",
        "invalid/bad/unroutable/unrouteable/unknown/null/empty/blank envelope? sender/senders/from/return", "domain of sender", "sender .. no/has mx/a/aaaa", "return path .. invalid/not/rejected", "purported responsible address", "from domain .. invalid/not/must", "from .. domain is invalid", "cannot resolve .. domain of? .. sender",
        "sending .. from a different address", "send mail as", "address that has been blacklisted", "sender .. blacklisted/spammer", "sender* email .. blocked", "backscatter", "bounce address tag", "unresolvable .. from domain", "sendernoa/badsendermx/senderfilterconfig", "absender* .. ungultig/abgelehnt/unbekannt/existiert", "expediteur .. invalide/refuse/inconnu/rejete", "remitente .. invalido/rechazado/desconocido/denegado", "mittente .. non/rifiutato/sconosciuto", "remetente .. invalido/rejeitado", "afzender .. ongeldig/geweigerd", "nadawc* .. odrzuc*/nieznan*/nieprawid*", "отправител* .. отклон*/не/неизвест*/запрещ*", "gonderen .. reddedildi/gecersiz", "发件人", "发信人", "送信者", "callout verification failed", "verification failed .. sender", "verify sender", "not a registered gateway user", "return address/path .. not/does/doesnt/unknown/unverif*/cannot/nonexist*/refused", "verify your/return/envelope/from", "callback/callout .. fail*/setup/verif*/said", "while verifying", "sender verification/check", "your .. domain/address does/is/has/cannot not/no/unknown/invalid/be", "unknown/invalid user/address/domain in from", "from header/field/domain/address .. unknown/exist/no/not/invalid/found", "absenderdomain/absenderadresse .. existiert/unbekannt/ungultig", "adresse de? retour .. inexistante/invalide/inconnue/existe", "差出人", "送信元", "発信者",
    ),
    rule(
        "dns-error", "network", "550 DNS error when resolving MX server for example.com",
        "dns/mx/nameserver/resolver error/errors/failure/failed/timeout/timed", "dns lookup failed/failure try", "name service error ... try again", "host not found try again", "temporary lookup failure", "temporary .. dns/resolution/lookup", "server failure .. dns", "no relevant answers",
    ),
    rule(
        "no-route", "host-unknown", "550 The account or domain may not exist, or it is missing the proper dns entries", "missing the proper dns", sure=True,
    ),
    rule(
        "host-unknown", "host-unknown", "550 5.1.2 Bad destination host: no such domain",
        "host/domain/system or/name? domain/name? name? is? not/doesnt found/exist/known/valid/resolve", "host/domain name? is unknown/invalid/nonexist*/unresolvable", "host/domain unknown", "host/domain/hostname .. not found", "domain does not exist", "domain doesnt exist", "unknown/no/invalid/bad/illegal/nonexistent/unresolvable such/destination/mail? host/domain/system/hostname", "no such domain/host/server", "dns lookup failure .. not found", "bad destination system", "domain is not reachable", "unknown mail host", "host not found", "nxdomain",
        "domane/domain .. existiert/unbekannt", "domaine .. inexistant/existe/inconnu/introuvable", "dominio .. existe/encontrado/inexistente/desconocido/esiste/trovato", "domeny .. istnieje/znaleziono", "домен* .. существует/найден*", "alan adi .. bulunamadi", "域名不存在", "ドメイン",
    ),
)  # fmt: skip

PERSON = (
    rule(
        "no-such-address", "user-unknown", "550 5.4.1 Recipient address rejected: Access denied. [ABC.prod.protection.outlook.com]",
        "recipient address rejected access denied", status="4.1", sure=True,  # Exchange Online, of an address that its directory lacks
    ),
    rule(
        "filter-after-data", "filtered", "550 : User unknown (in reply to end of DATA command)",
        # RCPT was taken, so the mailbox is there: carriers say so for what their customer's filter refuses
        "unknown/no/invalid/bad such? user/recipient/mailbox/address/account", "user/recipient/mailbox/address/account .. unknown/unavailable/invalid/found/exist",
        status="- 0. 2. 3. 7.", phase="data",
    ),
    rule(
        "filter-by-code", "filtered", "550 5.2.1 <user@example.jp>... User Unknown",
        # the code says that there is a mailbox, the words that there is none
        "unknown/no such? user", "user/recipient unknown", status="2.0 2.1 7.1", phase="- data",
    ),
    rule(
        "filter-nameless", "filtered", "550 : User unknown",
        # no name before it: said of a message, not of a RCPT
        f"{NAMELESS} user unknown", status="- 0. 1.351", phase="- data",
    ),
    rule("carrier-filter", "filtered", "550 Unknown user taro@docomo.ne.jp", "unknown user", status="- 0. 2. 3.", site="docomo.ne.jp", phase="- data"),
    rule(
        "filter-unsaid", "filtered", "550 Requested action not taken: mailbox unavailable",
        # no code and no command told: carriers and gateways say so at the end of DATA, and RFC 5321 4.2.2 means a policy too
        f"unknown user {ADDRESS}", "action not taken mailbox unavailable", status="-", phase="-",
    ),
    rule(
        "user-unknown", "user-unknown", "550 5.1.1 <nobody@example.com>: Recipient address rejected: User unknown in virtual mailbox table",
        "user/recipient/mailbox/address/account/alias/addressee/person/party/box/users/id/username/customer/member/name .. unknown/unavailable/nonexist*/undeliverable/unrecognized/unknow/inexist*/unroutable/unrouteable/unresolv*/notfound",
        "user/recipient/mailbox/address/account/alias/addressee/person/box/username/rcpt .. not/never/isnt/wasnt/cannot/doesnt/couldnt be? found/exist/exists/valid/known/listed/local/recognized/existed/present/deliverable/existing",
        "user/recipient/mailbox/address/account/alias/email/person/rcpt does/did not exist", "does/doesnt/did not? exist", "doesnt have .. account", "dont have .. account", "no such .. user/recipient/mailbox/address/account/person/destination/addressee/member/customer/username/id/name", "no/non existent/existing/valid/local user/recipient/mailbox/address/account/recipients", "no user/users/account/recipient/mailbox/id", "not a? valid/known/local/real/existing user/mailbox/recipient/address/account/email",
        "unknown/invalid/bad/nonexistent/nonexisting/undeliverable/illegal/incorrect/wrong/unroutable/unrouteable/unrecognized/undefined or/destination? or/illegal/invalid/unknown? local/mailbox/virtual/email/e/mail? user/recipient/mailbox/address/account/person/destination/alias/recipients/rcpt/users/addresses", "unknown/invalid/illegal/bad/nonexistent local part", "unknown/invalid/illegal/bad/wrong user/recipient/mailbox/box/account/login name", "user/recipient/mailbox/box/account/userid/login name/id .. not/isnt/invalid/unknown",
        "5 1 0 address rejected", "recipient address rejected user", "no mail box", "not our customer", "recipientnotfound/recipnotfound/nosuchuser/badrcptto", "mailbox not .. allowed/available", "mailbox name not allowed/invalid", "address/recipient/mailbox/user is? invalid", "no valid recipients were", "inactive email address", "address .. couldnt be found", "not listed in .. book/directory", "address book", "name directory", "cannot/cant .. accept/deliver .. user/mail for", "check .. address is correct", "check the .. address", "wrong address", "does not like recipient .. unknown/user", "mailbox unavailable", "user is unknown", "no one .. this/that address", "recipient/user/address is? not in my/our/the? .. list/table/directory/database/validrcptto",
    ),
    rule(
        "user-unknown-abroad", "user-unknown", "550 5.1.1 Adresse d au moins un destinataire invalide",
        "empfanger*/empfaenger* .. unbekannt/existiert/gefunden/ungultig/ungueltig/nicht/unzustellbar", "empfangeradresse/empfaengeradresse unbekannt/ungultig/ungueltig", "benutzer .. unbekannt/existiert/gefunden/nicht", "adresse .. unbekannt/existiert/ungultig", "konto .. existiert/unbekannt/gefunden", "unbekannte/unbekannter empfanger/benutzer/adresse", "postfach .. existiert/unbekannt/gefunden", "kein .. postfach/benutzer", "teilnehmer .. unbekannt",
        "destinataire .. inconnu*/invalide/inexistant/existe", "utilisateur .. inconnu*/existe/inexistant", "adresse .. invalide/inexistante/existe/inconnue/introuvable", "boite .. existe/inexistante/inconnue/introuvable", "aucun .. destinataire/utilisateur/boite", "compte .. inexistant/existe/inconnu",
        "usuario .. desconocido/existe/encontrado/inexistente/invalido/desconhecido/nao", "destinatario .. desconocido/existe/invalido/inexistente/sconosciuto/inesistente/esiste/valido/desconhecido/encontrado", "direccion .. existe/invalida/desconocida/encontrada/incorrecta", "cuenta/casilla/buzon .. existe/inexistente/encontrada", "no existe .. usuario/persona/cuenta/destinatario/buzon/direccion",
        "utente .. sconosciuto/inesistente/esiste/trovato", "indirizzo .. inesistente/esiste/valido/sconosciuto/errato", "casella .. inesistente/esiste", "caixa .. inexistente/existe", "endereco .. inexistente/existe/invalido/encontrado", "conta .. existe/inexistente/encontrada", "gebruiker .. onbekend/bestaat/gevonden/niet", "onbekende gebruiker/ontvanger/geadresseerde", "geadresseerde .. onbekend/bestaat", "ontvanger .. onbekend/bestaat", "adres .. onbekend/bestaat",
        "takiego uzytkownika/adresu/konta", "kullanici yok", "uzytkownik* .. nieznany/istnieje/znalezion*/nie", "odbiorc* .. nieznany/istnieje/nie", "nieznany/nieznana uzytkownik/odbiorca/adresat/skrzynka", "skrzynk* .. istnieje", "adres .. istnieje/nieprawidlow*", "konto .. istnieje", "пользовател* .. не/неизвест*/найден", "получател* .. не/неизвест*/найден", "нет такого/такой .. пользовател*/ящик*/адрес*", "ящик* .. не/существует/найден", "адрес* .. не/существует/найден", "такого пользовател*",
        "kullanici .. bulunamadi/yok/bilinmiyor/gecersiz/tanimli", "alici .. bulunamadi/yok/gecersiz/bilinmiyor", "adres* .. bulunamadi/gecersiz/yok", "hesap .. bulunamadi/yok", "bruker/anvandare/bruger/kayttaja .. ukjent/okand/ukendt/tuntematon", "okand mottagare", "neznamy .. uzivatel/prijemce", "uzivatel .. neexistuje/neznamy", "schranka .. neexistuje", "nincs ilyen", "ismeretlen cimzett/felhasznalo",
        "用户不存在", "用戶不存在", "收件人不存在", "无此用户", "地址不存在", "邮箱不存在", "帐号不存在", "账号不存在", "找不到", "使用者不存在", "収信人", "存在しません", "宛先不明", "見つかりません", "ユーザーが見つ", "ユーザは存在", "存在しない", "あて先", "宛先が",
    ),
)  # fmt: skip
