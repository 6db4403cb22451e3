"""The short code on a printed register sheet, by which the register is found again when the sheet is typed. Pure."""

from __future__ import annotations

import hashlib

from clientcore.register import RegisterId

_CONSONANTS = "BCDFGHJKLMNPQRSTVWXZ"  # as in enrolment codes: no word can come out, and nothing looks like a digit
_CODE_LETTERS = 6


def sheet_code(register: RegisterId) -> str:
    """The short code on a printed register sheet, e.g. `BCD-FGH`: it finds the register again when the sheet is typed.

    64 million codes: among the some thousand sheets of a school's last months two the same are as good as never seen,
    and would both be shown.
    """
    number = int.from_bytes(hashlib.sha256(f"sheet1 {register}".encode()).digest()[:8], "big")
    letters = ""
    for _ in range(_CODE_LETTERS):
        number, at = divmod(number, len(_CONSONANTS))
        letters += _CONSONANTS[at]
    return f"{letters[:3]}-{letters[3:]}"


def plain_sheet_code(typed: str) -> str:
    """A code as somebody typed it, in the spelling of `sheet_code`; case and separators do not matter."""
    letters = "".join(letter for letter in typed.upper() if letter.isalnum())
    return f"{letters[:3]}-{letters[3:]}"
