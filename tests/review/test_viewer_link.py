"""The address of the site's viewer: http or https, a host that is written out, values that cannot leave their place."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from pipeline.errors import ConfigError
from pipeline.review.refusals import BadInput
from pipeline.review.viewer_link import EXAMPLE, PLACES, check_template, fill_template


@pytest.mark.parametrize(
    "template",
    [
        EXAMPLE,
        "http://pacs.local:8042/app?study={study_uid}&who={patient_id}#{accession_number}",
        "https://[2001:db8::1]/{study_uid}",
    ],
)
def test_addresses_with_places_are_accepted(template: str) -> None:
    check_template(template)


@pytest.mark.parametrize(
    "template",
    [
        "",
        "/viewer?{study_uid}",
        "//viewer.example/{study_uid}",
        "javascript:alert({study_uid})",
        "data:text/html,{study_uid}",
        "ftp://viewer.example/{study_uid}",
        "https:///{study_uid}",
        "https://{study_uid}/",
        "https://{study_uid}.example/",
        "https://user:password@viewer.example/{study_uid}",
        "https://viewer.example@evil.example/{study_uid}",
        "https://viewer.example/",
        "https://viewer.example/{series}",
        "https://viewer.example/{study_uid!r}",
        "https://viewer.example/{study_uid:>9}",
        "https://viewer.example/{study_uid.real}",
        "https://viewer.example/{study_uid[0]}",
        "https://viewer.example/{}",
        "https://viewer.example/{study_uid",
        "https://viewer.example:99999999/{study_uid}",
        "https://viewer.example/ {study_uid}",
        "https://viewer.example/\n{study_uid}",
        "https:\\\\viewer.example\\{study_uid}",
    ],
)
def test_any_other_template_is_refused(template: str) -> None:
    with pytest.raises(ConfigError):
        check_template(template)


def test_values_stay_in_their_place() -> None:
    nasty = {"study_uid": "1.2&x=<script>#/../", "accession_number": "a b/ü", "patient_id": "p@evil.example"}
    template = "https://viewer.example/{accession_number}/v?study={study_uid}&p={patient_id}"
    address = urlsplit(fill_template(template, nasty))
    assert (address.scheme, address.netloc, address.fragment) == ("https", "viewer.example", "")
    assert parse_qs(address.query) == {"study": [nasty["study_uid"]], "p": [nasty["patient_id"]]}
    assert address.path == "/a%20b%2F%C3%BC/v"


def test_a_missing_value_is_said_and_only_where_it_is_needed() -> None:
    values = dict.fromkeys(PLACES, "") | {"study_uid": "1.2"}
    assert fill_template("https://a.example/{study_uid}", values) == "https://a.example/1.2"
    with pytest.raises(BadInput):
        fill_template("https://a.example/{accession_number}", values)
