"""Files of suppression lists: every form, and what is wrong in them."""

import csv
import io
import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroad import suppression_csv as lists
from postroad.suppression import DAY_MS
from postroad.suppression_rows import LINE_MAX, Fault, Row, rows

NOW = 1_700_000_000_000  # 2023-11-14T22:13:20Z


def read(text, name="list.csv", **options):
    raw = text if isinstance(text, bytes) else text.encode()
    options = {"tenant": "acme", **options}
    return list(lists.read(io.BytesIO(raw), name, NOW, **options))


def entries(found):
    return [each.entry for each in found if not isinstance(each, Fault)]


def short(found):
    return [(e["recipient"], e["reason"], e["at"], e["detail"]) for e in entries(found)]


def faults(found):
    return [(each.line, each.text) for each in found if isinstance(each, Fault)]


# -- forms ---------------------------------------------------------------------------------------------------------------


def test_sendgrid_bounces():
    found = read('status,reason,email,created\n5.1.1,"550 5.1.1 nobody, here",a@x.test,1699999000\n4.2.2,,b@x.test,\n')
    assert short(found) == [
        ("a@x.test", "hard_bounce", 1_699_999_000_000, "5.1.1 550 5.1.1 nobody, here"),
        ("b@x.test", "hard_bounce", NOW, "4.2.2"),
    ]
    assert {(e["source"], e["tenant"], e["action"]) for e in entries(found)} == {("csv", "acme", "add")}


@pytest.mark.parametrize(
    ("header", "line", "reason"),
    [
        ("email,created,ip", "a@x.test,1699999000,192.0.2.7", "complaint"),
        ("email,created", "a@x.test,1699999000", "unsubscribe"),
        ("reason,email,created", "known to be bad,a@x.test,1699999000", "hard_bounce"),
        ("email,reason,status,created", "a@x.test,550,5.1.1,1699999000", "hard_bounce"),
        ("EmailAddress,Reason,LastUpdateTime", "a@x.test,BOUNCE,2023-11-14T21:56:40+00:00", "hard_bounce"),
        ("EmailAddress,Reason,LastUpdateTime", "a@x.test,COMPLAINT,1699999000.0", "complaint"),
        (
            "EmailAddress,SuppressionReason,Origin,CreatedAt",
            "a@x.test,HardBounce,Recipient,2023-11-14T16:56:40-05:00",
            "hard_bounce",
        ),
        (
            "EmailAddress,SuppressionReason,Origin,CreatedAt",
            "a@x.test,SpamComplaint,Recipient,2023-11-14T21:56:40Z",
            "complaint",
        ),
        (
            "EmailAddress,SuppressionReason,Origin,CreatedAt",
            "a@x.test,ManualSuppression,Recipient,2023-11-14T21:56:40Z",
            "unsubscribe",
        ),
        (
            "EmailAddress,SuppressionReason,Origin,CreatedAt",
            "a@x.test,ManualSuppression,Customer,2023-11-14 21:56:40",
            "manual",
        ),
    ],
)
def test_each_form_is_known_by_its_columns(header, line, reason):
    (entry,) = entries(read(f"{header}\n{line}\n"))
    assert (entry["recipient"], entry["reason"], entry["at"]) == ("a@x.test", reason, 1_699_999_000_000)


@pytest.mark.parametrize("name", ["suppression_blocks.csv", "Blocks-2026.CSV"])
def test_sendgrids_blocks_are_refused(name):
    with pytest.raises(lists.FileRefused, match="no suppressions"):
        read("status,reason,email,created\n,550 spam,a@x.test,1699999000\n", name)


def test_a_list_of_addresses_wants_a_reason():
    assert short(read("email\na@x.test\n", reason="manual")) == [("a@x.test", "manual", NOW, "")]
    with pytest.raises(lists.FileRefused, match="--reason"):
        read("email\na@x.test\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("a@x.test,BOUNCE\nb@x.test,BOUNCE\n", "are of no list"),
        ("name,phone\nA,1\n", "known are"),
        ("email,email\na@x.test,b@x.test\n", "no header line"),
        ("email,created\na@x.test,1\n".encode("utf-16"), "not UTF-8"),
        (b"email\0,created\n", "not UTF-8"),
        ("email,group_id,group_name,created_at\na@x.test,7,News,1\n", "are of no list"),
    ],
)
def test_a_file_that_is_no_list_is_refused(text, says):
    with pytest.raises(lists.FileRefused, match=says):
        read(text)


def test_whose_list_must_be_said():
    with pytest.raises(lists.FileRefused, match="--tenant"):
        read("email,created\na@x.test,1\n", tenant=None)


JSON = {"SuppressedDestinationSummaries": [
    {"EmailAddress": "a@x.test", "Reason": "BOUNCE", "LastUpdateTime": "2023-11-14T21:56:40+00:00"},
    {"EmailAddress": "b@x.test", "Reason": "COMPLAINT", "LastUpdateTime": 1699999000.5},
]}  # fmt: skip


@pytest.mark.parametrize("indent", [None, 4])
def test_json_of_ses_and_postmark(indent):
    page = json.dumps({**JSON, "NextToken": "dG9rZW4="}, indent=indent)
    wanted = [("a@x.test", "hard_bounce", 1_699_999_000_000, ""), ("b@x.test", "complaint", 1_699_999_000_500, "")]
    assert short(read(page)) == wanted
    assert short(read(page + "\n" + page)) == wanted * 2, "pages one behind the other"
    lines = "\n".join(json.dumps(one) for one in JSON["SuppressedDestinationSummaries"])
    assert short(read(lines)) == wanted
    postmark = {"Suppressions": [{"EmailAddress": "a@x.test", "SuppressionReason": "HardBounce", "Origin": "Recipient",
                                  "CreatedAt": "2023-11-14T16:56:40-05:00"}]}  # fmt: skip
    assert short(read(json.dumps(postmark, indent=indent))) == wanted[:1]


def test_json_faults_have_their_lines():
    text = (
        '[\n{"EmailAddress": "a@x.test", "Reason": "BOUNCE"},\n{"EmailAddress": "b", "Reason": "BOUNCE"},\n{"x": ]},\n'
    )
    text += '{"EmailAddress": "c@x.test",\n "Reason": "BOUNCE"}, {"EmailAddress": "d@x.te'
    found = read(text)
    assert [e["recipient"] for e in entries(found)] == ["a@x.test", "c@x.test"]
    assert [line for line, _ in faults(found)] == [3, 4, 6]


# -- how people write CSV ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_line_ends_marks_and_delimiters(end, bom, delimiter):
    text = f"{bom} Email {delimiter}created{end}{end}a@x.test{delimiter}1699999000{end}b@x.test{delimiter}1699999001"
    assert [e["recipient"] for e in entries(read(text))] == ["a@x.test", "b@x.test"]


def test_addresses_come_in_one_form():
    found = read('email,created\nAnn@BÜCHER.test ,1\n"""a b""@x.test",1\n')
    assert [e["recipient"] for e in entries(found)] == ["ann@xn--bcher-kva.test", '"a b"@x.test']


def test_bad_lines_are_told_and_nothing_else_is_lost():
    text = (
        "status,reason,email,created\n"
        "5.1.1,first,a@x.test,1\n"
        "5.1.1,no address,nobody,1\n"
        "5.1.1,too few,c@x.test\n"
        '5.1.1,"over\ntwo lines",d@x.test,1\n'
        '5.1.1,"never closed,e@x.test,1\n'
        "5.1.1,after it,f@x.test,1\n"
        "5.1.1,when,g@x.test,tomorrow\n"
        "5.1.1,ahead,h@x.test,2999-01-01\n"
        '5.1.1,a "quote" inside,i@x.test,1\n'
        "5.1.1,last,j@x.test,1"
    )
    found = read(text)
    assert [e["recipient"] for e in entries(found)] == ["a@x.test", "d@x.test", "f@x.test", "i@x.test", "j@x.test"]
    assert [line for line, _ in faults(found)] == [3, 4, 7, 9, 10]
    assert entries(found)[1]["detail"] == "5.1.1 over\ntwo lines"


def test_bytes_that_are_no_utf8_and_lines_without_end():
    long = b"x" * (LINE_MAX * 3)
    found = read(b"email,created\na@x.test,1\n\xff@x.test,1\n" + long + b"\nb@x.test,1\n" + b'"' + long)
    assert [e["recipient"] for e in entries(found)] == ["a@x.test", "b@x.test"]
    assert [(line, "UTF-8" in text or "longer" in text) for line, text in faults(found)] == [
        (3, True),
        (4, True),
        (6, True),
    ]


def test_memory_does_not_grow_with_the_file():
    class Endless(io.RawIOBase):
        left = 2_000_000

        def readable(self):
            return True

        def read(self, size=-1):
            size = min(size, self.left)
            self.left -= size
            return (b"email,created\n" + b"a@x.test,1699999000\n" * (size // 20 + 1))[:size]

    tracemalloc.start()
    try:
        for found in rows(Endless()):
            assert found.line
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300) | st.text("{}[]\",:\\\n\r'=ab@.;\t1é", max_size=200).map(str.encode))
def test_no_file_is_too_strange(raw):
    for start in (b"", b"email,created\n", b"[", b'{"email": "'):
        try:
            found = read(start + raw)
        except lists.FileRefused:
            continue
        for each in found:
            assert each.line > 0


@pytest.mark.parametrize("piece", [b'"\n', b'{"', b"{", b'{"a":"\\', b'"a"b\n', b'{"a":1}', b",\n", b"\r"])
def test_hostile_files_are_read_in_time_that_grows_with_them(piece):
    """Not measured by a clock: a scan that is begun anew at every character would not end."""
    for start in (b"email,created\n", b"["):
        assert sum(1 for _ in rows(io.BytesIO(start + piece * 100_000))) <= 200_001


# -- ours ----------------------------------------------------------------------------------------------------------------


def in_force(**fields):
    return {
        "recipient": "r@there.test", "tenant": "acme", "reason": "complaint", "since": NOW - 9, "at": NOW - 5, "expires_at": None,
        "source": "classify", "by": "", "cause": "abuse", "detail": "ARF",
        "evidence": [{"evidence": "m0", "reason": "hard_bounce", "at": NOW - 9}, {"evidence": "r1", "reason": "complaint", "at": NOW - 5}],
        **fields,
    }  # fmt: skip


def exported(*listed):
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(lists.OWN)
    writer.writerows(lists.row(entry) for entry in listed)
    return out.getvalue()


def test_our_own_export_comes_back():
    (entry,) = entries(read(exported(in_force(expires_at=NOW + DAY_MS)), tenant=None, by="jo"))
    assert entry == {
        "recipient": "r@there.test", "tenant": "acme", "action": "add", "reason": "complaint", "at": NOW - 5, "evidence": "r1",
        "detail": "ARF", "expires_at": NOW + DAY_MS, "source": "csv", "by": "jo", "cause": "abuse", "message_id": "",
    }  # fmt: skip
    assert entries(read(exported(in_force()), tenant=""))[0]["tenant"] == "", "another list, when told so"


@pytest.mark.parametrize(
    "text", ["=cmd|' /C calc'!A0", "+1@x.test", "-2+3@x.test", "@x", "'=1", "''=1", "'plain", "it's", "", 'a,b"c']
)
def test_no_cell_is_computed_and_all_come_back(text):
    line = exported(in_force(detail=text, cause=text)).splitlines()[1]
    for cell in next(csv.reader([line])):
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    (entry,) = entries(read(exported(in_force(detail=text, cause=text)), tenant=None))
    assert (entry["detail"], entry["cause"]) == (text, text)


def test_addresses_that_look_like_formulas_are_addresses():
    (entry,) = entries(read(exported(in_force(recipient="=1+2@there.test")), tenant=None))
    assert entry["recipient"] == "=1+2@there.test"


def test_an_export_has_one_line_for_an_entry():
    assert len(exported(in_force(detail="one\r\ntwo\0\x1b[2J", expires_at=1 << 62)).splitlines()) == 2


def test_the_same_file_again_has_the_same_evidence():
    text = "email,created,ip\na@x.test,1699999000,192.0.2.1\n"
    assert entries(read(text)) == entries(read(text))
    assert entries(read(text))[0]["evidence"] == "SendGrid spam reports complaint 2023-11-14T21:56:40.000Z"
    assert entries(read("email,created\na@x.test,\n"))[0]["evidence"] == "SendGrid unsubscribes unsubscribe undated"


def test_rows_of_a_file_have_lower_case_columns():
    assert list(rows(io.BytesIO(b"A, B \n1,2\n"))) == [Row(2, {"a": "1", "b": "2"})]
