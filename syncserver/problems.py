"""RFC 9457 problem documents: the table of docs/protocol.md section 9, and nothing that is not in it."""

from __future__ import annotations

import json
import traceback
from dataclasses import dataclass

from clientcore.errors import FrameRefused
from syncserver.errors import ReplicaBehind, RequestProblem, StoreFailed

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """One row of the table: HTTP status, what the device should do, and a title for people."""

    status: int
    retry: str
    title: str


KINDS: dict[str, ProblemKind] = {
    "too-large": ProblemKind(413, "split", "The request is too large"),
    "too-many-changes": ProblemKind(413, "split", "Too many changes in one request"),
    "slow-body": ProblemKind(408, "same", "The request did not arrive in time"),
    "media-type": ProblemKind(415, "never", "This content type or encoding is not taken here"),
    "bad-frame": ProblemKind(400, "same", "The bytes are not a request of this protocol"),
    "frame-limits": ProblemKind(400, "never", "A length or nesting is over the limits"),
    "version": ProblemKind(400, "upgrade", "Another version of the protocol"),
    "unknown-device": ProblemKind(401, "rekey", "This device is not enrolled here"),
    "bad-signature": ProblemKind(401, "never", "The signature is not by this device"),
    "wrong-audience": ProblemKind(401, "never", "Meant for another school or environment"),
    "revoked": ProblemKind(403, "never", "This device or person may no longer take registers; the work is kept"),
    "relay-scope": ProblemKind(403, "never", "The bundle holds nothing of this school"),
    "forbidden": ProblemKind(403, "never", "This role may not do that"),
    "rule": ProblemKind(
        409, "never", "A rule closes this; `rule`, `closed_on` and `who` say which, since when, who can open it"
    ),
    "stale-nonce": ProblemKind(409, "same", "Sign again with the nonce given"),
    "not-an-export": ProblemKind(400, "never", "This file is not an export of Hudur"),
    "bad-code": ProblemKind(401, "never", "The code is not right"),
    "code-locked": ProblemKind(429, "never", "Too many wrong tries; ask for a new code"),
    "code-expired": ProblemKind(410, "never", "The code is older than 15 minutes; ask for a new one"),
    "code-used": ProblemKind(409, "never", "The code was used already; ask for a new one"),
    "slow-down": ProblemKind(429, "after", "Too many requests"),
    "busy": ProblemKind(503, "after", "The server is busy; the work is safe on the device"),
    "storage": ProblemKind(503, "after", "The server's store failed; the work is safe on the device"),
    "replica-behind": ProblemKind(503, "after", "The copy that answers this is behind; nothing is lost"),
    "not-found": ProblemKind(404, "never", "There is nothing here"),
    "method": ProblemKind(405, "never", "Not with this method"),
    "bad-request": ProblemKind(400, "never", "The parameters cannot be read"),
    "operator": ProblemKind(401, "never", "For operators only"),
    "fault": ProblemKind(500, "after", "A fault of the server; the work is safe on the device"),
}
LOCKED_RETRY_S = 900  # a locked code never opens again; a new one is a quarter of an hour's patience at most
FAULT_RETRY_S = 30
REPLICA_RETRY_S = 5
VERSION_RANGE = "hudur1..hudur1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemReply:
    """A problem ready to send."""

    status: int
    headers: dict[str, str]
    body: bytes


def as_problem(error: Exception) -> RequestProblem:
    """The problem a request gets for an error; errors without a row in the table are faults of ours."""
    if isinstance(error, RequestProblem):
        return error
    if isinstance(error, ReplicaBehind):
        return RequestProblem(error.code, error.detail, retry_after_s=REPLICA_RETRY_S)
    if isinstance(error, StoreFailed):
        return RequestProblem("storage", "nothing was acknowledged", retry_after_s=10)
    if isinstance(error, FrameRefused) and error.code in KINDS:
        extra = {"range": VERSION_RANGE} if error.code == "version" else {}
        return RequestProblem(error.code, error.detail, extra=extra)
    return RequestProblem("fault", retry_after_s=FAULT_RETRY_S)


def trace(fault: BaseException) -> str:
    """Type and places of a fault for the log, without its message: that may quote what somebody sent."""
    return f"{type(fault).__name__}\n{''.join(traceback.format_tb(fault.__traceback__))}"


def write_problem(problem: RequestProblem) -> ProblemReply:
    """The bytes of a problem."""
    kind = KINDS[problem.code]
    document: dict[str, str | int | bool] = {
        "type": f"/problems/{problem.code}",
        "title": kind.title,
        "status": kind.status,
        "detail": problem.detail or kind.title,
        "retry": kind.retry,
        "safe": True,
        "held": problem.held,
        **problem.extra,
    }
    headers = {"content-type": MEDIA_TYPE, "cache-control": "no-store"}
    retry_after_s = problem.retry_after_s
    if retry_after_s is None and kind.status in (429, 503):
        retry_after_s = LOCKED_RETRY_S
    if retry_after_s is not None:
        headers["retry-after"] = str(retry_after_s)
    if problem.code == "operator":
        headers["www-authenticate"] = "Bearer"
    return ProblemReply(status=kind.status, headers=headers, body=json.dumps(document).encode())
