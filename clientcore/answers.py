"""Whether what came back is an answer of ours at all. Pure.

A top-up page with status 200, a truncated body, another request's answer: all *no answer*, so nothing changes and the
same bytes go again. A problem document is not signed; it may slow the device down and never makes it believe anything.
"""

from __future__ import annotations

import json

from clientcore.errors import FrameRefused, Problem, TransportError
from clientcore.exchange import MEDIA_TYPE, SignedAnswer, read_answer
from clientcore.ports import HttpReply
from clientcore.states import SHORT_BYTES

PROBLEM_TYPE = "application/problem+json"
_PROBLEM_PREFIX = "/problems/"
_RETRIES = frozenset(("never", "same", "after", "split", "rekey", "upgrade"))


def check_reply(reply: HttpReply) -> bytes:
    """The body of a reply that may be an answer of ours.

    Raises:
        Problem: the server (or somebody who speaks like it) says why not.
        TransportError: `not-ours` for everything else.
    """
    if reply.status == 200 and reply.content_type == MEDIA_TYPE:
        return reply.body
    if reply.status >= 400 and reply.content_type == PROBLEM_TYPE:
        raise _problem(reply)
    raise TransportError(
        "not-ours", f"status {reply.status}, type {reply.content_type or 'none'}: not our server's answer"
    )


def read_signed(reply: HttpReply, *, server_key: bytes, request: bytes) -> SignedAnswer:
    """The proved answer to `request` (the request body).

    Raises:
        Problem: see `check_reply`.
        TransportError: `not-ours` when the bytes prove nothing.
    """
    body = check_reply(reply)
    try:
        return read_answer(body, server_key=server_key, request=request)
    except FrameRefused as refused:
        raise TransportError("not-ours", f"the answer proves nothing: {refused}") from None


def fresh_nonce(text: str) -> bytes:
    """The nonce of a `stale-nonce` problem.

    Raises:
        TransportError: `not-ours` when it is none.
    """
    try:
        nonce = bytes.fromhex(text)
    except ValueError:
        nonce = b""
    if len(nonce) != SHORT_BYTES:
        raise TransportError("not-ours", "a stale-nonce problem without a nonce")
    return nonce


def _problem(reply: HttpReply) -> Problem:
    try:
        body = json.loads(reply.body)
    except (ValueError, RecursionError):
        raise TransportError("not-ours", f"status {reply.status} with a broken problem document") from None
    kind = body.get("type") if isinstance(body, dict) else None
    if not isinstance(kind, str) or not kind.startswith(_PROBLEM_PREFIX):
        raise TransportError("not-ours", f"status {reply.status} with a stranger's problem document")
    retry = body.get("retry")
    return Problem(
        kind.removeprefix(_PROBLEM_PREFIX)[:40],
        str(body.get("detail") or body.get("title") or "")[:500],
        status=reply.status,
        retry=retry if retry in _RETRIES else "never",
        retry_after_s=reply.retry_after_s,
        body=body,
    )
