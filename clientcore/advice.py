"""What to tell a person: what happened, whether the work is safe, what to do. Pure."""

from __future__ import annotations

from clientcore.errors import BadInput, HudurError, LocalError, NotEnrolled, Problem, StoreError, TransportError

REFUSED, USAGE, NO_ANSWER = 1, 2, 3
"""Exit codes besides 0: somebody said no; the command was not understood; nobody answered and the work waits here."""

_SAFE_HERE = "Everything is kept on this device."
_AGAIN = "Run `sync` again later."
_DO = {
    "bad-code": "Check the code letter by letter, or ask the champion for a new one.",
    "code-locked": "The code was tried too often. Ask the champion for a new one.",
    "code-expired": "Codes live 15 minutes. Ask the champion for a new one.",
    "code-used": "A code works once. Ask the champion for a new one.",
    "unknown-device": "The server does not know this device (any more). Ask the champion for a code and run `enrol` "
    "on this same --home: key and work stay, and what the server lacks is sent again.",
    "revoked": "This device or its user was revoked. Ask the champion; nothing was deleted.",
    "wrong-audience": "This device was enrolled at another server or school. Enrol into a new --home.",
    "bad-signature": "The server does not accept this device's signature. Ask the champion for a new enrolment.",
    "version": "This program is too old for the server. Upgrade it, then run `sync`.",
    "forbidden": "Your role may not do this.",
    "relay-scope": "The file holds nothing of your school.",
    "not-enrolled": "Ask the champion for a code, then run `enrol`.",
    "busy-here": "Wait for the other command to end.",
    "not-ours": "Something else answered in the server's place: a top-up or login page? " + _AGAIN,
    "offline": _AGAIN,
    "timeout": _AGAIN,
    "broken": _AGAIN,
    "storage": "Free some space or check the disk; then try again.",
}


def exit_code(error: HudurError) -> int:
    """The exit code of a command that ended with `error`."""
    if isinstance(error, BadInput | NotEnrolled):
        return USAGE
    if isinstance(error, TransportError) or (isinstance(error, Problem) and error.retryable):
        return NO_ANSWER
    return REFUSED


def explain(error: HudurError) -> dict[str, str]:
    """`happened`, `work`, `do`: three sentences for a person."""
    happened = error.detail or error.code
    if isinstance(error, TransportError):
        happened = f"No answer from the server ({error.code}): {error.detail}"
    elif isinstance(error, Problem):
        happened = f"The server said {error.status} {error.code}" + (f": {error.detail}" if error.detail else "")
    elif isinstance(error, StoreError):
        happened = f"The disk refused: {error.detail}"
    work = "Nothing was changed." if isinstance(error, LocalError) else _SAFE_HERE
    if isinstance(error, StoreError):
        work = "What was confirmed before is on disk; this last act was not written."
    default = _AGAIN if exit_code(error) == NO_ANSWER else "Correct it and run the command again."
    return {"happened": happened, "work": work, "do": _DO.get(error.code, default)}
