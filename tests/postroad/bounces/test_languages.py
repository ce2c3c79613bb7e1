"""The usual phrases of hosts in several languages, and of large providers, in words of our own."""

import pytest

from postroad.bounces import judge


@pytest.mark.parametrize(
    ("reason", "texts"),
    [
        ("user-unknown", ["Empf\u00e4nger unbekannt", "Cette adresse n'existe pas", "El usuario no existe", "Usu\u00e1rio desconhecido", "Utente sconosciuto",
                          "Gebruiker onbekend", "Nie ma takiego u\u017cytkownika", "\u041d\u0435\u0442 \u0442\u0430\u043a\u043e\u0433\u043e \u043f\u043e\u043b\u044c\u0437\u043e\u0432\u0430\u0442\u0435\u043b\u044f",
                          "B\u00f6yle bir kullan\u0131c\u0131 yok", "\u6536\u4ef6\u4eba\u4e0d\u5b58\u5728", "\u5b9b\u5148\u306e\u30a2\u30c9\u30ec\u30b9\u304c\u5b58\u5728\u3057\u307e\u305b\u3093",
                          "No such user here", "The account that you tried to reach does not exist", "RESOLVER.ADR.RecipientNotFound; not found",
                          "This user doesn't have an example.com account", "Recipient address rejected: undeliverable address"]),
        ("mailbox-full", ["Das Postfach ist voll", "La bo\u00eete est pleine", "El buz\u00f3n est\u00e1 lleno", "Caixa postal cheia", "La casella \u00e8 piena",
                          "Skrzynka jest przepe\u0142niona", "\u042f\u0449\u0438\u043a \u043f\u0435\u0440\u0435\u043f\u043e\u043b\u043d\u0435\u043d", "\u90ae\u7bb1\u5df2\u6ee1",
                          "\u30e1\u30fc\u30eb\u30dc\u30c3\u30af\u30b9\u304c\u3044\u3063\u3071\u3044\u3067\u3059", "The recipient's inbox is out of storage space"]),
        ("suspended", ["Konto deaktiviert", "Compte d\u00e9sactiv\u00e9", "La cuenta est\u00e1 suspendida", "\u0410\u043a\u043a\u0430\u0443\u043d\u0442 \u0437\u0430\u0431\u043b\u043e\u043a\u0438\u0440\u043e\u0432\u0430\u043d",
                       "This mailbox is disabled", "The email account that you tried to reach is inactive"]),
        ("auth-failure", ["Unauthenticated email from example.com is not accepted due to domain's DMARC policy", "SPF check failed",
                          "Access denied, sending domain does not meet the required authentication level"]),
        ("missing-ptr", ["The address sending this message does not have a PTR record", "no reverse dns entry"]),
        ("bad-sender", ["Absender abgelehnt", "Emetteur invalide", "This host does not accept mail from that domain"]),
        ("null-mx", ["Domain does not accept mail (nullMX)"]),
        ("moved", ["The recipient has moved to another address"]),
        ("expired", ["connect to mx.example.com[192.0.2.1]:25: Connection timed out"]),
        ("network", ["connect to mx.example.com[192.0.2.1]:25: No route to host"]),
    ],
)  # fmt: skip
def test_phrases_of_many_hosts(reason: str, texts: list[str]) -> None:
    assert {text: judge(550, "", text).reason for text in texts} == dict.fromkeys(texts, reason)
