"""What a series shows: its contrast by sequence parameters and names, or why it is not a structural series.

Echo, repetition and inversion time decide where they are clear; names help where they are not. Times are
milliseconds. The bounds are those of brain protocols at 1.5 and 3 T (2D and 3D spin echo, inversion recovery,
spoiled gradient echo); a contrast that nothing tells stays open: "".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from monai_diffens.contrasts import ENHANCED, NO_AGENT
from monai_diffens.data.dicom.reader import Header, number, text
from monai_diffens.data.dicom.series import DicomSeries

OTHER = "other"  # a contrast that the models do not know, such as STIR

# What is not structural, by a value of ImageType or a word of a name.
TYPES = {
    "localizer": "LOCALIZER",
    "ADC map": "ADC, EADC",
    "FA map": "FA",
    "trace image": "TRACEW, TRACE",
    "diffusion": "DIFFUSION, TENSOR",
    "MIP": "MIP, MAX_IP",
    "minimum intensity projection": "MNIP, MINIP, MIN_IP",
    "projection": "PROJECTION IMAGE",
    "reformatted": "MPR, REFORMATTED, CSA MPR",
    "phase image": "PHASE, PHASE MAP, P",
    "real part": "REAL, R",
    "imaginary part": "IMAGINARY, I",
    "velocity map": "VELOCITY, FLOW_ENCODED",
    "cine": "CINE",
    "angiography": "TOF, ANGIO_TIME",
    "temperature map": "TEMPERATURE",
    "spectroscopy": "METABOLITE_MAP, SPECTROSCOPY",
    "field map": "FIELD_MAP",
    "mosaic": "MOSAIC",
    "functional": "FMRI",
    "perfusion": "PERFUSION, ASL",
    "perfusion map": "CBF, CBV, RCBF, RCBV, MTT, TTP, TMAX",
    "subtraction": "SUBTRACTION",
    "T1 map": "T1 MAP, T1_MAP",
    "T2 map": "T2 MAP, T2_MAP",
    "screenshot": "SCREEN SAVE",
}
BY_TYPE = {value: kind for kind, values in TYPES.items() for value in values.split(", ")}
WORDS = (
    ("ADC map", "adc dadc eadc"),
    ("FA map", "fa colfa"),
    ("trace image", "trace tracew"),
    ("diffusion", "dwi diff diffusion dti resolve tensor hardi b0 b500 b800 b1000 b2000 tractography"),
    ("minimum intensity projection", "mnip minip"),
    ("MIP", "mip"),
    (
        "localizer",
        "loc localizer localiser lokalizer scout survey 3plane smartbrain aascout aahead autoalign",
    ),
    ("reformatted", "mpr reformat reformatted rekon"),
    ("susceptibility", "swi swan qsm venobold swip"),
    ("phase image", "pha phase phasemap"),
    ("angiography", "tof mra mrv angio angiography inhance"),
    ("perfusion map", "cbf cbv rcbf rcbv mtt ttp tmax perfmap relcbf relcbv relmtt"),
    ("perfusion", "perf perfusion dsc dce asl pcasl pasl twist"),
    ("functional", "bold fmri rest resting epi"),
    ("field map", "fieldmap b0map b1map b1 fieldmapping grefield"),
    ("T1 map", "t1map"),
    ("T2 map", "t2map t2starmap"),
    ("map", "map maps"),
    ("subtraction", "subtraction subtr"),
    ("spectroscopy", "spectro spectroscopy svs csi mrs"),
    ("calibration", "calib calibration asset cal refscan coilsurvey"),
    ("screenshot", "screenshot screensave"),
)
GENERAL = ("diffusion", "perfusion", "functional", "angiography", "map")  # told where nothing nearer is
KIND_OF_WORD = {word: kind for kind, words in WORDS for word in words.split()}

POST_WORDS = frozenset(
    "gd gad gado gadolinium km kontrast kontrastmittel ce post contrast dotarem gadovist".split()
)
PRE = r"\b(pre|nativ|native|ohne|without|wo|unenhanced|precontrast|non? (contrast|gad|gd|km|enhanced))\b"

# Bounds, ms
LONG_TE, SHORT_TE = 60.0, 40.0  # of spin echo
STAR_TE = 14.0  # of gradient echo
LONG_TR, SHORT_TR = 1800.0, 1300.0  # of spin echo
FLUID_TI = 1300.0  # inversion times beyond it null fluid, below it weigh T1
FAT_TI = 300.0  # those below it null fat
FLUID_TR = 4000.0
STEADY_FA = 35.0  # degrees: flip angles of balanced steady state


@dataclass(frozen=True)
class Recognised:
    """What a series shows.

    Attributes:
        contrast: T1w, ce-gadolinium_T1w, T2w, FLAIR, PDw, T2starw, or "" where nothing tells.
        left_alone: why it is no structural series, for example "ADC map"; "" where it is one.
        contradiction: (by its name, by its sequence) where these differ, else None.
    """

    contrast: str
    left_alone: str = ""
    contradiction: tuple[str, str] | None = None


def recognise(series: DicomSeries) -> Recognised:
    """Tell what a series shows, from its headers alone."""
    header = series.headers[0]
    kind = _kind(series)
    by_name, by_sequence = _by_name(_words(header)), _by_sequence(header)
    contrast = OTHER if by_name == OTHER else by_sequence or by_name
    differ = by_name and by_sequence and by_name != by_sequence and contrast != OTHER
    contradiction = (by_name, by_sequence) if differ else None
    if contrast == OTHER:
        kind, contrast = kind or "another contrast", ""
    if contrast == "T1w" and _has_agent(header):
        contrast = ENHANCED
    return Recognised(contrast, kind, contradiction)


def _kind(series: DicomSeries) -> str:
    """Why a series is not structural, or ""."""
    header = series.headers[0]
    if series.is_result:
        return "a result of this package"
    modality = text(header, "Modality")
    if modality != "MR":
        return f"modality {modality}" if modality.isalnum() and len(modality) <= 5 else "not MR"
    types = [part.strip().upper() for part in text(header, "ImageType").split("\\")]
    by_type = [BY_TYPE[v] for part in types[1:] for v in (part, *part.split("_")) if v in BY_TYPE]
    by_word = [KIND_OF_WORD[word] for word in _words(header) if word in KIND_OF_WORD]
    # an ADC map is of type diffusion too
    kinds = sorted([*by_type, *by_word], key=lambda kind: kind in GENERAL)
    return kinds[0] if kinds else _kind_by_sequence(series, "DERIVED" in types)


def _kind_by_sequence(series: DicomSeries, derived: bool) -> str:
    """The same where neither type nor name tells."""
    header = series.headers[0]
    if text(header, "AngioFlag") == "Y":
        return "angiography"
    if any((number(each, "DiffusionBValue") or 0) > 0 for each in series.headers):
        return "diffusion"
    planar = re.search(r"(^|[^a-z])ep(2d|3d|_|fid|se|$)", text(header, "SequenceName").lower())
    if planar or "EP" in text(header, "ScanningSequence").split("\\"):
        return "diffusion or functional (echo planar)"
    if derived and number(header, "EchoTime") is None and not _by_name(_words(header)):
        return "derived"
    return ""


def _words(header: Header) -> list[str]:
    """Words of the series' and the protocol's name; ``t2*`` is ``t2star``."""
    written = " ".join(text(header, name) for name in ("SeriesDescription", "ProtocolName")).casefold()
    written = written.replace("t2*", " t2star ").replace("3 plane", "3plane").replace("dark fluid", "flair")
    written = re.sub(r"(dark-fluid|da-fl|dark_fluid|darkfluid)", " flair ", written)
    written = re.sub(r"(c\+|\+c|\+gd|\+km)", " post ", written)
    written = re.sub(r"\bw/o\b", " without ", written)
    return [word for word in re.split(r"[\W_]+", written) if word]


def _by_name(words: list[str]) -> str:
    joined = " ".join(words)
    if re.search(r"\b(stir|dir|psir|mp2rage|ciss|fiesta|bffe|trufi|synthetic|magic)\b", joined):
        return OTHER
    if re.search(r"t2starw?\b|\bt2sw?\b|\bmedic\b|\bhemo\b", joined):
        return "T2starw"
    t1 = re.search(r"(^| )(3d)?t1(?!\d|map)|mprage|bravo|spgr|vibe", joined)
    if re.search(r"flair|tirm", joined):
        return "T1w" if t1 else "FLAIR"
    if t1:
        return "T1w"
    if re.search(r"(^| )(3d)?t2(?!\d|map|star)", joined):
        return "T2w"
    return "PDw" if re.search(r"\bpdw?\b|\bproton\b", joined) else ""


def _by_sequence(header: Header) -> str:
    """Contrast by times and sequence; "" where they are missing or not clear."""
    te, tr, ti, angle = (
        number(header, name) for name in ("EchoTime", "RepetitionTime", "InversionTime", "FlipAngle")
    )
    if te is None or tr is None or te <= 0 or tr <= 0:
        return ""
    kinds = set(text(header, "ScanningSequence").upper().split("\\"))
    if ti and ti > 0 and not (ti < FAT_TI and "GR" in kinds):
        if te >= LONG_TE:
            if ti >= FLUID_TI and tr >= FLUID_TR:
                return "FLAIR"
            return OTHER if ti < FAT_TI else ""
        if FAT_TI <= ti < FLUID_TI and te <= SHORT_TE:
            return "T1w"
        return OTHER if ti < FAT_TI else ""
    if "GR" in kinds and "SE" not in kinds:
        if te > STAR_TE:
            return "T2starw"
        variant = text(header, "SequenceVariant").upper().split("\\")
        steady = "SP" not in variant and "SS" in variant and (angle or 0) >= STEADY_FA and tr < 15
        return OTHER if steady else "T1w"
    if te >= LONG_TE:
        return "T2w" if tr >= LONG_TR else ""
    if te <= SHORT_TE:
        return "T1w" if tr <= SHORT_TR else "PDw" if tr >= LONG_TR else ""
    return ""


def _has_agent(header: Header) -> bool:
    """Whether contrast agent had been given; a name that says "pre" or "native" counts more."""
    words = _words(header)
    if re.search(PRE, " ".join(words)):
        return False
    agent = text(header, "ContrastBolusAgent").casefold().strip(" .")
    return not POST_WORDS.isdisjoint(words) or agent not in NO_AGENT
