"""
Texts that people and programs write for a missing value.

Rule of the file: a mark is here because a program writes it or people are used to it. The type of a
column decides what it means there (`columns`).
"""

from __future__ import annotations

CLEAR_MARKS = frozenset(
    (
        *(
            "NA",
            "N/A",
            "n/a",
            "#N/A",
            "#NA",
            "#N/A N/A",
            "<NA>",
            "NULL",
            "Null",
            "null",
            "(null)",
            "[NULL]",
            "\\N",
            "NaN",
            "nan",
            "NAN",
            "-nan",
            "-NaN",
            "NaT",
        ),
        *(
            "#NULL!",
            "#DIV/0!",
            "#VALUE!",
            "#REF!",
            "#NAME?",
            "#NUM!",
            "1.#QNAN",
            "-1.#QNAN",
            "1.#IND",
            "-1.#IND",
        ),
        *(
            "#NV",
            "#N/D",
            "#N/B",
            "#WERT!",
            "#BEZUG!",
            "#ZAHL!",
            "#VALEUR!",
            "#NOM?",
            "#NOMBRE!",
            "#¡VALOR!",
            "#¡REF!",
            "#¿NOMBRE?",
            "#¡DIV/0!",
            "#¡NUM!",
        ),
        *(
            "#VALOR!",
            "#NOME?",
            "#VALORE!",
            "#RIF!",
            "#WAARDE!",
            "#VERW!",
            "#NAAM?",
            "#GETAL!",
            "#SPILL!",
            "#CALC!",
        ),
    )
)
"""Missing in every column that is not configured as a category or as text."""
VAGUE_MARKS = frozenset(
    (
        "None",
        "none",
        "NONE",
        "nil",
        "-",
        "--",
        "---",
        "–",
        "—",
        ".",
        "..",
        "?",
        "na",
        "Na",
        "n.a.",
        "N.A.",
        "undefined",
        "missing",
        "unknown",
    )
)
"""Missing in a column of numbers or booleans; values in a column of text."""
SHORT_MARKS = VAGUE_MARKS - {"undefined", "missing", "unknown"}
"""Vague marks that are not words: in a column of text they may still have been meant as missing."""
