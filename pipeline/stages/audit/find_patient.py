"""Find the one patient that a name means: by pseudonym or Patient ID, before and after an erasure."""

from __future__ import annotations

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.patients import find_merged, find_patient
from pipeline.data.catalogue.schema import Patient
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.dicom.identity.pseudonyms import Pseudonyms
from pipeline.errors import CatalogueError


def find_patient_to_forget(settings: Settings, name: str) -> str:
    """Return the pseudonym of a patient.

    After an erasure the crosswalk no longer leads to a Patient ID; the key still makes its pseudonym.

    Args:
        settings: the workspace.
        name: a pseudonym, a Patient ID, or ID^^^ISSUER.

    Raises:
        CatalogueError: no patient, or more than one, has that name; the message does not repeat it.
    """
    with Catalogue.open(settings) as catalogue, Crosswalk.open(settings) as crosswalk:
        try:
            return find_patient(catalogue, crosswalk, name)
        except CatalogueError:
            number, _, issuer = name.strip().partition("^^^")
            if not number or crosswalk.find_patients(number, issuer):
                raise
            with Pseudonyms.open(settings) as pseudonyms, catalogue.reading() as session:
                pseudonym = find_merged(session, pseudonyms.patient(issuer or settings.site, number))
                if session.get(Patient, pseudonym) is None:
                    raise
                return pseudonym
