"""Bounces in other languages, addresses invented: {name: (mail, {address: (code, status)})}."""

from tests.postroad.feedback.samples import RETURNED, mail, mixed

_COPY = f"\n----- Original message -----\n\n{RETURNED}"

BOUNCES: dict[str, tuple[bytes, dict[str, tuple[int, str]]]] = {
    "Exchange 2007 in German": (
        mixed(
            "Fehler bei der Nachrichtenzustellung an folgende Empfänger oder Verteilerlisten:\n\nann@there.test\nDie eingegebene E-Mail-Adresse"
            " konnte nicht gefunden werden.\n\nDiagnoseinformationen für Administratoren:\n\nGenerierender Server: mx.there.test\n\nann@there.test\n"
            "#550 5.1.1 RESOLVER.ADR.RecipNotFound; not found ##\n",
            sender="postmaster@there.test",
            subject="Unzustellbar: Neues",
        ),
        {"ann@there.test": (550, "5.1.1")},
    ),
    "Exchange 2013 in French": (
        mixed(
            "Échec de la remise à ces destinataires ou groupes :\n\nann@there.test (ann@there.test)\nL'adresse de messagerie que vous avez entrée est"
            " introuvable.\n\nInformations de diagnostic pour les administrateurs :\n\nServeur de génération : mx.there.test\n\nann@there.test\n"
            "Remote Server returned '550 5.1.1 RESOLVER.ADR.RecipNotFound; not found'\n",
            sender="postmaster@there.test",
            subject="Non remis : nouvelles",
        ),
        {"ann@there.test": (550, "5.1.1")},
    ),
    "Exchange 2010 in Spanish": (
        mixed(
            "Error de entrega a los siguientes destinatarios o listas de distribución:\n\nann@there.test\nNo se encuentra la dirección de correo.\n\n"
            "Información de diagnóstico para administradores:\n\nann@there.test\n#550 5.1.1 RESOLVER.ADR.RecipNotFound; not found ##\n",
            sender="postmaster@there.test",
            subject="No se puede entregar: noticias",
        ),
        {"ann@there.test": (550, "5.1.1")},
    ),
    "Exchange 2010 in Italian": (
        mixed(
            "Impossibile recapitare il messaggio ai seguenti destinatari o gruppi:\n\nann@there.test\nIndirizzo non trovato.\n\n"
            "Informazioni di diagnostica per gli amministratori:\n\nann@there.test\n#550 5.1.1 RESOLVER.ADR.RecipNotFound; not found ##\n",
            sender="postmaster@there.test",
            subject="Non recapitabile: notizie",
        ),
        {"ann@there.test": (550, "5.1.1")},
    ),
    "Exchange 2010 in Japanese": (
        mixed(
            "次の受信者またはグループへの配信に失敗しました:\n\nann@there.test\n入力した電子メール アドレスが見つかりませんでした。\n\n"
            "管理者向けの診断情報:\n\nann@there.test\n#550 5.1.1 RESOLVER.ADR.RecipNotFound; not found ##\n",
            sender="postmaster@there.test",
            subject="配信不能: お知らせ",
        ),
        {"ann@there.test": (550, "5.1.1")},
    ),
    "Exim in German": (
        mail(
            "Diese Nachricht wurde automatisch von der Mail-Software erstellt.\n\nEine von Ihnen versandte Nachricht konnte nicht zugestellt werden an"
            " folgende Empfänger:\n\n  ann@there.test\n    SMTP error from remote mail server after RCPT TO:<ann@there.test>:\n    host mx.there.test"
            f" [192.0.2.1]: 550 5.1.1 unbekannt\n\n------ This is a copy of the message, including all the headers. ------\n\n{RETURNED}",
            subject="Nachricht unzustellbar",
        ),
        {"ann@there.test": (550, "5.1.1")},
    ),
    "Mail.ru": (
        mail(
            "Это письмо создано автоматически сервером Mail.Ru, отвечать на него не нужно.\n\nК сожалению, Ваше письмо не может быть доставлено одному"
            " или нескольким получателям:\n\n**********************\n\nann@there.test SMTP error from remote mail server after RCPT TO:<ann@there.test>:"
            f" host mx.there.test: 550 5.1.1 no such user\n\n**********************\n{_COPY}",
            sender="mailer-daemon@corp.mail.example",
            subject="Mail failure.",
            more="X-Failed-Recipients: ann@there.test\n",
        ),
        {"ann@there.test": (550, "5.1.1")},
    ),
    "Polish": (
        mail(
            f"Wiadomość nie mogła zostać dostarczona do następujących odbiorców:\n\n<ann@there.test>: 550 5.1.1 nie ma takiego konta\n{_COPY}",
            subject="Zwrot: nie można dostarczyć wiadomości",
        ),
        {"ann@there.test": (550, "5.1.1")},
    ),
    "Korean": (
        mail(
            f"메일을 배달할 수 없습니다.\n\n받는 사람: ann@there.test\n사유: 550 5.1.1 없는 사용자\n{_COPY}",
            subject="메일 전송 실패",
        ),
        {"ann@there.test": (550, "5.1.1")},
    ),
    "Turkish": (
        mail(
            f"İletiniz teslim edilemedi.\n\nAlıcı: ann@there.test\n\n550 5.1.1 kullanıcı yok\n{_COPY}",
            subject="Teslim edilemedi",
        ),
        {"ann@there.test": (550, "5.1.1")},
    ),
    "Dutch": (
        mail(
            "Uw bericht kon niet worden bezorgd bij:\n\n  ann@there.test\n\nReden: gebruiker onbekend\n",
            sender="postmaster@there.test",
            subject="Onbestelbaar: nieuws",
        ),
        {"ann@there.test": (0, "")},
    ),
    "Czech": (
        mail(
            "Vaši zprávu se nepodařilo doručit:\n\n<ann@there.test>: 550 5.1.1 uživatel neexistuje\n",
            subject="Nedoručitelná zpráva",
        ),
        {"ann@there.test": (550, "5.1.1")},
    ),
    "Hungarian": (
        mail(
            "Az üzenetet nem sikerült kézbesíteni:\n\n<ann@there.test>: 550 5.1.1 nincs ilyen\n",
            subject="Kézbesíthetetlen",
        ),
        {"ann@there.test": (550, "5.1.1")},
    ),
    "Swedish": (
        mail(
            "Meddelandet kunde inte levereras till:\n\n<ann@there.test>\n550 5.1.1 okänd\n",
            subject="Kunde inte levereras",
        ),
        {"ann@there.test": (550, "5.1.1")},
    ),
    "a language that no list has": (
        mail("تعذر تسليم رسالتك إلى:\n\n<ann@there.test>\n550 5.1.1 no\n", subject="تعذر التسليم"),
        {"ann@there.test": (550, "5.1.1")},
    ),
}
