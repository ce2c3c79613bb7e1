"""The words by which people and programs say that mail did not arrive, in the languages that hosts write them in.

Data, no code: each pattern is searched without regard to case in text that is bounded by who calls. A phrase is listed for
what it means, whoever writes it; no pattern names a sample.
"""

import re


def _any(*phrases: str) -> re.Pattern[str]:
    return re.compile("|".join(phrases), re.IGNORECASE)


# The program that writes a bounce, in the address or the name of From.
DAEMON = _any(
    r"mailer[-_. ]?daemon", r"\bpost[-_.]?master", r"\bmail[-_. ]?(?:delivery|admin|system|server|daemon|service|subsystem|router|gateway)",
    r"delivery[-_. ]?(?:sub)?system", r"\bsystem administrator", r"\bmdaemon", r"\bmail[-_.]?er@", r"\bsmtp[-_.]?(?:daemon|server|service)",
    r"_mail_service@", r"\bdelivery (?:status|notification|report)", r"\bbounces?@", r"\bmicrosoft outlook\b", r"\bimss?@", r"interscan",
    r"\bnon-?delivery", r"\buucp@", r"\bsystemadministrator",
)  # fmt: skip

# A subject that says it alone.
BOUNCE_SUBJECT = _any(
    r"undeliver(?:ed|able|y)", r"\bun-?deliverable", r"returned? (?:e-?)?mail", r"mail return(?:ed)?\b", r"returned to sender", r"returning (?:message|mail)? ?to (?:the )?sender",
    r"fail(?:ure|ed)? (?:notice|notification|delivery)", r"deliver(?:y|ing|ed)?(?: \w+)? (?:\w+ )?(?:has |is )?(?:fail|error|problem|impossible|unsuccessful)", r"(?:mail|message|e-?mail) (?:delivery )?(?:system )?(?:error|fail|problem)",
    r"delivery (?:status )?notification", r"delivery report", r"delivery notice", r"(?:could|can|was|has|did) ?not (?:be |been )?(?:deliver|sent|reach)", r"\bcannot be delivered", r"\bnot? delivered\b", r"non[- ]?delivery",
    r"\bnon[- ]?deliverable", r"\bbounced? (?:mail|message)", r"unable to deliver", r"error sending your mail", r"processing error", r"user unknown", r"unknown user", r"\bmail failed\b", r"permanent (?:delivery )?(?:fail|error)",
    r"(?:message|mail) (?:not delivered|undelivered|rejected)", r"rejected (?:mail|message)", r"failed (?:mail|message)", r"message status - undeliverable",
    r"unzustellbar", r"nicht zugestellt", r"zustellung.{0,30}fehl", r"zustellungsbenachrichtigung", r"unzustellbarkeit", r"non remis", r"non distribu", r"[ée]chec (?:de |d')?(?:la )?(?:remise|livraison|envoi|distribution)", r"non d[ée]livr",
    r"mensaje (?:no )?(?:entregado|devuelto)", r"no (?:se )?(?:ha )?(?:podido |se pudo )?entreg", r"no entregado", r"error (?:en la|de) entrega", r"devuelto", r"n[ãa]o (?:foi )?entreg", r"falha (?:na|de) entrega", r"devolvid",
    r"mancat[oa] (?:consegna|recapito)", r"impossibile (?:consegnare|recapitare)", r"non recapitabile", r"onbestelbaar", r"niet (?:worden )?(?:bezorgd|afgeleverd)", r"niedor[eę]cz", r"nie dor[eę]czon", r"zwrot (?:poczty|wiadomo)",
    r"nedoru[cč]", r"не доставлен", r"недоставлен", r"невозможно доставить", r"не удалось доставить", r"не може бути доставлен", r"teslim edilemedi", r"iletilemedi", r"kunde inte levereras", r"olevererbar", r"kunne ikke leveres", r"kan ikke leveres", r"toimitus ep[äa]onnistui", r"ei voitu toimittaa", r"k[ée]zbes[ií]thetetlen", r"nelivrat",
    r"配信(?:不能|エラー|失敗|できません)", r"送信(?:エラー|失敗|できません)", r"メール(?:が|を)?(?:配信|送信|送達)(?:でき|不)", r"不達", r"エラー(?:メール|通知)", r"退信", r"投[递遞](?:失败|失敗)", r"无法(?:投递|送达)", r"無法(?:傳送|遞送|送達)", r"邮件(?:发送)?(?:失败|被退回)", r"반송", r"전송 ?실패", r"배달되지",
)  # fmt: skip

# A sentence of the text that says it.
FAILURE = _any(
    r"(?:could|can|was|were|has|have|did|would|is) ?(?:not|n't|n.t) (?:be |been )?(?:\w+ )?(?:deliver|sent\b|send\b|reach|relay|transmit|receive this|process)", r"\bcannot (?:be )?(?:deliver|send|reach)", r"(?:did|have|has) not (?:be |been )?(?:reach|receive|arrive)",
    r"(?:un|not )able to (?:\w+ ){0,2}(?:deliver|send|reach|relay)", r"undeliver(?:able|ed)", r"non-?deliver(?:y|able)", r"(?:deliver|transmi|send)\w*[\w ,'-]{0,60} (?:has |have )?(?:been )?(?:permanently )?(?:fail|abort|rejected|impossible|unsuccessful)", r"fail(?:ed|ure)? (?:permanently|to deliver|addresses|recipients|in delivery|delivering)",
    r"(?:address|recipient)\w*(?:\(e?s\))? (?:\w+ ){0,3}(?:fail|fatal|error|reject)", r"(?:has|have|had|was|were|is|been) (?:permanent |fatal |delivery )*(?:returned|rejected|bounced)", r"(?:permanent|fatal|delivery|transient) (?:\w+ )?(?:error|failure)", r"message not delivered", r"mail not delivered", r"delivery fail", r"was aborted", r"(?:could|can) ?(?:not|n't) find",
    r"error (?:occurred |while )*(?:delivering|sending|trying to deliver)", r"trouble delivering", r"(?:couldn.t|cannot|can't|unable to) (?:be )?(?:find|found|deliver)", r"not (?:a )?(?:valid|known) (?:user|recipient|address|mailbox)", r"(?:unknown|invalid|no such|illegal|nonexistent|non-existent|bad)(?: or \w+)?(?: final delivery| local| recipient| destination)? (?:user|recipient|mailbox|address|account|host|domain|alias)",
    r"(?:user|recipient|mailbox|account|address|host|domain)\w*[^\n]{0,40} (?:unknown|not found|not listed|not exist|unavailable|disabled|(?:is )?full|over quota|exceed|suspended|inactive|does(?:n't| not) exist)", r"mailbox (?:is )?(?:full|unavailable)", r"(?:quota|allowed size) exceeded|exceeds allowed|exceeded.{0,20}quota|out of (?:disk|storage)", r"not (?:yet )?(?:been )?delivered", r"no valid recipients", r"\bgiving up\b|given up", r"will not be delivered",
    r"not accepting (?:mail|messages)", r"was not accepted|not been accepted|did not accept|refused to accept", r"remote host said", r"(?:response|error|reply) (?:from|returned by) (?:the )?(?:remote|other|recipient|destination)", r"(?:e-?mail|message|delivery) (?:was |has been )?(?:aborted|rejected|refused|blocked|returned)",
    r"nicht (?:\w+ ){0,3}(?:zugestellt|zustellen|ausgeliefert|erreicht)", r"unzustellbar", r"zustellung[^\n]{0,60}(?:fehl|nicht)", r"unbekannt(?:er)? (?:empf|benutz)", r"(?:empf[äa]nger|benutzer|postfach|adresse)[^\n]{0,40}(?:unbekannt|existiert nicht|voll|nicht gefunden|ung[üu]ltig)",
    r"n'(?:a|ont) (?:pas )?(?:pu|[ée]t[ée])", r"n.a pas (?:pu )?(?:[êe]tre |[ée]t[ée] )?(?:remis|d[ée]livr|distribu|livr|envoy|achemin)", r"impossible de (?:remettre|d[ée]livrer|distribuer|livrer|envoyer)", r"(?:[ée]chec|erreur) (?:de|d'|lors)", r"(?:adresse|utilisateur|destinataire|bo[îi]te)[^\n]{0,40}(?:inconnu|n'existe pas|pleine|invalide|introuvable)",
    r"no (?:se )?(?:ha |han )?(?:podido|pudo|pudieron|puede|fue|sido) (?:ser )?entreg", r"no (?:se )?(?:pudo|puede|ha podido) (?:ser )?(?:enviar|entregar)", r"(?:usuario|buz[óo]n|direcci[óo]n|destinatario)[^\n]{0,40}(?:desconocid|no existe|llen[oa]|inv[áa]lid|no encontrad|incorrect)", r"no existe (?:el|la|ese) (?:usuario|cuenta|buz)",
    r"n[ãa]o (?:foi|p[ôo]de|pode|foram)(?: poss[íi]vel)? (?:ser )?(?:entreg|enviad)", r"(?:usu[áa]rio|caixa|endere[çc]o|destinat[áa]rio)[^\n]{0,40}(?:desconhecid|n[ãa]o existe|cheia|inv[áa]lid|n[ãa]o encontrad)",
    r"(?:non [èe] stato|impossibile|non [èe] possibile) (?:possibile )?(?:\w+ )?(?:consegna|recapita|invia)", r"(?:utente|casella|indirizzo|destinatario)[^\n]{0,40}(?:sconosciut|inesistente|non esiste|pien[ao]|non valid)", r"niet (?:\w+ ){0,3}(?:bezorgd|afgeleverd|bezorgen|afleveren)", r"(?:gebruiker|postvak|adres)[^\n]{0,40}(?:onbekend|bestaat niet|vol\b)",
    r"nie (?:mo[żz]e|mog[łl][ao]|zosta[łl]a?)(?: by[ćc])? dostarczon", r"nie (?:mo[żz]na|uda[łl]o si[ęe]) (?:dostarczy|dor[ęe]czy)", r"nelze doru[čc]it", r"nebyl[ao]? (?:mo[žz]n[ée] )?doru[čc]", r"не (?:может быть|было|была|был|удалось|можем|смог\w*) ?(?:быть )?(?:доставл|доставить|отправ)", r"недоставлен", r"(?:пользовател|адрес|ящик)[^\n]{0,40}(?:не найден|не существует|неизвест|переполнен|заблокирован|отключ[её]н)",
    r"не (?:може|вдалося) (?:бути )?достав", r"teslim edilemedi|iletilemedi|ula[şs]t[ıi]r[ıi]lamad[ıi]", r"(?:kunde|kunne) (?:inte|ikke) (?:levereras|leveres|skickas|sendes)", r"ei voitu (?:toimittaa|l[äa]hett[äa][äa])", r"nem (?:siker[üu]lt |lehetett )?k[ée]zbes[ií]t", r"nu a (?:putut fi|fost) livrat", r"δεν (?:ήταν δυνατή|παραδόθηκε|μπόρεσε)",
    r"(?:送信|配信|配送|送達|お届け|届ける|届け)(?:する)?(?:こと)?(?:が|は|に|を)?(?:でき|出来)ません", r"(?:送信|配信|配送)に失敗", r"(?:エラー|失敗)(?:の|が|しま|となり|により|メッセージ)", r"(?:見つかり|存在し)ません", r"届きませんでした", r"无法(?:被)?(?:投递|送达|发送|传递)", r"(?:投递|发送|传送|遞送|傳送)失[败敗]", r"無法(?:被)?(?:傳送|遞送|送達|寄)", r"(?:不存在|被退回|退信)", r"(?:배달|전송|발송)(?:하지|할 수|되지|에 실패)",
)  # fmt: skip

# How a form begins: what a program writes at the start of a line, and people only quote.
FORM = re.compile(
    r"^[ \t*#=-]{0,40}(?:(?:hi\. )?this is the (?:\S+ )?(?:mail|program|qmail-send|postfix|e-?mail|deliver|dragonfly)\b[^\n]{0,60}(?:program|system|agent|server|host)|this (?:message|e-?mail|is an?) (?:was |has been |is )?(?:created |generated )?automatic(?:ally)? (?:created|generated)? ?(?:by|delivery)[^\n]{0,40}|this is an automatically generated delivery|your (?:e-?mail|message|mail)(?: sent on[^\n]{0,60})?(?: to[^\n]{0,80})?(?:\n[^\n]{0,100}){0,6}?\s*(?:did not reach|was not delivered|could not be delivered|cannot be delivered|has been rejected)|(?:the )?following (?:address|recipient|message|e-?mail|mail)[^\n]{0,60}(?:fail|fatal|not|reject|undeliver)|(?:the )?(?:e-?mail|message|mail) below could not be|-{2,}+\s*+non-?delivery report|the original message was received at|unable to deliver (?:message|mail|your)|message from \S+\s*\n\s*unable to deliver|-{3,}+[ -]*+(?:the following|failed recipients|failure reasons|transcript of session|message not delivered)|delivery (?:to the following|has failed to these|failed)|an error occurred while trying to deliver|could not be delivered to)",
    re.IGNORECASE | re.MULTILINE,
)  # fmt: skip

# The host still tries; nothing has failed.
DELAY = _any(
    r"\bdelay(?:ed)?\b", r"still (?:being )?(?:re)?(?:tried|trying)", r"not yet been (?:delivered|sent)", r"(?:will|shall) (?:be |continue to be )?(?:re-?tr(?:y|ied)|(?:continue|keep)(?: on)? (?:to )?(?:try|attempt))", r"continue (?:trying|to try|to attempt|for)", r"warning message only|this is a warning only|only a warning", r"(?:do not|don.t|no) need to resend", r"message(?:s)? (?:is|are) (?:still )?(?:queued|deferred|on hold)", r"temporar(?:y|ily)[^\n]{0,30}(?:delay|defer|unable|problem)", r"warning: (?:message|could not|still|mail)", r"attempts? (?:to deliver )?will continue", r"could not send (?:message|mail) for (?:past )?\d",
    r"verz[öo]ger", r"noch nicht (?:zugestellt|ausgeliefert)", r"retard[ée]", r"pas encore [ée]t[ée]", r"retras(?:ado|o)", r"a[úu]n no se ha", r"ainda n[ãa]o foi", r"atras(?:ad|o\b)", r"ritard(?:o|at)", r"vertraagd|vertraging", r"op[óo][źz]nion", r"задерж", r"попытки доставки", r"försenad|forsinket", r"遅延|遅れ|再送(?:信)?(?:を|し|中)", r"延[迟遲]", r"지연",
)  # fmt: skip

# The host gave up, whatever else the text says about trying.
FINAL = _any(
    r"permanent", r"giving up|given up|gave up", r"not going to try", r"no (?:further|more) (?:delivery )?attempts", r"(?:has|have) been returned", r"(?<!non-)fatal errors? -", r"(?<!still )(?<!remains )undeliver(?:able|ed)", r"returned mail", r"returning message to sender", r"failed permanently", r"message (?:has )?expired", r"\(failure\)",
)  # fmt: skip

# A line by itself that says of a mailbox that it is there, though it takes nothing now; lists of what may have happened are none
STILL_THERE = re.compile(
    r"^(?![^\n]{0,200}\b(?:may|might|could|possibl[ey]|or|either|if|because)\b)[\t *>-]{0,8}(?:(?:the |this |your |his |recipient'?s? |user'?s?(?:\(s\))? |e-?mail |mail )*(?:account|mailbox|quota|inbox)(?:\(s\))?[\w ()]{0,30}? (?:is|are|was|has|have|been)(?: been| currently| temporarily| now)* (?:disabled|limited|suspended|locked|deactivated|full|over quota|exceeded|blocked)\b"
    r"|(?:not enough|insufficient|no more|out of) (?:disk |mailbox |storage )?(?:space|quota|storage)\b|(?:disk |mailbox )?quota (?:exceeded|exhausted)|mailbox full\b)[^\n]{0,60}$",
    re.IGNORECASE | re.MULTILINE,
)

# Automatic replies of people, and challenges: about nobody's address.
VACATION_SUBJECT = _any(
    r"^(?:re: ?|aw: ?|sv: ?|fwd?: ?)*\W*(?:auto(?:mat\w*)?[-_ :]*(?:re(?:ply|sponse|spond\w*)|antw\w*|respuesta|resposta|acknowledg\w+|risposta|svar\w*)|autoreply|autorespon\w*)", r"automatic (?:reply|response)", r"out[- ]of[- ](?:the )?(?:office|town)", r"\b(?:ooo|oof)\b[: ]", r"\bvacation\b", r"on (?:holiday|leave|vacation)\b", r"(?:away|absent) from (?:the |my )?(?:office|mail|desk|e-?mail)", r"\bi(?:'m| am) (?:currently )?(?:away|out|on)\b", r"auto:", r"absence (?:du bureau|notif)", r"abwesen", r"automatische (?:antwort|r? ?beantwoording|reactie)", r"autom\. antwort", r"nicht im (?:b[üu]ro|haus)", r"urlaub", r"r[ée]ponse automatique", r"absen(?:t|ce)", r"cong[ée]s", r"en vacances",
    r"respuesta autom[áa]tica", r"fuera de (?:la )?oficina", r"ausente", r"vacaciones", r"resposta autom[áa]tica", r"f[ée]rias", r"fora do escrit", r"risposta automatica", r"fuori (?:sede|ufficio)", r"assenza", r"ferie", r"afwezig", r"autosvar", r"automatiskt? svar", r"frånvaro|fraværende", r"poissa", r"automaattinen vastaus", r"autoodpowied", r"automatyczna odpowied", r"nieobecno", r"urlop", r"automatick[áa] odpov", r"автоответ", r"автоматический ответ", r"в отпуске", r"вне офиса", r"отсутств", r"otomatik (?:yan[ıi]t|cevap)", r"automatikus v[áa]lasz", r"r[ăa]spuns automat", r"自動(?:返信|応答|回覆|回复)", r"不在(?:通知|のお知らせ|の(?:ため|連絡))?", r"休暇", r"自动(?:回复|答复)", r"不在(?:办公室|辦公室)", r"외출|부재중|자동 ?(?:응답|회신)",
    r"confirm (?:your|that your) (?:message|e-?mail|mail)", r"please (?:verify|confirm) (?:your|you)", r"(?:verification|confirmation) (?:of your e?-?mail|required)", r"challenge[- ]response", r"your (?:message|mail|e-?mail) (?:requires|needs) (?:confirmation|verification|approval)", r"awaiting (?:your )?(?:confirmation|verification)", r"\bspam ?arrest\b", r"\bboxbe\b",
)  # fmt: skip
VACATION_TEXT = _any(
    r"out of (?:the |my )?(?:office|town)", r"\bon (?:annual |maternity |parental |sick |paternity )?(?:leave|vacation|holidays?)\b", r"(?:limited|intermittent|no) access to (?:my )?e-?mail", r"away from (?:the |my )?(?:office|desk|mail|e-?mail)", r"i(?:'m| am| will be) (?:currently )?(?:away|out|travell?ing|back on)", r"thank you for (?:your (?:e?-?mail|message|interest|enquiry|inquiry)|contacting|writing)", r"(?:no longer|not) (?:work|employed|with) (?:for|at|here|with|the company)", r"has left (?:the company|our)", r"this is an auto(?:mated|matic)(?: e-?mail)? (?:reply|response)", r"(?:we|i) (?:have )?received your (?:e?-?mail|message|request)", r"abwesen|nicht im b[üu]ro|im urlaub|wieder erreichbar", r"absent|en cong[ée]s", r"fuera de la oficina|de vacaciones", r"fora do escrit[óo]rio|de f[ée]rias", r"fuori ufficio|in ferie", r"afwezig", r"в отпуске|вне офиса", r"不在|休暇|自動(?:返信|応答)|自动回复",
)  # fmt: skip

# A provider's own form of a complaint, without a feedback report (RFC 5965) in it.
COMPLAINT_SUBJECT = _any(
    r"complaint about (?:a )?message from", r"client tos notification", r"e-?mail feedback report", r"feedback[- ]loop report", r"\bfbl\b.{0,20}(?:report|complaint|notif)", r"\b(?:abuse|spam|junk)(?: e?-?mail)? (?:complaint|report)", r"(?:spam|abuse|junk) (?:report|complaint)s? (?:from|about|for)", r"(?:reported|marked) as (?:spam|junk|abuse)", r"unsolicited (?:bulk )?e?-?mail (?:complaint|report)",
)  # fmt: skip
