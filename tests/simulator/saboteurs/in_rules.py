"""Bugs of the pure rules: merge, conflicts, rights, clocks, windows, events."""

from __future__ import annotations

from tests.simulator.saboteurs.model import Saboteur

RULES = (
    # ---- merge ----
    Saboteur(
        name="sort-by-wall-clock",
        file="clientcore/history.py",
        before="        return sorted(found, key=lambda put: put.id)",
        after='        return sorted(found, key=lambda put: int(put.value[1:].partition(":")[0]))',
        breaks=("I10", "S11"),
        why="The latest mark wins.",
        seen_by="Two teachers mark a pupil differently, apart, with different clocks. Checker: visible values and "
        "winner = an independent merge (reliability.md appendix B, or Automerge).",
    ),
    Saboteur(
        name="equivocation-by-arrival",
        file="clientcore/history.py",
        before="for digest in sorted(self.known):",
        after="for digest in self.known:",
        breaks=("I4", "S5"),
        why="First come, first served.",
        seen_by="A hostile device signs two different changes with one (actor, seq). Checker: merging the register's "
        "changes in any order gives the same outcome.",
    ),
    Saboteur(
        name="held-change-hides-marks",
        file="reconciliation/conflicts.py",
        before="        pred\n        for digest in counted\n",
        after="        pred\n        for digest in history.merged\n",
        breaks=("I11", "I5"),
        why="What was replaced is replaced.",
        seen_by="A revoked or unentitled author marks a pupil over an entitled one's mark. Checker: leaving all held "
        "changes out of the log altogether gives the same answers (for authors who never saw them).",
    ),
    # ---- disputes ----
    Saboteur(
        name="absent-outvotes-the-witness",
        file="reconciliation/conflicts.py",
        before="    return (witnesses or values)[-1], len(",
        after="    return values[-1], len(",
        breaks=("I5", "C3"),
        why="Automerge has a winner, so there is an answer.",
        seen_by="Two teachers apart: one says present, one absent. Checker: where a visible mark of a counted author "
        "witnesses presence, the answer is never an absence.",
    ),
    Saboteur(
        name="dispute-not-told",
        file="reconciliation/conflicts.py",
        before="len({mark.code for mark in values}) > 1",
        after="len({mark.user_id for mark in values}) > 2",
        breaks=("C3",),
        why="A majority decides.",
        seen_by="Two teachers apart with different codes. Checker: visible counted marks with two codes are disputed "
        "in outcome and event, with both values.",
    ),
    # ---- reconcile ----
    Saboteur(
        name="answers-for-strangers",
        file="reconciliation/reconcile.py",
        before="context) for pupil in sorted(roster)",
        after="context) for pupil in sorted(roster | marks.keys())",
        breaks=("I5",),
        why="Whoever was marked was in the room.",
        seen_by="A pupil leaves a class (roster import) but is still on an old list when the register is taken. "
        "Checker: events and answers are about pupils of that day's roster only.",
    ),
    Saboteur(
        name="review-told-as-confirmed",
        file="reconciliation/reconcile.py",
        before="Settled(state=State.CONFIRMED if slug is None else State.NEEDS_REVIEW, slug=slug)",
        after="Settled(state=State.CONFIRMED, slug=slug)",
        breaks=("I9",),
        why="It is in the register, after all.",
        seen_by="A dispute, a closed day, a late change. Checker: what is confirmed has no reason and every visible "
        "mark of it is the undisputed answer.",
    ),
    Saboteur(
        name="pending-told-as-confirmed",
        file="reconciliation/reconcile.py",
        before="{digest: Settled(state=State.WAITING, slug=PENDING) for digest in history.pending}",
        after="{digest: Settled(state=State.CONFIRMED) for digest in history.pending}",
        breaks=("I9",),
        why="It arrived; the rest will come.",
        seen_by="A courier with half of a phone's frames (file cut short, older copy): a change without what it "
        "builds on. Checker: confirmed changes are merged: their marks are visible or superseded by merged "
        "ones.",
    ),
    Saboteur(
        name="revocation-by-capture-time",
        file="reconciliation/scope.py",
        before="if revoked_at_ms is not None and receipt.received_at_ms >= revoked_at_ms:",
        after="if revoked_at_ms is not None and captures[0].at_ms >= revoked_at_ms:",
        breaks=("I11",),
        why="What was marked before the revocation was marked with the right.",
        seen_by="A revoked phone sends later what it claims to have taken before (work that waited, or a clock set "
        "back). Checker by the world's own truth: nothing received after the revocation alters an outcome.",
    ),
    Saboteur(
        name="revocation-forgotten",
        file="syncserver/store/surroundings.py",
        before="            if known:\n                found[school][device] = min(known)",
        after="            if len(known) > 1:\n                found[school][device] = min(known)",
        breaks=("I11",),
        why="Two sources must agree before a teacher is shut out.",
        seen_by="A phone is revoked by the operator alone, then sends marks.",
    ),
    # ---- time ----
    Saboteur(
        name="on-time-by-the-phone",
        file="reconciliation/timeliness.py",
        before="    if received_at_ms < window.closes_ms:",
        after="    if captured.at_ms < window.closes_ms:",
        breaks=("S11",),
        why="What counts is when the register was taken.",
        seen_by="A register that arrives on a later day. Checker: `on_time` if and only if it was received before the "
        "window closed, by the world's clock.",
    ),
    Saboteur(
        name="doubt-against-the-author",
        file="reconciliation/timeliness.py",
        before="    if captured.interval[0] < window.closes_ms:",
        after="    if captured.interval[1] < window.closes_ms:",
        breaks=("S11",),
        why="The later end of the interval is the safe one.",
        seen_by="A phone without a beacon whose register, taken in time, arrives the next day. Checker by the world's "
        "own truth: what was tapped inside its window is never an adjustment (phones whose clock did not "
        "jump).",
    ),
    Saboteur(
        name="adjustment-counts-unapproved",
        file="reconciliation/reconcile.py",
        before="return frozenset() if approved or self.held is not None else self.adjusting",
        after="return frozenset()",
        breaks=("S11",),
        why="It is shown under its label, that will do.",
        seen_by="A register of last week is taken today. Checker: nobody approves in this world, so no answer was made "
        "after its window.",
    ),
    Saboteur(
        name="fast-clock-believed",
        file="reconciliation/clocks.py",
        before="            earliest = floor  # registers",
        after="            earliest = tap  # registers",
        breaks=("S12", "S11"),
        why="A phone says when it was tapped; a slow network only makes it later.",
        seen_by="A phone that is fast by hours, has heard no server since its app started, and sends the next day. "
        "Checker by the world's own truth: the true moment of the tap lies in its interval.",
    ),
    Saboteur(
        name="phone-clock-trusted",
        file="reconciliation/clocks.py",
        before="    shift = received - clock.wall_ms  # phone time to the latest server time",
        after="    shift = 0  # phone time to the latest server time",
        breaks=("S12",),
        why="The phone knows best when it was tapped.",
        seen_by="A phone whose clock is behind by hours. Checker: the true moment of the tap lies in "
        "`captured_between` of its event (phones whose clock did not jump between tap and frame).",
    ),
    # ---- events ----
    Saboteur(
        name="absent-by-default",
        file="reconciliation/events.py",
        before="    if answer is None or answer.code is None:\n        return None",
        after="    if answer is None or answer.code is None:\n"
        '        return None if answer is None else {"code": Code.ABSENT.word}',
        breaks=("I5",),
        why="Who was not marked was not there.",
        seen_by="A register in which some pupils were not marked (interrupted, killed, held). Checker: every event "
        "that says an absence names a stored, unsuperseded mark of that code by an entitled author.",
    ),
    Saboteur(
        name="withdrawal-forgotten",
        file="reconciliation/events.py",
        before="for pupil in sorted(before.keys() | outcome.answers.keys()):",
        after="for pupil in sorted(outcome.answers.keys()):",
        breaks=("I6", "I4"),
        why="The outcome lists everybody.",
        seen_by="A pupil is taken off a past day's roster (import with an earlier date) after an answer was told. "
        "Checker: folding the whole feed gives exactly the outcomes' answers.",
    ),
)
