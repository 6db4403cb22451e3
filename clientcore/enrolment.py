"""What a person types to enrol: a code, a school, a server, or one link that carries all three. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from clientcore.errors import BadInput
from clientcore.register import is_id

_CODE = re.compile(r"[BCDFGHJKLMNPQRSTVWXZ]{10}")
_SEPARATORS = re.compile(r"[-\s._–]")
_FRAGMENT = "#e="


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolTarget:
    """`server` is a base URL without a trailing slash, `code` ten capitals."""

    server: str
    school: str
    code: str


def parse_target(text: str, *, school: str | None, server: str | None) -> EnrolTarget:
    """Read a code (`BCD-FGHJ-KLM`), `SCHOOL.CODE`, or a link `https://host/#e=SCHOOL.CODE`.

    Raises:
        BadInput: `bad-code`, `bad-school`, `bad-server`.
    """
    text = text.strip()
    if _FRAGMENT in text:
        link, _, text = text.partition(_FRAGMENT)
        server = server or link
    named, dot, code = text.rpartition(".")
    if dot and is_id(named) and _CODE.fullmatch(_capitals(code)):
        if school is not None and school != named:
            raise BadInput("bad-school", f"the code is for {named}, not for {school}")
        school, text = named, code
    code = _capitals(text)
    if _CODE.fullmatch(code) is None:
        raise BadInput("bad-code", "a code has 10 consonants, written BCD-FGHJ-KLM")
    if school is None:
        raise BadInput("bad-school", "this code does not name the school: give --school, or SCHOOL.CODE")
    if not is_id(school):
        raise BadInput("bad-school", f"{school!r} is no school id")
    return EnrolTarget(server=_server(server), school=school, code=code)


def _capitals(text: str) -> str:
    return _SEPARATORS.sub("", text).upper()


def _server(text: str | None) -> str:
    if not text:
        raise BadInput("bad-server", "give the --server, e.g. https://hudur.example.eg")
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not host:
        raise BadInput("bad-server", f"{text!r} is no address; write it like https://hudur.example.eg")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
