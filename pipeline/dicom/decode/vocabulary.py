"""Vocabulary of the words that may leave a header's free text; all other words are dropped.

SeriesDescription and ProtocolName are typed by people, who also type names into them. Only tokens of this vocabulary
pass, in their canonical spelling, so that routes can tell a T1 from a FLAIR and nothing else gets through.
"""

from __future__ import annotations

import re
from functools import lru_cache

from pipeline.dicom.decode.phrases import content_tokens, plain

# Canonical token: other spellings with the same meaning.
_SYNONYMS = {
    "AX": "AXIAL TRA TRANS TRANSVERSE TRANSVERSAL",
    "COR": "CORONAL",
    "SAG": "SAGITTAL",
    "OBL": "OBLIQUE",
    "T1": "T1W T1WI T1_W",
    "T2": "T2W T2WI T2_W",
    "T2STAR": "T2* T2*W",
    "PD": "PDW",
    "FLAIR": "DARKFLUID TIRM",
    "DWI": "DIFF DIFFUSION TRACE TRACEW EPDWI",
    "ADC": "",
    "DTI": "",
    "SWI": "",
    "GRE": "FFE FLASH",
    "SE": "",
    "TSE": "FSE",
    "STIR": "",
    "MPRAGE": "MP-RAGE BRAVO IRSPGR SPGR TFE",
    "EPI": "",
    "BOLD": "FMRI",
    "ASL": "",
    "TOF": "",
    "MRA": "",
    "CTA": "",
    "ANGIO": "ANGIOGRAPHY",
    "PERF": "PERFUSION",
    "DIXON": "",
    "WATER": "",
    "FAT": "",
    "FS": "FATSAT FAT-SAT SPAIR SPIR",
    "PRE": "NATIVE NATIV PLAIN",
    "POST": "GD GAD GADO CONTRAST C+ +C CE KM",
    "ARTERIAL": "ART",
    "VENOUS": "VEN PORTAL PORTALVENOUS",
    "DELAYED": "DELAY LATE",
    "LUNG": "LUNGS PULMONARY",
    "BONE": "",
    "SOFT": "SOFTTISSUE",
    "STANDARD": "STD",
    "THIN": "",
    "BRAIN": "CEREBRUM",
    "HEAD": "SKULL CRANIUM NEURO",
    "NECK": "",
    "CHEST": "THORAX",
    "ABDOMEN": "ABD",
    "PELVIS": "",
    "SPINE": "CSPINE TSPINE LSPINE",
    "BREAST": "",
    "CARDIAC": "HEART",
    "LIVER": "",
    "KIDNEY": "",
    "PROSTATE": "",
    "HIP": "",
    "KNEE": "",
    "ANKLE": "",
    "FOOT": "",
    "SHOULDER": "",
    "ELBOW": "",
    "WRIST": "",
    "HAND": "",
    "PA": "",
    "AP": "",
    "LAT": "LATERAL",
    "LL": "",
    "MLO": "",
    "CC": "",
    "SUPINE": "",
    "PORTABLE": "BEDSIDE MOBILE",
    "2D": "",
    "3D": "",
    "MIP": "",
    "MINIP": "",
    "MPR": "REFORMAT",
    "SUB": "SUBTRACTION SUBTRACTED SUBTRAKTION SUBSTRACTION SOUSTRACTION SUSTRACCION SOTTRAZIONE",
    "PSIR": "PSMDE",
    "SCOUT": "",
    "SPECTRAL": "",
    "PHASE": "",
    "MAP": "",
    "CALIBRATION": "REFSCAN",
    "CAPTURE": "SCREENSHOT SCREENSHOTS SCREENSAVE SCREENCAPTURE BILDSCHIRMFOTO",
    "DOSE": "",
    "REPORT": "",
    "PHANTOM": "",
}
TOKENS = {spelling: token for token, others in _SYNONYMS.items() for spelling in (token, *others.split())}

# Defined terms of Modality (PS3.3 C.7.3.1.1.1, with retired ones); any other is free text, which may hold a name.
_MODALITIES = """
ANN AR ASMT AU BDUS BI BMD CFM CR CT CTPROTOCOL DMS DG DOC DX ECG EEG EMG EOG EPS ES FID GM HC HD IO IOL IVOCT IVUS KER
KO LEN LS M3D MG MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT PX REG RESP RF RG RTDOSE RTIMAGE
RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG SM SMR SR SRF STAIN TEXTUREMAP TG US VA XA XAPROTOCOL XC
AS CD CF CP CS DD DF DM DS EC FA FS HISTG LP MA MS OPR ST VF
"""
MODALITIES = frozenset(_MODALITIES.split())
OTHER = "OT"
LUT_SHAPES = frozenset({"IDENTITY", "INVERSE"})  # PS3.3 C.11.6

# Words are split at everything but letters, digits and the + and * of C+ and T2*.
_SPLIT = re.compile(r"[^A-Z0-9+*]+")

# Tokens that say what the pixels are; `phrases` decides on the first four by the words around them.
_BY_PHRASE = frozenset({"SCOUT", "SPECTRAL", "PHASE", "MAP"})
OF_THE_SERIES = _BY_PHRASE | {"ADC", "CALIBRATION", "DOSE", "REPORT", "MIP", "MINIP", "MPR", "SUB", "CAPTURE"}


@lru_cache(maxsize=4096)
def tokens_of(*free_text: str) -> tuple[str, ...]:
    """Return the vocabulary tokens of free text, sorted and unique; unlisted words are dropped."""
    tokens: set[str] = set()
    for text in free_text:
        capitals = plain(text)
        words = [word for word in _SPLIT.split(capitals) if word]
        tokens |= {TOKENS[word] for word in words if word in TOKENS} - _BY_PHRASE
        tokens |= content_tokens(capitals, words)
    return tuple(sorted(tokens))


# Codes of PS3.16 CID 4010 and 4014 (SNOMED CT and the older SNOMED-RT) to terms of ViewPosition (0018,5101).
VIEW_CODES = {
    "399348003": "AP",
    "R-10206": "AP",
    "272479007": "PA",
    "R-10214": "PA",
    "399173006": "LL",
    "R-10236": "LL",
    "399198007": "RL",
    "R-10232": "RL",
    "399162004": "CC",
    "R-10242": "CC",
    "399368009": "MLO",
    "R-10226": "MLO",
    "399260004": "ML",
    "R-10224": "ML",
    "399352003": "LM",
    "R-10228": "LM",
}
