"""SPF: the suite of openspf.org, and the cost of records."""

from pathlib import Path

import pytest
import yaml

from postroad.spf import SpfError, Temporary, check, parse, survey

CORPUS = Path(__file__).parents[3] / "shared" / "corpora" / "spf"


class Zone:
    """DNS as the suite writes it."""

    def __init__(self, data):
        self.data = {name.lower().rstrip("."): entries for name, entries in data.items()}
        for entries in self.data.values():
            if not any(isinstance(each, dict) and "TXT" in each for each in entries):
                texts = [each["SPF"] for each in entries if isinstance(each, dict) and "SPF" in each]
                entries += [{"TXT": text} for text in texts]

    def __call__(self, name, kind):
        entries = self.data.get(name.lower().rstrip("."), [])
        found = [each[kind] for each in entries if isinstance(each, dict) and each.get(kind, "NONE") != "NONE"]
        if not found and "TIMEOUT" in entries:
            raise Temporary(f"no answer for {name}")
        if not found and (alias := [each["CNAME"] for each in entries if isinstance(each, dict) and "CNAME" in each]):
            return self(alias[0], kind) if alias[0].rstrip(".").lower() != name.rstrip(".").lower() else ()
        if "TIMEOUT" in found:
            raise Temporary(f"no answer for {name}")
        if kind == "TXT":
            return tuple("".join(each) if isinstance(each, list) else each for each in found)
        if kind == "MX":
            return tuple(host for _, host in sorted(found))
        return tuple(each.rstrip(".") for each in found)


def suite():
    path = CORPUS / "rfc7208-tests.yml"
    if not path.exists():
        return [pytest.param(None, None, marks=pytest.mark.skip(reason="the corpora are not here"))]
    scenarios = [scenario for scenario in yaml.load_all(path.read_text("utf-8"), yaml.CSafeLoader) if scenario]
    return [
        pytest.param(scenario["zonedata"], case, id=name)
        for scenario in scenarios
        for name, case in scenario["tests"].items()
    ]


@pytest.mark.parametrize(("data", "case"), suite())
def test_suite_of_rfc7208(data, case):
    wanted = case["result"] if isinstance(case["result"], list) else [case["result"]]
    sender = case["mailfrom"]
    evaluation = check(case["host"], sender, case["helo"], Zone(data))
    assert evaluation.result(sender.rpartition("@")[2] or case["helo"]) in wanted, evaluation.why


def records(**texts):
    return Zone({name.replace("_", "."): [{"TXT": text}] for name, text in texts.items()})


def test_look_ups_are_counted_through_all_includes():
    zone = records(
        a_test="v=spf1 include:b.test include:c.test mx -all",
        b_test="v=spf1 a:x1.test a:x2.test a:x3.test a:x4.test -all",
        c_test="v=spf1 exists:%{i}.x.test ptr ip4:192.0.2.0/24 redirect=d.test",
        d_test="v=spf1 +all",
    )
    found = survey("a.test", zone)
    assert (found.lookups, found.voids, found.faults, found.open) == (10, 5, [], ["d.test"])
    assert found.included == {"b.test", "c.test", "d.test"}


def test_what_is_wrong_in_an_included_record_is_told():
    zone = records(a_test="v=spf1 include:b.test include:none.test include:a.test", b_test="v=spf1 ip4:300.1.1.1")
    found = survey("a.test", zone)
    assert "b.test: 'ip4:300.1.1.1'" in found.faults[0] and "none.test has no SPF record" in found.faults[1]
    assert "circle" in found.faults[-1]


@pytest.mark.parametrize(
    "text", ["v=spf1 include", "v=spf1 a:", "v=spf1 mx/33", "v=spf1 ip4:1.2.3", "v=spf1 al", "v=spf1 " + "%" * 999]
)
def test_terms_that_are_none(text):
    with pytest.raises(SpfError):
        parse(text)
