"""Codes and names of an image that may enter the catalogue: defined terms, and free words that name no person.

An element with defined terms is held to them, word by word: another word may be a name that somebody typed there. An
element without any (model, kernel, the later values of Image Type) loses a value with a word of this patient's name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from pydicom.dataset import Dataset

from pipeline.dicom.decode import vendors
from pipeline.dicom.decode.fields import (
    MODEL_NAME,
    read_code,
    read_first_item,
    read_optional_text,
    read_text,
    read_texts,
)
from pipeline.dicom.decode.persons import clean
from pipeline.dicom.decode.vocabulary import OTHER, VIEW_CODES

_WORD = re.compile(r"[^A-Z0-9]+")
# Conversion Type (0008,0064), PS3.3 C.8.6.1; Image Type (0008,0008), values 1 and 2, PS3.3 C.7.6.1.1.2 and C.8.16.1.
_CONVERSIONS = frozenset({"DV", "DI", "DF", "WSD", "SD", "SI", "DRW", "SYN"})
_TYPES = frozenset({"ORIGINAL", "DERIVED", "MIXED", "PRIMARY", "SECONDARY"})

# Body Part Examined (0018,0015): words of PS3.16 annex L, with those that scanners write in its place, in the languages
# of their consoles. Words may be joined, as in ABDOMENPELVIS.
_BODY = """
ABD ABDOMEN ABDOMINAL ACETABULUM ADRENAL ADRENALS AIRWAY AIRWAYS ANAL ANKLE ANKLES ANTERIOR ANUS AORTA AORTIC ARCH ARM
ARMS ARTERIAL ARTERIES ARTERY ATRIUM AXIAL AXILLA AXILLARY BACK BASE BASILAR BILE BILIARY BLADDER BODY BONE BONES BOWEL
BRACHIAL BRAIN BRAINSTEM BREAST BREASTS BRONCHUS BUTTOCK CALCANEUS CALF CANAL CARDIAC CAROTID CAROTIDS CARPAL CAVA
CAVITY CEREBELLUM CEREBRAL CEREBRUM CERVICAL CERVIX CHEEK CHEST CHOROID CIRCLE CLAVICLE CLAVICLES COCCYX COLON CORD
CORNEA CORONARY CRANIAL CRANIUM CSPINE DENTAL DISC DUCT DUODENUM EAR EARS ELBOW ELBOWS ENTIRE ESOPHAGUS EXTREMITIES
EXTREMITY EYE EYELID EYES FACE FACIAL FEET FEMORAL FEMUR FEMURS FETAL FETUS FIBULA FINGER FINGERS FOOT FOREARM FOREHEAD
FULL GALLBLADDER GENITAL GLAND GLUTEUS GROIN HAND HANDS HEAD HEART HEEL HEPATIC HIP HIPS HUMERUS HYPOPHARYNX IAC ILEUM
ILIAC ILIUM INNER INTERNAL INTESTINE JAW JEJUNUM JOINT JOINTS JUGULAR KIDNEY KIDNEYS KNEE KNEES KUB LARGE LARYNX LEFT
LEG LEGS LENS LIVER LONG LOWER LSPINE LSSPINE LUMBAR LUMBOSACRAL LUNG LUNGS LYMPH MAMMA MANDIBLE MASTOID MASTOIDS
MAXILLA MEDIASTINUM MIDDLE MOUTH MUSCLE MUSCULOSKELETAL NASAL NASOPHARYNX NECK NERVE NODE NODES NOSE OESOPHAGUS OPTIC
ORAL ORBIT ORBITS OROPHARYNX OTHER OVARIES OVARY PALATE PANCREAS PANORAMIC PARATHYROID PAROTID PATELLA PEL PELVIC PELVIS
PENIS PERINEUM PERITONEUM PHALANX PHANTOM PHARYNX PITUITARY PLACENTA PLEURA PLEXUS POPLITEAL PORTAL POSTERIOR PROSTATE
PULMONARY RADIUS RECTUM RENAL RETINA RETROPERITONEUM RIB RIBS RIGHT SACRAL SACROILIAC SACRUM SALIVARY SCALP SCAPULA
SCROTUM SELLA SHOULDER SHOULDERS SINUS SINUSES SKELETON SKIN SKULL SMALL SOFT SPECIMEN SPINAL SPINE SPLEEN SPLENIC
STERNOCLAVICULAR STERNUM STOMACH SUBCLAVIAN SUBMANDIBULAR SUPERIOR SYSTEM TEETH TEMPORAL TENDON TESTES TESTICLE THIGHS
TESTIS THALAMUS THIGH THORACIC THORACOLUMBAR THORAX THROAT THUMB THYMUS THYROID TIBIA TISSUE TMJ TOE TOES TONGUE TOOTH
TORSO TOTAL TRACHEA TRACT TRUNK TSPINE TURCICA ULNA UMBILICAL UNKNOWN UPPER URETER URETERS URETHRA URINARY UTERUS VAGINA
VASCULAR VEIN VEINS VENA VENOUS VENTRICLE VERTEBRA VERTEBRAE VESSEL VESSELS VULVA WHOLE WILLIS WRIST WRISTS ZYGOMA AND
WITH BOTH BILATERAL BAUCH BECKEN BRUST BWS FUSS GEHIRN HALS HERZ HUEFTE HWS KNIE KOPF LEBER LUNGE LWS MAMMOGRAPHIE NIERE
SCHAEDEL SCHULTER WIRBELSAEULE ABDO BASSIN CERVEAU COEUR COU CRANE EPAULE FOIE GENOU HANCHE MAIN PIED POUMON RACHIS REIN
SEIN TETE ADDOME ANCA CABEZA CADERA CEREBRO CERVELLO COLLO COLONNA COLUMNA CORAZON CRANEO CUELLO CUORE ENCEFALO FEGATO
GINOCCHIO HIGADO HOMBRO MAMA MANO PIE PIEDE RODILLA SPALLA TESTA TORACE TORAX
"""
# View Position (0018,5101): PS3.3 C.8.1.1 and the projections of PS3.16 CID 4010 and 4014, with the words of consoles.
_VIEWS = """
LATERAL LATERALS LATERO LAT RLD LLD RLO LLO MLO LMO XCC XCCL XCCM RCC LCC RMLO LMLO ISO SIO SPECIMEN TAN OBL OBLIQUE
OBLIQUES LPO RPO LAO RAO FRONTAL AXIAL SAGITTAL CORONAL TRANSVERSE SUPINE PRONE ERECT UPRIGHT STANDING SITTING DECUBITUS
DECUB CROSSTABLE CROSS TABLE HORIZONTAL VERTICAL SWIMMER SWIMMERS TOWNE TOWNES WATERS CALDWELL FROG FROGLEG LEG INLET
OUTLET ODONTOID DENS OPEN MOUTH SUNRISE SKYLINE MERCHANT TUNNEL NOTCH MORTISE SCAPHOID CARPAL AXILLARY GRASHEY INTERNAL
EXTERNAL ROTATION FLEXION EXTENSION NEUTRAL WEIGHT BEARING PORTABLE TANGENTIAL LORDOTIC APICAL MEDIAL MEDIOLATERAL
LATEROMEDIAL CRANIOCAUDAL DORSAL VOLAR PALMAR PLANTAR DORSOPLANTAR DORSOPALMAR ANTERIOR POSTERIOR ANTEROPOSTERIOR
POSTEROANTERIOR INFERIOR SUPERIOR CRANIAL CAUDAL LEFT RIGHT BILATERAL FULL PANORAMIC CEPH CEPHALOMETRIC OTHER UNKNOWN
NONE STEREO SPOT MAG MAGNIFICATION COMPRESSION BEDSIDE
"""


def _any_of(words: str) -> re.Pattern[str]:
    """Return the pattern of one or more of the words, joined, perhaps numbered, or of a vertebra such as T12."""
    return re.compile(rf"(?:{'|'.join(sorted(words.split(), key=len, reverse=True))})+[0-9]{{0,2}}|[A-Z][0-9]{{1,2}}")


_BODY_WORD, _VIEW_WORD = _any_of(_BODY), _any_of(_VIEWS)


@lru_cache(maxsize=4096)
def _held_to(value: str, words: re.Pattern[str]) -> str:
    """Return a code of allowed words, "" otherwise; two letters, such as C and L of spines, name nobody."""
    parts = [part for part in _WORD.split(value) if len(part) > 2]
    return value if all(map(words.fullmatch, parts)) else ""


def is_body_part(value: str) -> bool:
    """Return whether a body part enters the catalogue: it has no other words than those of anatomy."""
    return bool(_held_to(value.upper(), _BODY_WORD))


def is_view(value: str) -> bool:
    """Return whether a view enters the catalogue: it has no other words than those of projections."""
    return bool(_held_to(value.upper(), _VIEW_WORD))


def read_model(ds: Dataset, keyword: str, personal: frozenset[str]) -> str:
    """Return the name of a maker, model or kernel, which is free text of few characters."""
    value = read_optional_text(ds, keyword).replace("\\", "/")
    return clean(value, personal) if MODEL_NAME.fullmatch(value) else ""


def read_body_part(ds: Dataset, personal: frozenset[str]) -> str:
    """Return Body Part Examined, "" where it has another word than those of anatomy."""
    return clean(_held_to(read_code(ds, "BodyPartExamined"), _BODY_WORD), personal)


def read_view(ds: Dataset, personal: frozenset[str]) -> str:
    """Return View Position, "" where it has another word than those of projections; without one, the view's code."""
    position = read_code(ds, "ViewPosition")
    item = None if position else read_first_item(ds, "ViewCodeSequence")
    coded = VIEW_CODES.get(read_text(item, "CodeValue"), "") if item is not None else ""
    return clean(_held_to(position, _VIEW_WORD), personal) or coded


def read_laterality(ds: Dataset) -> str:
    """Return the side: L, R, B, U, or "" where neither the image nor the series has a valid one."""
    value = read_code(ds, "ImageLaterality") or read_code(ds, "Laterality")
    return value if value in ("L", "R", "B", "U") else ""


def read_conversion(ds: Dataset) -> str:
    """Return Conversion Type; another term than the defined ones becomes `OTHER`, as the image was converted."""
    value = read_code(ds, "ConversionType")
    return value if value in _CONVERSIONS or not value else OTHER


def read_image_type(ds: Dataset, personal: frozenset[str]) -> tuple[str, ...]:
    """Return Image Type in capitals: the first two values as defined, the later ones, which makers define, cleaned."""
    return hold_image_type(read_texts(ds, "ImageType"), personal)


def hold_image_type(values: Sequence[str], personal: frozenset[str]) -> tuple[str, ...]:
    """Return the values of an Image Type or Frame Type by the rules of `read_image_type`."""
    first, later = values[:2], values[2:]
    held = [_held_type(value.upper()) for value in first]
    return tuple(filter(None, (*held, *(clean(value.upper(), personal) for value in later))))


@lru_cache(maxsize=1024)
def _held_type(value: str) -> str:
    """Return a defined first or second value, of one that names a localiser the words that do, otherwise `OTHER`."""
    if not value or value in _TYPES:
        return value
    words = [word for word in _WORD.split(value) if _LOCALISER.fullmatch(word)]
    if words:
        return " ".join(words)
    return "LOCALIZER" if any(part in value for part in vendors.LOCALISER_PARTS) else OTHER


_LOCALISER = re.compile(
    rf"{'|'.join(vendors.LOCALISER_WORDS)}"
    rf"|(?:{'|'.join(vendors.LOCALISER_PARTS)})(?:S|E|ERS?|ED|ATION|ATOR|ATEUR|IERUNG|PE|PH|PHY|PHIE|M|MM|MS|ME|MA|FIA)?"
)
