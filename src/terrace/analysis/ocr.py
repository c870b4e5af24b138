"""Programs that read the text in a picture, where no model looks at it. They run in a bounded subprocess.

Tesseract is a program beside us, rapidocr a Python package with its models in the wheel; neither comes with Terrace.
"""

import os
import shutil
import subprocess
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Literal

from terrace.errors import Invalid, Unavailable

Program = Literal["tesseract", "rapidocr"]

ADVICE = (
    "Connect a model that reads images, or install an OCR program (tesseract, on Debian `apt-get install "
    "tesseract-ocr`; or `pip install 'terrace[ocr]'` in Terrace's environment)."
)
KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TESSDATA_PREFIX")


def available(wanted: str) -> Program | None:
    """The program to read with: the one named by analysis.ocr, or with `auto` the first that is there.

    Raises Unavailable when the one that is named is not there.
    """
    if wanted == "none":
        return None
    here: dict[Program, bool] = {
        "tesseract": shutil.which("tesseract") is not None,
        "rapidocr": find_spec("rapidocr") is not None,
    }
    for program, is_here in here.items():
        if is_here and wanted in ("auto", program):
            return program
    if wanted == "auto":
        return None
    raise Unavailable(
        f"analysis.ocr names {wanted}, which isn't installed. Install it, or set it to auto.", code="ocr_missing"
    )


def read(program: Program, image: bytes, languages: str, seconds: float) -> str:
    """The text in a picture (PNG or JPEG). Raises Invalid."""
    return _tesseract(image, languages, seconds) if program == "tesseract" else _rapidocr(image)


def _tesseract(image: bytes, languages: str, seconds: float) -> str:
    environment = {name: os.environ[name] for name in KEPT if name in os.environ} | {"OMP_THREAD_LIMIT": "1"}
    command = ["tesseract", "stdin", "stdout", "-l", languages, "-c", "preserve_interword_spaces=1"]
    try:
        done = subprocess.run(command, input=image, capture_output=True, timeout=seconds, env=environment, check=False)
    except subprocess.TimeoutExpired as error:
        raise Invalid(f"Reading this page took longer than {seconds:g} seconds.", code="ocr_timeout") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace")
        if "language" in said:
            raise Invalid(
                f"Tesseract has no data for `{languages}`: install these languages, or change analysis.ocr_languages.",
                code="ocr_language",
            )
        raise Invalid("Tesseract could not read this page.", code="ocr_failed")
    return done.stdout.decode(errors="replace").replace("\f", "").strip()


def _rapidocr(image: bytes) -> str:
    found = _engine()(image)
    texts = getattr(found, "txts", None) or ()
    return "\n".join(map(str, texts)).strip()


@lru_cache(maxsize=1)
def _engine() -> Any:
    from rapidocr import RapidOCR

    return RapidOCR(params={"Global.log_level": "error"})  # it would tell of each blank page
