"""Services that read and write the reading list, opened on one catalogue."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.chain import Chain
from pipeline.data.labels.finding_codes import load_coded_findings
from pipeline.data.store.pixel_store import PixelStore
from pipeline.review.accession import Accession
from pipeline.review.audit import Audit
from pipeline.review.decisions import Decisions
from pipeline.review.drafts import Drafts
from pipeline.review.earlier_studies import EarlierStudies
from pipeline.review.first_looks import FirstLooks
from pipeline.review.hanging import load_hangings
from pipeline.review.locks import Locks
from pipeline.review.logins import Logins
from pipeline.review.sessions import Sessions
from pipeline.review.study_dates import StudyDates
from pipeline.review.users import Passwords, Users
from pipeline.review.viewer_link import ViewerLink
from pipeline.review.worklist import Worklist

if TYPE_CHECKING:
    from argon2 import PasswordHasher


class Review:
    """The reading list and its services; safe to share between threads, and between processes through the database.

    Args:
        catalogue: an open catalogue; the caller closes it.
        settings: the workspace.
        has_pixels: returns whether the pixels of a key exist; by default the pixel store is checked.
        hasher: password hasher; by default argon2 with its current parameters.

    Raises:
        ConfigError: the coded findings or the hangings cannot be read, or the address of the viewer is not valid.
        IdentityError: the key of the hash chains is exposed, damaged or missing.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        settings: Settings,
        has_pixels: Callable[[str], bool] | None = None,
        hasher: PasswordHasher | None = None,
    ) -> None:
        self.policy = settings.review
        chain = Chain.open(settings, catalogue)
        has_pixels = has_pixels or PixelStore(settings.store).exists
        self.audit = Audit(catalogue, chain)
        self.users = Users(catalogue, self.audit, self.policy, Passwords(hasher))
        self.logins = Logins(catalogue, self.users, self.audit, self.policy, chain.derive_key(b"devices"))
        self.sessions = Sessions(catalogue, self.users, self.audit, self.policy)
        self.worklist = Worklist(catalogue, Accession(catalogue, settings, self.audit))
        self.locks = Locks(catalogue, self.audit, self.policy)
        self.drafts = Drafts(catalogue)
        self.first_looks = FirstLooks(catalogue, self.audit)
        self.dates = StudyDates(settings)
        self.earlier = EarlierStudies(catalogue, self.dates)
        self.viewer = ViewerLink(settings, self.audit)
        self.hangings = load_hangings(self.policy)
        self.decisions = Decisions(
            catalogue, chain, self.audit, self.policy, load_coded_findings(self.policy), has_pixels
        )
