"""Spanish prose that ships with the package; sources and licences in `spanish/README.md`."""

from __future__ import annotations

import lzma
from importlib import resources

from hrm_jax.data.text.documents import Documents

TRAIN = (
    "cervantes_quijote",
    "bunge_novela_de_la_sangre",
    "cambaceres_en_la_sangre",
    "cambaceres_musica_sentimental",
    "frias_tomochic",
    "gutierrez_juan_moreira",
    "holmberg_nelly",
    "holmberg_nic_nac",
)
HELD_OUT = ("holmberg_bolsa_de_huesos", "payro_falso_inca")


def spanish_documents() -> tuple[Documents, Documents]:
    """Returns novels to train on (8 works, 4.3 MB) and to be held out (2 works, 0.26 MB).

    A document is a whole work, one paragraph a line, in NFC; its name is the file's.
    """
    return _works(TRAIN), _works(HELD_OUT)


def _works(names: tuple[str, ...]) -> Documents:
    folder = resources.files("hrm_jax.data.text") / "spanish"
    texts = (lzma.decompress((folder / f"{name}.txt.xz").read_bytes()) for name in names)
    return Documents.of(texts, names)
