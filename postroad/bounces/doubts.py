"""Words that leave it open whether the recipient is at fault: with one of them, no reply is hard.

A true "no such user" speaks of the recipient only. Who names the sender, its host, its domain, a check of it, another
time, a state that passes, or a fault of the system may mean those: a wrong doubt costs a mail to a dead address, a wrong
certainty costs a customer. In the languages that hosts write in; `words.folded` has taken accents off.
"""

from __future__ import annotations

import re
from functools import cache

from postroad.bounces import about_them
from postroad.bounces.reasons import REASONS
from postroad.bounces.rules import pattern
from postroad.bounces.words import ADDRESS, IP, NAMELESS, folded, words_of


def _words(*texts: str) -> frozenset[str]:
    return frozenset(word for text in texts for word in text.split())


WORDS = _words(
    # refusals that are about us or about the mail
    "spam policy policies reputation dmarc dkim spf rate throttled throttling unauthenticated authentication",
    "spamhaus banned whitelist whitelisted",
    "tls denied allowed permitted authorized authorised unauthorized unverified restricted permission",
    "permissions rbl dnsbl dbl spamtrap bulk junk",
    "unsolicited virus malware phishing relay relaying external externen externe externes externos externas",
    # who sends, and what is looked at of it
    "helo ehlo ptr rdns fcrdns sender senders sending mailfrom returnpath header headers callout callback",
    "backscatter bounce bounces",
    "expediteur expediteurs emetteur emetteurs отправитель отправителя отправителю отправителем отправителе",
    "gonderen gonderici gonderenin",
    "kopfzeile kopfzeilen cabecera encabezado cabecalho verification verificacion verificacao retorno",
    "originator originators originating originate author authors submitter submitting submitted replyto errorsto",
    "cc bcc",
    "login logon password passwd credential credentials auth authenticate authenticated sasl certificate",
    "greeting identity",
    # an attack, a filter
    "attack attacks harvest harvesting dictionary abuse abusive suspected suspicious classified advertising",
    "advertisement advert filter filters filtered",
    "attachment untrusted fraud scam trap angriff missbrauch werbung filtre filtro",
    # another time, a state that passes
    "currently momentarily presently yet today tomorrow hour hours minute minutes seconds delayed delay",
    "migration migrating migrated elsewhere",
    "derzeit zurzeit momentan morgen stunden minuten actuellement heure heures demain actualmente ahora todavia",
    "horas minutos atualmente ainda agora",
    "attualmente ancora ore minuti momenteel сейчас пока",
    "later soon queued deferred busy overloaded overload timeout timed maintenance full overquota quota limit",
    "limits limited exceeded exceeds disabled",
    "inactive suspended locked deactivated frozen expired dormant",
    "wait mistake misconfigured misconfiguration configuration unsubscribe origen origem spater spaeter",
    "voruebergehend moment voll deaktiviert gesperrt tard ulterieurement plein pleine desactive suspendu tarde",
    "tardi lleno llena cuota cota cheia cheio piena pieno",
    "tijdelijk vol pozniej tymczasowo позже позднее временно временная переполнен заблокирован отключен sonra",
    "gecici dolu",
    # guesses
    "maybe perhaps possibly eventuell moglicherweise vielleicht forse talvez quiza quizas",
)
# words that begin so, by the five letters that `words.key` takes
BEGINNINGS = _words(
    "block black grayl greyl tempo retri absen remit remet mitte afzen nadaw ruckw ruckr vorub konti bloqu geblo"
)
# "try again" is doubt, unless it is advice to look at the address first
AGAIN = _words(
    "again retry retrying erneut reessayer reessayez reintente reintentar intente intentelo novamente",
    "riprova riprovare ponownie opnieuw повторите 再度 再送",
)
ADVICE = _words(
    "check checking doublecheck verify verifying correct confirm spelling typo typos prufen uberprufen verifier verifiez verifique",
    "compruebe revise confira controllare controlla controleer sprawdz проверьте",
)
# by a word that the phrase begins with
PHRASES = {
    "your": ("your own? sending? mail? email? e? from? envelope? return? dns? domain/domains/host/hosts/hostname/ip/ips/server/servers/network/mailserver/provider/account/isp/system",
             "your return/own/email/mail/from/envelope/e? mail? address", "your links/link/urls/url"),
    "ihr": ("ihr mail/e? mail? server/host/hostname/mailserver/rechner/provider/konto/netz",),
    "ihre": ("ihre e? mail? domain/adresse/mailadresse/ip/domane",),
    "ihrem": ("ihrem server/host/mailserver/provider/netz",),
    "ihrer": ("ihrer e? mail? domain/adresse/ip/domane",),
    "ihres": ("ihres servers/hosts/mailservers/rechners",),
    "votre": ("votre nom? de? domaine/serveur/hote/adresse/ip/compte/fournisseur",),
    "su": ("su dominio/servidor/host/direccion/ip/nombre/cuenta/proveedor",),
    "tu": ("tu dominio/servidor/host/direccion/ip/cuenta",),
    "seu": ("seu dominio/servidor/host/endereco/ip/provedor",),
    "suo": ("suo dominio/server/host/indirizzo/ip",),
    "vostro": ("vostro dominio/server/host/indirizzo/ip",),
    "uw": ("uw domein/server/host/adres/ip",),
    "ваш": ("ваш домен/сервер/адрес/хост/ip",),
    "вашего": ("вашего домена/сервера/адреса/хоста",),
    "from": ("from header/headers/address/domain/field/host/line/your/has/outside/internet",),
    "in": ("in the? from", "in your", "in the? mail"),
    "mail": ("mail from",),
    "envelope": ("envelope from",),
    "return": ("return path/address/envelope",),
    "adresse": ("adresse de? retour",),
    "en": ("en tete",),
    "while": ("while verifying/checking",),
    "reply": ("reply to adr/address/header/domain/field/is/does",),
    "errors": ("errors to",),
    "message": ("message id",),
    "link": ("link/links domain/domains/host",),
    "another": ("another mx/server/host/day/time",),
    "rfc": ("rfc .. check/violation/fail*/not",),
    "user": ("user agent", "user or bad? password"),
    "zur": ("zur zeit",),
    "noch": ("noch nicht",),
    "pas": ("pas encore",),
    "which": ("which you",),
    "you": ("you are using/sending/not/from/listed/sent", "you have sent", "you use/send", "you write/wrote from/as", "who? you are"),
    "who": ("who you",),
    "we": ("we require/need/want/could/cannot/check/checked/tried",),
    "may": ("may be/not/have",),
    "might": ("might be/not/have",),
    "peut": ("peut etre",),
    "lookup": ("lookup fail*/error/errors/timeout/timed/problem/unavailable",),
    "query": ("query fail*/error/timeout",),
    "ldap": ("ldap .. error/failure/failed/unavailable/timeout/down/unreachable",),
    "database": ("database .. error/failure/failed/unavailable/timeout/down/unreachable",),
    "directory": ("directory .. error/failure/failed/unavailable/timeout/down/unreachable",),
    "internal": ("internal error/use/failure", "internal server/system error"),
    "system": ("system error/failure/problem",),
    "server": ("server error/failure/problem",),
    "local": ("local error/problem/configuration",),
    "client": ("client host/ip/address/name",),
    "outside": ("outside the? world/senders/domain/organization/organisation/addresses/mail/company",),
    "recipient": ("recipient count/limit/number",),
    "recipients": ("recipients count/limit/number",),
    "too": ("too many/much/fast",),
}  # fmt: skip
# of scripts without blanks between words
LOOSE = (
    "送信者", "送信元", "差出人", "発信者", "発信元", "送信ドメイン", "送信サーバ", "ホスト名", "helo", "ehlo", "現在", "時間をおいて", "サーバ名", "返信先", "逆引き", "検証", "認証", "ヘッダ", "後で", "後ほど", "しばらく",
    "一時", "再試行", "迷惑", "スパム", "容量", "満杯", "いっぱい", "上限", "制限", "停止", "混雑", "外部",
    "发件", "发信", "寄件", "發件", "稍后", "稍後", "暂时", "暫時", "垃圾", "已满", "已滿", "反向", "频率", "限制", "禁用", "停用", "您的域名", "您的服务器", "验证失败",
    "발신", "보낸", "나중에", "일시", "스팸", "초과",
)  # fmt: skip

# What a plain "no such user" says besides the words of the rules: it adds nothing to them
PLAIN = _words(
    "a an the this that these those it its is are was were be been being has have had do does did can could cant cannot couldnt",
    "would will wont not no nor none and or of on at in to for by with as from here there there's any anymore more longer",
    "i im we our us my me you your they them he she his her their who whom which what when where if so but because since due",
    "following below above same other one ones again please kindly sorry hello hi dear thank thanks note regret afraid unfortunately",
    "see visit learn info information help details page read contact call ask look looking try tried trying reach reached",
    "check checking double verify confirm correct spelling spelled typo typos typed misspelled unnecessary spaces sure entered entry wrote write",
    "mail mails email emails e message messages msg letter sent send deliver delivered delivering delivery undeliverable undelivered return",
    "returned returning reject rejected rejecting refuse refused accept accepted bounced fail failed failure fails error errors err",
    "fatal permanent permanently action taken requested request said says answer authoritative reply response responded reason code status",
    "command data rcpt smtp esmtp lmtp recipient recipients rcptto user users account accounts mailbox mailboxes mbox box boxes",
    "address addresses alias name names person people individual customer member employee somebody anybody anyone nobody someone",
    "destination host hosts domain domains server servers system systems site local remote network organization organisation company",
    "department school university office web address list directory table database book postmaster administrator support internet",
    "known unknown exist exists existing existent existed nonexistent valid invalid illegal bad wrong incorrect found find located locate",
    "listed registered recognized recognised resolve resolved resolvable available unavailable created removed deleted gone left moved",
    "such use used using in-use aware able unable possible impossible temporary permanent mta mx mailhost dns lookup service type",
    f"{ADDRESS} {IP} {NAMELESS} relay verification sender senders back given giving site again retry resend update new virtual hosted",
    "giving up state stage transcript session while talking x dd br html http https www com net org",
    # German, French, Spanish, Portuguese, Italian, Dutch
    "der die das den dem des ein eine einen einer kein keine keinen ist sind war wurde wird nicht existiert konnte kann werden",
    "diese dieser dieses diesem bitte prufen uberprufen sie und senden erneut versuchen zuruck an absender bei auf dem mit unter im zu fur hier name namen adresse",
    "le la les l un une des du de d ce cet cette est sont n ne pas a ete pu peut etre sur au aux et en ici veuillez verifier verifiez reessayer reessayez retour expediteur lettres nom",
    "el los las una unos es son no se ha pudo puede ser en con por para del al y favor esa ese este esta fue sido encontrado devuelto remitente correo nombre",
    "o os as um uma nao foi pode do da no na em e por que il lo gli uno non stato stata questo questa di per con devolvido remetente postal correio mittente posta caixa casella",
    "het een deze dit niet kon bestaat op voor van en is",
)
# what a reply says of itself in brackets and quotes, a name in front of a colon or behind its noun, and names of hosts
_ASIDE = re.compile(
    r"https?://\S+|\((?:[^()\s]{1,40} ?){0,2}\)|\[[^\[\]]{0,80}\]|\"[^\"]{0,80}\"|<[^<>]{0,200}>|[^\s<>@]+@[\w.-]+"
    r"|^(?:\d{3}[ -])?(?:\d\.\d\.\d+ )?[\w.+-]{1,64}:(?= )"
    r"|\b[\w-]+(?:\.[\w-]+)+\b"
)


_NAMED = _words(
    "user mailbox recipient account alias part name named called for benutzer utilisateur usuario utente gebruiker"
)


@cache
def _vocabulary() -> tuple[frozenset[str], tuple[str, ...]]:
    """Words of the rules that make a reply hard, and beginnings of such."""
    words, beginnings = set(PLAIN), set()
    for rule in (*about_them.PLACE, *about_them.PERSON, *about_them.STATE, *about_them.WISHES):
        if REASONS[rule.reason].bounce_class == "hard":
            for word in folded(" ".join(rule.phrases)).replace("/", " ").split():
                if word.endswith("*") and len(word) > 4:
                    beginnings.add(word[:-1])
                else:
                    words.add(word.rstrip("?*"))
    return frozenset(words), tuple(beginnings)


def says_more(text: str) -> bool:
    """Whether a reply has words that a plain "no such user" does not need: what those mean, no list knows."""
    known, beginnings = _vocabulary()
    before = ""
    for word in words_of(_ASIDE.sub(" ", text)):
        plain = word in known or len(word) == 1 or not (word.isalpha() and word.isascii())
        if not (plain or before in _NAMED or word.startswith(beginnings)):
            return True
        before = word
    return False


# What names a sender or a check, and means the recipient's side, or no more than where the mail goes back to
_HARMLESS = re.compile(
    r" (?:relay (?:recipients?|ipadr) |your address(?= books? )"
    r"|(?:recipient|rcpt)s?(?: e?mail)?(?: address)? (?:callout |callback )?verification "
    r"|verification of (?:the )?(?:recipient|rcpt)"
    r"|(?:returned|returning|return|back|bounced|sent back) to (?:the )?senders? "
    r"|(?:retour(?:ne)?|renvoye) a l expediteur |(?:devuelto|devolvido) a[lo] (?:remitente|remetente) "
    r"|zuruck an (?:den )?absender "
    r"|dns lookup (?:failure|failed|error) (?=(?:destination )?(?:host|domain|nxdomain|no such) ))"
)
# What an MTA tells around the reply of the host that it asked about the sender: callouts, as Exim and others do them
_CHECK = re.compile(
    r"\bcall-?(?:back|out)|verification failed|while verifying|verifying <|sender verif"
    r"|(?:verify|verification of) (?:the )?(?:sender|return|from|envelope)"
)
_OF_RECIPIENT = re.compile(r"recipient\b|rcpt\b(?! to)")
_HARMLESS_WORDS = _words("relay verification book books sender senders expediteur remitente remetente absender lookup")
_SEARCHES = {word: [pattern(phrase).search for phrase in phrases] for word, phrases in PHRASES.items()}
_LOOSE_AGAIN = ("再度", "再送")


def in_doubt(words: list[str], line: str) -> bool:
    """Whether a reply of these words (`line`: with a blank before, between and behind) leaves it open whose fault it is."""
    if not _HARMLESS_WORDS.isdisjoint(words) and _HARMLESS.search(line):
        line = _HARMLESS.sub(" ", line)
        words = line.split()
    if not (WORDS.isdisjoint(words) and BEGINNINGS.isdisjoint([word[:5] for word in words])):
        return True
    if any(search(line) for word in _SEARCHES.keys() & words for search in _SEARCHES[word]):
        return True
    advised = not ADVICE.isdisjoint(words) or "確認" in line
    if not (advised or AGAIN.isdisjoint(words)):
        return True
    if line.isascii():
        return False
    return any(one in line for one in LOOSE) or (not advised and any(one in line for one in _LOOSE_AGAIN))


def of_a_check(around: str) -> bool:
    """Whether what stands around a host's reply says that it answers a check, not the mail: one of the sender, for all that is known."""
    lower = around.lower()
    if "verif" not in lower and "call" not in lower:
        return False
    found = _CHECK.search(lower)
    return found is not None and not _OF_RECIPIENT.search(lower, max(0, found.start() - 30), found.end() + 30)
