"""Vendor knowledge: the deviations from the standard that readers must expect, and the words that scanners use.

`Assumed` names every deviation that is read in spite of it; an image carries the names of its own in
`InstanceAttributes.assumed`, so that nothing is repaired silently. Each has its source here and a test in
`tests/dicom/decode/test_vendors.py`. The words are values of Image Type and names of sequences, by what they say about
the pixels; `pipeline.dicom.decode.content` applies them.
"""

from __future__ import annotations

import re
from enum import StrEnum


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _lines(text: str) -> frozenset[str]:
    return frozenset(map(str.strip, text.split(",")))


class Assumed(StrEnum):
    """A deviation that was read in spite of it; the value is stored in the catalogue and is never renamed."""

    SCAN_HEADER = "jpeg-scan-header"
    UNUSED_BITS = "unused-bits-in-stream"
    STREAM_SIGN = "sign-of-stream"
    VOI_LUT_SIGN = "voi-lut-sign"
    VOI_LUT_BITS = "voi-lut-bits"
    RLE_FRAGMENTS = "rle-fragments"
    FINAL_DELIMITER = "missing-final-delimiter"
    LOWER_CASE = "lower-case-photometric"
    IGNORED = "ignored"  # followed by a colon and the keyword of the element


SOURCES = {
    Assumed.SCAN_HEADER: "ISO/IEC 10918-1 B.2.3 fixes Ss = 0, Se = 63, Ah = Al = 0 for sequential scans, and decoders "
    "of the DCT need none of them. The NEMA WG-04 files of 12-bit JPEG (JPLY) and encoders derived from the same code "
    "write Se = 0; GDCM and DCMTK read them, libjpeg-turbo and libjpeg of pylibjpeg refuse them.",
    Assumed.UNUSED_BITS: "PS3.5 8.1.1 and 8.2: bits outside Bits Stored are not part of the sample. Archives that "
    "compress losslessly what old scanners wrote, overlays in bits 12 to 15 included, code all 16 bits (pydicom issue "
    "2066).",
    Assumed.STREAM_SIGN: "PS3.5 8.2: the elements of an image have to agree with the compressed stream. Where the sign "
    "of a JPEG 2000 stream is not that of Pixel Representation, the same bits are read with the header's sign, as "
    "by pydicom, ITK and GDCM.",
    Assumed.VOI_LUT_SIGN: "PS3.3 C.11.2.1.1: the first value mapped has the sign of the modality step's output. In "
    "implicit VR its representation is not written, and toolkits take it from Pixel Representation.",
    Assumed.VOI_LUT_BITS: "PS3.3 C.11.2.1.1: the third value of LUT Descriptor is the number of bits of the entries. "
    "Radiography systems write 16 for tables of 10 or 12 bits; viewers take the bits that the entries use.",
    Assumed.RLE_FRAGMENTS: "PS3.5 A.4.2 allows one fragment per RLE frame. Gateways that split all encapsulated data "
    "at a fixed length write several; a frame begins with the RLE header (PS3.5 G.5).",
    Assumed.FINAL_DELIMITER: "PS3.5 A.4 ends encapsulated pixel data with a Sequence Delimitation Item. Writers that "
    "stream frames and never close the element leave it out; every fragment is complete.",
    Assumed.LOWER_CASE: "PS3.5 6.2: a code string has capital letters only. Converters write `Monochrome2`, which can "
    "mean one thing only.",
    Assumed.IGNORED: "PS3.5 6.2: a number that is not one. Only elements are ignored without which the image can "
    "be read, placed and ordered.",
}

# Image Type (0008,0008) from value 3 on, and equivalent words of descriptions. PS3.3 C.8.2.1.1.1 has LOCALIZER for CT;
# others are Philips and Picker (SURVIEW, PILOT, SURVEY), GE (SCOUT), Siemens (TOPOGRAM), Toshiba and Canon
# (SCANOSCOPE, SCANOGRAM), in the languages of their consoles.
LOCALISER_PARTS = (
    "LOCALIZ", "LOCALIS", "LOCALIDOR", "LOKALIS", "LOKALIZ", "SCOUT", "TOPOGRA", "SURVIEW", "SCANOSCO", "SCANOGRA",
    "SCANVIEW", "PLANSCAN", "UEBERSICHT", "UBERSICHT", "PLANUNGSAUFN", "PLANUNGSSEQ", "RADIOGRAMM", "COILSURV",
)  # fmt: skip
# These also name a reason for the scan: loss of consciousness, bone survey, pilot study.
SHARED_LOCALISER_WORDS = _words("LOC SURVEY PILOT PILOTE")
LOCALISER_WORDS = SHARED_LOCALISER_WORDS | _words(
    "TOPO SCANO REPERAGE REPERE REPERES LOCATOR OVERZICHT CENTRAGE POSIZIONAMENTO POSICIONAMENTO POSICIONAMIENTO"
)
# Slices that only watch the contrast agent arrive, before the series that is read.
BOLUS_WORDS = _words("PREMON PREMONITORING SMARTPREP TESTBOLUS")
BOLUS_PAIRS = _lines("TEST BOLUS, TIMING BOLUS, BOLUS TIMING, BOLUS MONITORING, BOLUS MONITOR, CARE BOLUS")
LOCALISER_PAIRS = _lines("PLAN SCAN, MODE RADIO, RADIO MODE")
TOPOGRAM_TYPE = re.compile(r"CT_SOM[0-9]+[ _]TOP")  # beside LOCALIZER, or after an anonymiser without it
# Of a lesion or a pain, in the words for "localised", "localisation" and "topography" of the same languages.
LOCALISATION = re.compile(
    r"[A-Z]*LO[CK]ALI[SZ]AT?IONS?|LOCALI[SZ]ED|LOCALISEE?S?|LOKALISIERT[A-Z]*|LOCALI[SZ]AD[OA]S?|LOCALIZZAT[OAIE]|"
    r"LOCALI[SZ]ACION(ES)?|LOCALI[SZ]ACAO|LOCALIZZAZION[EI]|TOPOGRA(PH|F)[A-Z]*"
)
IN_PLANES = re.compile(r"\b(3|THREE|DREI|TROIS|TRES|TRE)[ -]*(PLAN|EBENEN|PIANI)")
NO_LOCALISER = _words(
    "TRAUMA INJURY FALL FELL MVA MVC SYNCOPE HEADACHE WITH WITHOUT W WO NO BONE SKELETAL SKELETON SKELETT MYELOMA "
    "METS METASTATIC METASTASIS METASTASES LYMPHOMA MPRAGE FLAIR STIR DWI CTA"
)

# What a spectral CT computes instead of attenuation: PS3.3 C.8.15.3.1.4 (multi-energy Image Type value 4) and the words
# of GE (GSI), Siemens (dual energy), Philips (spectral base images) and Canon.
SPECTRAL_TYPES = _words(
    "VMI MONO MONOENERGETIC MONOE MONO_E MONOPLUS MAT_SPECIFIC MAT_REMOVED MAT_FRACTIONAL MAT_VALUE_BASED "
    "MAT_MODIFIED EFF_ATOMIC_NUM ELECTRON_DENSITY PROP_WEIGHT MATERIAL MATERIAL_DENSITY BASIS BASIS_MATERIAL IODINE "
    "IOD JOD IODE YODO IODIO IODINE_MAP IODINE_DENSITY IODINE_NO_WATER IODINE_CONC GADOLINIUM XENON URIC_ACID "
    "URICACID CALCIUM WATER HAP ZEFF Z_EFF Z_EFFECTIVE RHO RHO_Z EDENSITY E_DENSITY VNC VNCA VIRTUAL_NON_CONTRAST VUE "
    "CONTRAST_AGENT OVERLAY DE_IODINE DE_MAP CALCIUM_SUPPRESSED PHOTOELECTRIC COMPTON SPECTRAL_MAP"
)
# Siemens names its beam hardening so; with dual energy the value is "CT_SOM5 SPI DUAL".
PLAIN_WATER = re.compile(r"CT_SOM[0-9]+_SPI")
SPECTRAL_TYPE_WORDS = _words("IODINE IODINEMAP VNC VNCA VMI MONO ZEFF LUNGPBV PBV SPECTRAL MONOE MONOPLUS")
SPECTRAL_WORDS = _words(
    "JODKARTE IODINEMAP JODBILD ZEFF VNC VNCA VMI MONOE MONOENERGETIC MONOPLUS MONOENERGETISCH ELEKTRONENDICHTE "
    "HARNSAURE HARNSAEURE PBV"
)
FRENCH_VIEW = _words("AXIALE CORONALE SAGITTALE FRONTALE LATERALE OBLIQUE DE DU D 3D")  # behind "vue", GE's VUE else
IODINE_WORDS = _words("IODINE IOD JOD IODE YODO IODIO")  # also the contrast agent, as in "avec iode" or "Jod 300"
MONO_WORDS = _words("MONO MONO+ MONOCHROMATIC")  # before the energy: "Mono 55"
WITH_CONTRAST = _words(
    "SANS AVEC CON SIN SENZA OHNE MIT KM WITH WITHOUT W WO NO NON POST PRE AFTER ORAL IV PO COM SEM MET ZONDER APRES "
    "AVANT NACH DOPO DESPUES INJECTION INJEKTION INIEZIONE INYECCION ALLERGIE ALERGIA ALLERGY"
)
ABOUT_CONTRAST = _words(
    "ALLERGY ALLERGIC ALLERGIE ALERGIA CONTRAST CONTRASTE KONTRAST KONTRASTMITTEL FREE GIVEN INJECTION "
    "HALTIG HALTIGES HALTIGEM"
)
AMOUNT = re.compile(r"[0-9]+(ML|CC|MGI?|G)?")  # before the agent: "100ml Iodine"
AMOUNT_UNITS = _words("ML CC MG MGI G")
SPECTRAL_END = "KEV"  # of a virtual monoenergetic image, "40keV" or "40 keV"
SPECTRAL_PAIRS = _lines(
    "Z EFF, Z EFFECTIVE, EFFECTIVE Z, Z EFFECTIF, ELECTRON DENSITY, MATERIAL DENSITY, VIRTUAL NON, VIRTUAL "
    "UNENHANCED, VIRTUELL NATIV, VIRTUELLE NATIVE, VIRTUEL SANS, URIC ACID, ATOMIC NUMBER, CALCIUM SUPPRESSED, "
    "CALCIUM SUPPRESSION, DENSITE ELECTRONIQUE, DENSIDAD ELECTRONICA, EFF Z, WATER IODINE, IODINE WATER, HAP WATER, "
    "WATER HAP, CALCIUM WATER, WATER CALCIUM, WATER DENSITY, FAT BLOOD, GSI VUE, GSI MONO, IOD MAP, IOD KARTE, RHO Z, "
    "DE GOUT"
)

# Complex components that are not the magnitude: Complex Image Component (0008,9208), and value 3 of Image Type as
# Siemens (P, R, I) and Philips (PHASE MAP, VELOCITY MAP) write it.
PHASE_TYPES = _words(
    "P PHASE PHASEMAP PHASE_MAP R REAL I IMAG IMAGINARY VELOCITY VELOCITYMAP VELOCITY_MAP VELOC PHASE_DIFF PHASEDIFF "
    "UNWRAPPED FIELDMAP FIELD_MAP FMAP B0MAP B0_MAP B1 B1MAP B1_MAP PCA_P FLOW_ENCODED VELOCITY_ENCODED"
)
REAL_IR = frozenset({"R_IR", "PSIR", "IR"})  # inversion recovery shown with its sign: an anatomical image
REAL_TYPES = _words("R REAL")  # its real part; its phase is a phase image
B0_TYPES = _words("B0")  # a field map, except among diffusion images, where it is the one without weighting
DIFFUSION_TYPES = _words("DWI DIFFUSION DTI TRACEW")
PHASE_WORDS = _words("PHASEMAP PHA FIELDMAP FELDKARTE VELOCITY B0MAP B1MAP UNWRAPPED")
PHASE_PARTS = ("PHASENBILD", "PHASEMAP")
PHASE_HEADS = _words("PHASE FILTPHA")
PHASE_IMAGES = _lines("PHASE IMAGE, PHASE IMAGES, PHASE IMG, PHASE SWI, PHASE SWAN")
PHASE_PAIRS = _lines(
    "PHASE MAP, FIELD MAP, FIELD MAPPING, B0 MAP, B1 MAP, VELOCITY MAP, PHASE DIFFERENCE, PHASE DIFF, PHASE MASK, "
    "FILTERED PHASE, WRAPPED PHASE, UNWRAPPED PHASE"
)
PHASE_PICTURES = _words("IMAGE IMAGES CARTE CARTES MAPA MAPPA IMAGEN IMAGENES IMAGEM IMMAGINE IMMAGINI")
PHASE_SEQUENCES = _words("SWI SWAN SWIP GRE QSM QFLOW PC")
# Times after contrast, and echoes in which water and fat agree or oppose.
PHASE_TIMES = _words(
    "ARTERIAL ART ARTERIELLE VENOUS VEN VEINEUSE PORTAL PV PORTALE PORTALVENOUS HEPATOBILIARY HBP HEPATIC HEPATOCYTE "
    "DELAYED DELAY LATE TARDIVE EQUILIBRIUM TRANSITIONAL PARENCHYMAL NEPHROGENIC NEPHROGRAPHIC EXCRETORY "
    "CORTICOMEDULLARY PANCREATIC EARLY MULTI DYNAMIC DYN SINGLE NATIVE POST PRE IN OUT OPPOSED OPP OP IP OF "
    "OPPOSITION SYSTOLIC DIASTOLIC CARDIAC BEST FIRST SECOND THIRD EXP INSP"
)
GE_COMPONENT = (0x0043, 0x102F)  # 0 magnitude, 1 phase, 2 real, 3 imaginary: GE MR conformance statement

# Quantities computed from MR images: PS3.3 C.8.13.3.1.1 (Derived Pixel Contrast) and the words of consoles.
MAP_TYPES = _words(
    "ADC EADC E_ADC EXP_ADC APPARENT_DIFFUSION AVERAGE_DC MEAN_DIFFUSIVITY FRACTIONAL_ANISO FRACTIONAL_ANISOTROPY FA "
    "FA_MAP COLFA COLORFA RGB_FA TENSOR EVECS TRACTS MD RD AD L1 L2 L3 MK KURTOSIS IVIM D_STAR CBF CBV MTT TTP TMAX "
    "T0 RCBF RCBV RELCBF RELCBV RELMTT RELTTP CORRECTEDCBV CORRECTED_CBV PBP GBP NEI R_COEFFICIENT KTRANS K_TRANS KEP "
    "VE VP IAUC IAUGC PEI AUC WASH_IN WASH_OUT T1MAP T1_MAP T2MAP T2_MAP T2STARMAP T2STAR_MAP T2_STAR_MAP T2*MAP "
    "T2*_MAP R1MAP R1_MAP R2MAP R2_MAP R2STAR R2_STAR R2* R2STAR_MAP R2*_MAP PDMAP PD_MAP RHO_MAP ECV QMAP MAP "
    "SUSCEPTIBILITY QSM FF PDFF FATFRACTION FAT_FRACTION FAT_FRAC WATER_FRACTION W_FRACTION FRACTION STIFFNESS WAVE "
    "ELASTOGRAPHY MRE CONFIDENCE TEMPERATURE METABOLITE TTEST T_TEST ZSCORE Z_SCORE ZMAP TMAP T-MAP BETA SPM GLM "
    "FMRI_MAP STDDEV STD_DEVIATION STDEV VARIANCE CORRELATION PROBABILITY CBF_MAP PARAMETRIC PARAMETRIC_MAP "
    "PERFUSION_MAP MTR T1RHO QUANTITATIVE DIVISION"
)
MAP_TYPE_WORDS = _words("ADC EADC CBF CBV MTT TTP TMAX KTRANS KEP STIFFNESS PDFF QSM MTR T1RHO")
CT_MAP_TYPES = _words("PERFUSION")  # of MR it is the weighted image
# Words of a value that end so are maps ("IODINEMAP", "ADC_MAP"), except for these.
MAP_TYPE_WORD = re.compile(r"(?!ROADMAP|BITMAP)[A-Z0-9*]*MAPS?|[A-Z]+FRACTION")
# Philips repeats the quantity in value 3, with the sequence and cut to 16 characters: "T2_STAR_UNSPECIF".
UNSPECIFIED = re.compile(r"_UNSP[A-Z]*$")
# Value 4 of Image Type of enhanced MR objects names the quantity plainly (PS3.3 C.8.13.3.1.1).
ENHANCED_MAP_TYPES = _words("T1 T2 T2_STAR DIFFUSION_ANISOTROPY TCS VELOCITY R1 R2 PROTON_DENSITY")
STAR_MAP_TYPES = _words("T2_STAR T2STAR R2_STAR R2STAR")
MAP_WORDS = _words(
    "COLFA CBF CBV RCBV RCBF RELCBF RELCBV MTT TTP TMAX KTRANS PDFF QSM R2STAR FATFRAC FATFRACTION FETTFRAKTION IAUC "
    "IAUC60 ELASTOGRAPHY ELASTOGRAM ELASTOGRAMM MYOMAP SUSZEPTIBILITAET SUSZEPTIBILITAT BLUTFLUSS BLUTVOLUMEN"
)
LONE_MAP_WORDS = _words("STIFFNESS R2* T1RHO FA MD OEF KEP MTR")
# "dADC", "eADC", "rADC": every one is computed, but "HEADC" is a head with contrast. The bare word, or one that names
# the weighted images too, may be the name of a protocol that gives both.
MAP_WORD = re.compile(
    r"([DERMSA]|EXP|ISO|MEAN|AVG|[A-Z]*[0-9])ADC|(ADC|T1|T2|T2\*|T2STAR|R1|R2|R2\*|R2STAR|T1RHO)MAPS?"
)
MAP_HEADS = _words("FA ADC EADC MD R2* R2STAR T2* FATFRAC CBF CBV MTT TTP AVDC FRACTIONALANISO T1MAP T2MAP PDFF")
MAP_PAIRS = _lines(
    "T1 MAP, T2 MAP, T2* MAP, R2* MAP, R2 MAP, R1 MAP, T1 MAPPING, T2 MAPPING, T2STAR MAP, STAR MAP, T1RHO MAP, MTR "
    "MAP, ECV MAP, STIFFNESS MAP, LIVER STIFFNESS, CONFIDENCE MAP, WAVE IMAGES, ADC KARTE, T1 KARTE, T2 KARTE, FA "
    "KARTE, CARTE ADC, CARTE FA, CARTE T1, CARTE T2, CARTOGRAPHIE T1, CARTOGRAPHIE T2, FAT FRACTION, FAT FRAC, FA "
    "MAP, AVERAGE DC, FRACTIONAL ANISOTROPY, FRACTIONAL ANISO, MEAN DIFFUSIVITY, APPARENT DIFFUSION, DIFFUSION "
    "COEFFICIENT, APP DIFF, COEFFICIENT DE, PARAMETRIC MAP, PERFUSION MAP, K TRANS, PERFUSION FRACTION, IVIM F, IVIM "
    "D, IVIM D*, IVIM DSTAR, DTI FA, TENSOR FA, DTI MD, BLOOD FLOW, BLOOD VOLUME, DEBIT SANGUIN, VOLUME SANGUIN, MEAN "
    "TRANSIT, SUSCEPTIBILITY MAP, MRE STIFFNESS, STIFFNESS KPA, MAPA T1, MAPA T2, ENHANCEMENT INTEGRAL, PERMEABILITY "
    "SURFACE, FA COLOR, FA COLOUR, COLOR FA, COLOUR FA, RGB FA, MRE WAVE, FRACTION GRASSE, FRACTION GRAISSEUSE, "
    "FRACCION GRASA, FRAZIONE GRASSA"
)
# A map is the last word of its name, before planes, colours and units, or in Romance languages the first one.
MAP_LAST = re.compile(r"(?!ROADMAP|BITMAP)[A-Z0-9*]*(MAPS?|KARTEN?)")
MAP_FIRST = _words("CARTE CARTES MAPA MAPAS MAPPA MAPPE CARTOGRAPHIE")
OF = _words("DE DI DU DA DES DEL DELLA D")
BEHIND_MAP = re.compile(
    r"[0-9]+|[A-Z]|AX(IAL)?|TRA(NS)?|COR(ONAL)?|SAG(ITTAL)?|COLOU?R|COL|RGB|GR[AE]Y|FARBE|SEC|MSEC|MS|HZ|PPM|PERCENT|"
    r"MM2|MM\^2|UM2|KPA|ML|MIN|PCT"
)
MAP_STEMS = ("ANISOTROP", "DIFFUSIVIT")

TIMES_TO = _words("ENHANCE PEAK DRAIN START MAXIMUM MAX ARRIVAL")  # after "time to"

DOSE_PAIRS = _lines(
    "DOSE REPORT, DOSE INFO, DOSIS INFO, DOSE SUMMARY, DOSE RECORD, DOSE SHEET, PATIENT PROTOCOL, EXAM PROTOCOL, "
    "EXAM REPORT, EXAMINATION REPORT, RAPPORT DOSE, INFORME DOSIS, RAPPORTO DOSE, RELATORIO DOSE"
)
DOSE_WORD = re.compile(r"(DOSIS|DOSE|DOSI)[A-Z]*(PROTOKOLL|BERICHT|REPORT|INFO|RAPPORT|VERSLAG)")
CALIBRATION_PAIRS = _lines("REF SCAN, REFERENCE SCAN, COIL SENSITIVITY, SENSE REF")
SCREEN_PAIRS = _lines("SCREEN SAVE, SCREEN SHOT, SCREEN CAPTURE, SCREEN COPY")

# The same in other scripts, as parts of a word or of the whole text: their languages write words together.
LOCALISER_SIGNS = _words("定位 位置決め スカウト スカノ 스카우트 ТОПОГРАММ ЛОКАЛАЙЗЕР ЛОКАЛИЗАТОР ΤΟΠΟΓΡΑΜΜΑ")
SPECTRAL_SIGNS = _words("碘图 碘密度 碘基 ヨード密度 ヨードマップ 실효원자번호 有效原子序数 実効原子番号")
PHASE_SIGNS = _words("位相画像 位相图 相位图 위상영상 ФАЗОВОЕ")
MAP_SIGNS = _words("マップ 伪彩图 参数图 系数图 맵 지도 КАРТА КАРТЫ КАРТИРОВАНИ ΧΑΡΤΗΣ")
DOSE_SIGNS = _words("剂量报告 劑量報告 線量レポート 線量情報 선량보고 ОТЧЕТ")

# Codes (DCM) of quantities, PS3.16 CID 7180: as derivation, or as the quantity of a Real World Value Mapping.
MAP_CODES = _words(
    "113041 113044 113045 113050 113052 113054 113055 113056 113057 113058 113059 113060 113061 113063 113064 113065 "
    "113066 113067 113068 113069 113070 113071 113084 110807 110808 110809 110810 110811 110812 110813 110814 110815 "
    "110819 110827 110828 110829 110830 110831 126312 126313 126314 126320 126330 126331 126370 126371 126374 126375 "
    "126376 126377 126390 126391 126392 126393 126394 126395 126396 126397 126398 129104 129105 129106"
)
_CODES = frozenset().union(
    LOCALISER_WORDS, SPECTRAL_TYPES, SPECTRAL_TYPE_WORDS, PHASE_TYPES, MAP_TYPES, MAP_TYPE_WORDS, ENHANCED_MAP_TYPES
)
_REFORMATS = _words("MPR MIP MINIP PROJECTION IMAGE REFORMATTED AVERAGE SUB SUBTRACTION DOSE REPORT INFO SCREEN SAVE")

PARAMETRIC_MAP_STORAGE = "1.2.840.10008.5.1.4.1.1.30"

# Transfer syntaxes that always lose (PS3.5 A.4.1 to A.4.3, A.4.5 to A.4.7: JPEG baseline and extended, JPEG-LS near
# lossless, MPEG). Their images have lost whether or not Lossy Image Compression (0028,2110) says so.
LOSSY_SYNTAXES = frozenset(
    f"1.2.840.10008.1.2.4.{one}" for one in ("50", "51", "52", "53", "81", *map(str, range(100, 109)))
)
# These may lose: JPEG 2000, its part 2, high-throughput JPEG 2000, JPEG XL (A.4.4, A.4.8).
PERHAPS_LOSSY_SYNTAXES = LOSSY_SYNTAXES | {f"1.2.840.10008.1.2.4.{one}" for one in ("91", "93", "203", "112")}

# Many slices tiled into one picture, for diffusion and fMRI: Siemens marks it in Image Type, counts it in (0019,100A);
# United Imaging writes VFRAME. A viewer needs the tiles' geometry, which is private.
SIEMENS_TILES = (0x0019, 0x100A)  # Number Of Images In Mosaic, by "SIEMENS MR HEADER"
MOSAIC_TYPES = frozenset({"MOSAIC", "VFRAME", "TILED", "MONTAGE"})
# They stay in Image Type where a patient has the same name or number ("MOSAIC-012").
CODE_WORDS = _REFORMATS | MOSAIC_TYPES | {word for code in _CODES for word in code.split("_")}
# Weightings that a description need not repeat: value of Image Type -> token of the vocabulary.
TYPE_TOKENS = {
    **dict.fromkeys(("DIFFUSION", "TRACEW", "TRACE", "DWI", "ISODWI", "CALC_BVALUE", "B_VALUE", "SE_DIFFUSION"), "DWI"),
    **dict.fromkeys(("DTI", "TENSOR"), "DTI"),
    **dict.fromkeys(("PERFUSION", "DSC", "DCE"), "PERF"),
    **dict.fromkeys(("ASL",), "ASL"),
    **dict.fromkeys(("FMRI", "BOLD"), "BOLD"),
    **dict.fromkeys(("TOF", "ANGIO", "MRA", "TIME_OF_FLIGHT"), "ANGIO"),
}
# Before Diffusion b-value (0018,9087) became standard: (group, creator, offset). Siemens syngo MR DICOM conformance
# statement; dcm2niix documents GE and Philips. GE adds its offset to b-values of newer sequences.
PRIVATE_B_VALUES = (
    (0x0019, "SIEMENS MR HEADER", 0x0C),
    (0x0043, "GEMS_PARM_01", 0x39),
    (0x2001, "Philips Imaging DD 001", 0x03),
)
GE_B_VALUE_OFFSET = 1_000_000_000
