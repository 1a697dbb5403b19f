"""Every route with odd parameters and fields: whatever comes, the answer is not a fault of the program.

Most requests carry a valid token, ids of real scans and a role that the route is for, so that handlers are reached;
`pytest -s` prints how often each status came.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import ReviewError
from pipeline.review.viewer_link import ViewerLink
from pipeline.review.web.access import new_token
from pipeline.review.web.app import create_app

EXAMPLES = int(os.environ.get("NIGHTREAD_FUZZ", "40"))  # of each route
DEEP = "[" * 50_000
ODD = [
    "",
    "0",
    "-1",
    "1e9",
    "9" * 19,
    "9" * 400,
    "1" * 10,
    "NaN",
    "٣",
    "\0",
    "%00",
    "../../etc",
    "a" * 5000,
    "<b>",
    "'\"",
    "ß",
    "\u202e",
    "0001-01-01",
    "9999-12-31",
    "2026-02-30",
    "2026-11-29",
    "10000-01-01",
    "null",
    "{}",
    "[]",
    DEEP,
    '{"a":' * 3000,
    "\ud800",
    '{"stack":0,"index":0,"points":[[0,0],[1e999,1],[2,0]]}',
    '{"stack":1e400,"index":0,"points":[[0,0],[1,1],[2,0]]}',
    '{"stack":0,"index":0,"points":[[0,0],[1,1],[2,0]]}',
    "confirmed",
    "second-opinion",
    "a-token-of-a-form",
    "ann",
    "ben",
    "reader",
    "day",
    "held",
    "open",
    "all",
    "0,0,8,8",
    "0,0,0,0",
    "9999999,9999999,9999999,9999999",
    "1.2.840",
    "a long enough passphrase",
]
FIELDS = (
    "outcome",
    "seen",
    "token",
    "code",
    "text",
    "comment",
    "region",
    "to",
    "accession",
    "first_look",
    "name",
    "role",
    "password",
    "old",
    "new",
    "again",
    "next",
    "csrf",
)
values = st.one_of(st.sampled_from(ODD), st.text(max_size=40), st.integers().map(str), st.just("1"))
# a client refuses to send an address above 64 KiB: a bracket takes three bytes, and a route has up to ten parameters
queries = st.one_of(
    st.sampled_from([one for one in ODD if len(one) < 1000]), st.just("[" * 1000), st.text(max_size=40),
    st.integers().map(str), st.just("1"),
)  # fmt: skip
paths = st.one_of(st.sampled_from([one for one in ODD if one and len(one) < 500]), st.integers(0, 8).map(str))
PASSWORD = "a long enough passphrase"
NEW_PASSWORD = "another long passphrase"
SEEN, TOKEN = "<seen>", "<token>"  # replaced by what the page of the scan would have held
SUITED = {"/users": "ada", "/audit": "aud"}  # who has the role for a route, by the beginning of its path; else the lead
# Valid values of fields; a form that needs one has it always, with a valid value three times out of four.
GOOD: dict[str, Sequence[str]] = {
    "outcome": ("confirmed", "dismissed", "unsure", "second-opinion"),
    "seen": (SEEN,),
    "token": (TOKEN,),
    "region": ("", '{"stack":0,"index":0,"points":[[0,0],[9,1],[2,7]]}'),
    "first_look": ("", "unsure"),
    "to": ("ann", "ben"),
    "accession": ("12345",),
    "name": ("ben", "zoe"),
    "role": ("reader", "auditor"),
    "password": (PASSWORD,),
    "old": (PASSWORD,),
    "new": (NEW_PASSWORD,),
    "again": (NEW_PASSWORD,),
}
NEEDED = {
    "decision": ("outcome", "seen", "token", "region"),
    "undo": ("seen", "token"),
    "draft": ("outcome", "token"),
    "heatmap": ("first_look",),
    "users": ("name", "role", "password"),
    "password": ("old", "new", "again", "password"),
    "login": ("name", "password"),
}


def operations() -> list[tuple[str, str]]:
    """Return method and path of every route, from the OpenAPI schema."""
    schema = create_app(None).openapi()["paths"]  # type: ignore[arg-type]
    return sorted((method.upper(), path) for path, methods in schema.items() for method in methods)


def parameters(method: str, path: str) -> dict[str, list[str]]:
    """Return the names of the parameters in the path and in the query."""
    described = create_app(None).openapi()["paths"][path][method.lower()].get("parameters", [])  # type: ignore[arg-type]
    return {place: [one["name"] for one in described if one["in"] == place] for place in ("path", "query")}


def mostly(good: Sequence[str], odd: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Return valid values three times out of four."""
    return st.integers(0, 3).flatmap(lambda turn: odd if turn == 3 else st.sampled_from(list(good)))


@pytest.fixture
def scans(enter: Callable[..., int], enter_earlier: Callable[..., str], listed: list[int]) -> list[int]:
    """Findings of the list; the first patient has an earlier study."""
    images = np.arange(2 * 32 * 32, dtype=np.uint16).reshape(2, 32, 32)
    finding = enter("fuzzed", [images], modality="MR")
    enter_earlier("fuzzed", "before", [images], modality="MR")
    return [finding, *listed[:2]]


@pytest.fixture
def valid_paths(room: Any, scans: list[int]) -> dict[str, Sequence[str]]:
    """Values of path parameters that exist."""
    return {
        "finding_id": [str(number) for number in scans],
        "stack": ("0",),
        "index": ("0",),
        "number": ("0",),
        "sha256": (room.read_finding(scans[0]).model_sha256[:16],),
        "name": ("ben", "zoe"),
        "what": ("disable", "enable", "password"),
        "kind": ("html", "pdf"),
    }


class Crowd:
    """Three people who are logged in again where a request has ended their session."""

    def __init__(self, browser: Callable[..., Any], room: Any, setup: Any) -> None:
        self._browser, self._room, self._setup = browser, room, setup
        self.of = {name: browser(name) for name in ("lea", "ada", "aud")}
        self.csrf = {name: self._token(name) for name in self.of}

    def _token(self, name: str) -> str:
        return self.of[name].csrf()

    def renew(self, name: str) -> None:
        """Log a user in again with the password that all have."""
        self._room.review.users.set_password(name, PASSWORD, self._setup)
        self.of[name] = self._browser(name)
        self.csrf[name] = self._token(name)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path"), operations())
def test_no_parameter_breaks_a_route(
    browser: Callable[..., Any],
    room: Any,
    setup: Any,
    scans: list[int],
    valid_paths: dict[str, Sequence[str]],
    method: str,
    path: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names, statuses = parameters(method, path), Counter[int]()
    crowd = Crowd(browser, room, setup)
    for number in scans[:1] if path.endswith("/heatmap") else scans:
        crowd.of["lea"].end_first_look(number)
    linked = room.review.policy.model_copy(update={"viewer_url": "https://a.example/{study_uid}", "viewer_blind": True})
    room.review.viewer = ViewerLink(room.settings.model_copy(update={"review": linked}), room.review.audit)
    suited = next((name for start, name in SUITED.items() if path.startswith(start)), "lea")
    inside = {name: mostly(valid_paths[name], paths) for name in names["path"]}
    needed = NEEDED.get(path.rpartition("/")[2], ())
    forms = {name: mostly(GOOD[name], values) for name in needed}
    optional = {name: values for name in FIELDS if name not in needed}

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(
        st.sampled_from([suited] * 6 + sorted(crowd.of)),
        st.fixed_dictionaries(inside),
        st.fixed_dictionaries({}, optional=dict.fromkeys(names["query"], queries)),
        st.fixed_dictionaries(forms, optional=optional),
        st.integers(0, 7),
    )
    def ask(name: str, place: dict[str, str], query: dict[str, str], form: dict[str, str], turn: int) -> None:
        url = path.format(**{key: _quoted(value) for key, value in place.items()})
        kwargs: dict[str, Any] = {}
        if method == "POST":
            filled = _filled(form, room, place.get("finding_id", ""))
            fields = {**filled, "csrf": "another" if turn == 7 else _csrf(crowd, name, path)}
            kwargs = {"content": _encoded(fields), "headers": {"content-type": "application/x-www-form-urlencoded"}}
        url += f"?{_encoded(query)}" if query else ""
        answer = crowd.of[name].client.request(method, url, **kwargs)
        statuses[answer.status_code] += 1
        assert answer.status_code < 500, (method, url[:300], answer.text[:300])
        if method == "POST" and path in ("/logout", "/password", "/login") and answer.status_code == 303:
            crowd.renew(name)

    ask()
    with capsys.disabled():
        counts = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))
        print(f"\n{method} {path}: {counts}")
    reached = sum(count for status, count in statuses.items() if status not in (403, 422))
    assert reached, "no request came past the checks of token, role and address"


def _csrf(crowd: Crowd, name: str, path: str) -> str:
    """Return a valid token: that of the log-in page, or of the session."""
    if path != "/login":
        return crowd.csrf[name]
    page = crowd.of[name].get("/login").text
    return page.split('name="csrf" value="')[1].split('"')[0]


def _filled(form: dict[str, str], room: Any, finding_id: str) -> dict[str, str]:
    """Return the form with what only a page of the scan can know."""
    known_scan = finding_id.isascii() and finding_id.isdigit() and len(finding_id) < 6
    try:
        seen = room.review.worklist.read_row(int(finding_id)).decision_id if known_scan else 0
    except ReviewError:
        seen = 0
    return {key: {SEEN: str(seen), TOKEN: new_token()}.get(value, value) for key, value in form.items()}


def _encoded(fields: dict[str, str]) -> str:
    return "&".join(f"{key}={_quoted(value)}" for key, value in fields.items())


def _quoted(value: str) -> str:
    from urllib.parse import quote

    return quote(value.encode("utf-8", "surrogatepass"), safe="")
