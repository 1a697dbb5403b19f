"""Link from a scan to its study in the site's own viewer or PACS, filled in from the crosswalk when it is opened.

The page of a scan never holds a real identifier: the link leads to the server, which checks the role, records the
access and redirects to the address that the template gives.
"""

from __future__ import annotations

from string import Formatter
from urllib.parse import quote, urlsplit

from pipeline.config import Settings
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.errors import ConfigError
from pipeline.review.audit import Audit
from pipeline.review.permissions import Actor, may_identify
from pipeline.review.refusals import BadInput, NotAllowed
from pipeline.review.worklist import Row

PLACES = ("study_uid", "accession_number", "patient_id")
EXAMPLE = "https://viewer.example/viewer?StudyInstanceUIDs={study_uid}"


class ViewerLink:
    """Make the addresses of studies in the site's viewer; without a template, no link is offered.

    Raises:
        ConfigError: the template in the settings is not an http or https address with places that exist.
    """

    def __init__(self, settings: Settings, audit: Audit) -> None:
        self._settings, self._audit, self._policy = settings, audit, settings.review
        self._template = settings.review.viewer_url
        if self._template is not None:
            check_template(self._template)

    def may_offer(self, actor: Actor) -> bool:
        """Return whether the site has a viewer and the actor may see real identifiers."""
        return self._template is not None and may_identify(actor, self._policy)

    def is_open(self, row: Row) -> bool:
        """Return whether the link works yet: a PACS shows what was pushed, so that it would tell a flagged scan."""
        return row.revealed or self._policy.viewer_blind

    def find_address(self, row: Row, actor: Actor) -> str:
        """Return the address of a scan's study in the site's viewer; the access is recorded first.

        Raises:
            NotAllowed: no viewer is configured, the actor may not see real identifiers, or the scan is still read
                blind.
            BadInput: the study lacks an identifier that the template needs.
            IdentityError: the study is not in the crosswalk.
        """
        if self._template is None:
            raise NotAllowed("No viewer is configured. An admin can set review: {viewer_url: ...} in settings.yaml.")
        subject = f"finding:{row.finding_id}"
        if not self.may_offer(actor) or not self.is_open(row):
            self._audit.record("site-viewer", actor, subject, {"refused": True})
            raise NotAllowed(
                "The site's viewer opens once the scan is decided: it may show results that were sent there for "
                "flagged scans."
                if self.may_offer(actor)
                else f"Your role, {actor.role}, may not see real identifiers, which this link needs. Ask an admin."
            )
        self._audit.record("site-viewer", actor, subject)
        with Crosswalk.open(self._settings) as crosswalk:
            identity = crosswalk.find_identity(row.study_id)
        return fill_template(self._template, {name: getattr(identity, name) for name in PLACES})


def check_template(template: str) -> None:
    """Raise a ConfigError unless a template is an http or https address of one host, with places in path or query."""
    problem = _problem(template)
    if problem:
        raise ConfigError(
            f"review.viewer_url in settings.yaml is {template!r}, but {problem}. Write it like {EXAMPLE} with places "
            f"among {', '.join(f'{{{name}}}' for name in PLACES)}."
        )


def _problem(template: str) -> str:
    if not template.isprintable() or " " in template or "\\" in template:
        return "an address holds no blanks, backslashes or control characters"
    try:
        places = [part[1:] for part in Formatter().parse(template) if part[1] is not None]
        address = urlsplit(template)
        host = address.hostname
        _ = address.port
    except ValueError:
        return "it cannot be read as an address with places"
    if address.scheme not in ("http", "https") or not host:
        return "it does not begin with http:// or https:// and a host"
    if "@" in address.netloc or "{" in address.netloc:
        return "its host must be written out, without user names or places"
    unknown = [name for name, form, conversion in places if name not in PLACES or form or conversion]
    if unknown or not places:
        return f"{{{unknown[0]}}} is not a place" if unknown else "it names no study"
    return ""


def fill_template(template: str, values: dict[str, str]) -> str:
    """Return the address with URL-encoded values (BadInput: a value that the template needs is empty)."""
    needed = {name for _, name, _, _ in Formatter().parse(template) if name}
    empty = sorted(name for name in needed if not values[name])
    if empty:
        raise BadInput(
            f"The study has no {empty[0].replace('_', ' ')} in the crosswalk, which the address of the site's viewer "
            "needs. Search for it in the viewer."
        )
    return template.format(**{name: quote(value, safe="") for name, value in values.items()})
