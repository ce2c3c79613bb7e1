"""Return paths: signed, read back, and refused when anybody has changed or made them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.ids import message_id
from postroad.returnpath import Forged, ReturnPathError, ReturnPaths, named
from postroad.settings import Settings, SettingsError, listing, read
from topics.catalogue import REPORTS

ID = message_id(1_700_000_000_000, "t", "s", "0:1", "r@there.test")
OTHER = message_id(1_700_000_000_000, "t", "s", "0:2", "r@there.test")
OURS = ReturnPaths([b"a secret of sixteen and more"])
PATH = OURS.sign(ID, "b.acme.test")


def test_a_return_path_comes_back():
    assert re.fullmatch(r"b-[0-9a-v]{26}-[0-9a-v]{16}@b\.acme\.test", PATH)
    assert len(PATH.partition("@")[0]) == 45
    assert OURS.message_of(PATH) == ID == named(PATH)


@pytest.mark.parametrize(
    "mangle", [str.upper, str.title, str.swapcase, lambda path: path.replace("@b.acme.test", "@B.Acme.Test")]
)
def test_case_is_no_matter(mangle):
    assert OURS.message_of(mangle(PATH)) == ID
    assert REPORTS.key({"rcpt_to": mangle(PATH)}) == ID == named(mangle(PATH))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (PATH.replace(ID, OTHER), "made up"),
        (ReturnPaths([b"another secret, also long"]).sign(ID, "b.acme.test"), "made up"),
        (f"b-{ID}-{'0' * 16}@b.acme.test", "made up"),
        (f"b-{ID}@b.acme.test", "not signed"),
        (PATH.replace("@", "+extension@"), "no return path"),
        (PATH.replace("@", "-owner@"), "no return path"),
        (PATH.replace("@", "=there.test@"), "no return path"),
        (PATH.replace("b-", "prvs=1234abcdef=b-"), "no return path"),
        (PATH.replace("@", "é@"), "no return path"),
        (PATH.replace("@", "\n@"), "no return path"),
        ("postmaster@acme.test", "no return path"),
        ("b-@acme.test", "no return path"),
        ("@", "no return path"),
        ("", "no return path"),
        (PATH.partition("@")[0], "no return path"),
    ],
)
def test_what_is_forged_or_mangled_is_refused_and_says_why(address, said):
    with pytest.raises(ReturnPathError, match=said):
        OURS.message_of(address)


def test_every_truncation_is_refused():
    local = PATH.partition("@")[0]
    for end in range(len(local)):
        with pytest.raises(ReturnPathError):
            OURS.message_of(f"{local[:end]}@b.acme.test")


@given(st.integers(0, 44), st.characters(min_codepoint=33, max_codepoint=0x17F))
def test_no_letter_can_be_changed(at, letter):
    local = PATH.partition("@")[0]
    changed = local[:at] + letter + local[at + 1 :]
    if changed.lower() != local:
        with pytest.raises(ReturnPathError):
            OURS.message_of(f"{changed}@b.acme.test")


@given(st.text(max_size=80))
def test_any_text_has_the_lane_that_the_catalogue_gives_it(text):
    assert named(text) == REPORTS.key({"rcpt_to": text})


def test_secrets_rotate():
    new = ReturnPaths([b"the new secret, long as well", b"a secret of sixteen and more"])
    assert new.message_of(PATH) == ID
    assert new.sign(ID, "b.acme.test") != PATH
    with pytest.raises(ReturnPathError):
        OURS.message_of(new.sign(ID, "b.acme.test"))


def test_mail_from_before_signatures_is_believed_where_that_is_set():
    lenient = ReturnPaths([b"a secret of sixteen and more"], unsigned=True)
    assert lenient.message_of(f"b-{ID}@acme.test") == ID
    with pytest.raises(ReturnPathError):
        lenient.message_of(f"b-{ID}-{'0' * 16}@acme.test")


def test_the_setting(monkeypatch):
    monkeypatch.setenv("POSTROAD_RETURN_PATH_SECRET", "the new secret of this year,a secret of sixteen and more")
    settings = read()
    assert settings.return_paths().message_of(PATH) == ID
    assert not any("secret of sixteen" in line.value for line in listing(settings)), "shown to nobody"
    monkeypatch.setenv("POSTROAD_RETURN_PATH_SECRET", "hunter2")
    with pytest.raises(SettingsError, match="16 characters") as caught:
        read()
    assert "hunter2" not in str(caught.value)


def test_without_a_secret_workers_of_one_installation_agree_and_others_do_not():
    path = Settings(topic_prefix="a-").return_paths().sign(ID, "acme.test")
    assert Settings(topic_prefix="a-").return_paths().message_of(path) == ID
    with pytest.raises(ReturnPathError):
        Settings(topic_prefix="b-").return_paths().message_of(path)


# the other two places that name a message


@pytest.mark.parametrize("mangle", [str.upper, str.title, lambda text: f" {text}\t"])
def test_a_mark_comes_back(mangle):
    assert OURS.message_of_mark(mangle(PATH.partition("@")[0])) == ID


@pytest.mark.parametrize("mangle", [str.upper, lambda text: f" {text} ", lambda text: text.strip("<>")])
def test_a_message_id_comes_back(mangle):
    assert OURS.message_of_message_id(mangle(f"<{OURS.header_id(ID)}@acme.test>")) == ID


def test_a_tag_is_good_for_its_own_purpose_alone():
    tag, other = PATH.partition("@")[0][-16:], OURS.header_id(ID)[-16:]
    with pytest.raises(Forged):
        OURS.message_of(f"b-{ID}-{other}@b.acme.test")
    with pytest.raises(Forged):
        OURS.message_of_message_id(f"<{ID}.{tag}@acme.test>")


@pytest.mark.parametrize(
    "text",
    ["", "<>", "<a@b>", f"<{ID}@acme.test>", f"<{ID}.@acme.test>", PATH, "é" * 99, f"<{OURS.header_id(ID)}@a b>"],
)
def test_what_is_no_message_id_of_ours_says_so(text):
    with pytest.raises(ReturnPathError):
        OURS.message_of_message_id(text)
    with pytest.raises(ReturnPathError):
        OURS.message_of_mark(text)


def test_what_a_secret_before_has_signed_is_believed():
    old, both = (
        ReturnPaths([b"an older secret, also long"]),
        ReturnPaths([b"a secret of sixteen and more", b"an older secret, also long"]),
    )
    assert both.message_of_mark(old.sign(ID, "x").partition("@")[0]) == ID
    assert both.message_of_message_id(f"<{old.header_id(ID)}@x>") == ID
