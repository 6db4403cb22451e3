"""Why an answer is what it is: the chain from the taps to the official code, step by step, in words. Pure.

Every mark ever made for a pupil is named with its author, device, clocks and receipt, and with what became of it; then
what people decided, what follows, and what was told. The steps explain the outcome they are given; they decide nothing,
and whoever follows them by hand arrives at the same code (property-tested).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from clientcore.change import Change, OpId
from clientcore.history import History, Put, merge
from clientcore.register import Code, Mark
from reconciliation.adjustments import Stage, asking_ends_ms, captures_of, request_of
from reconciliation.calendar import SchoolCalendar, civil_date, day_window
from reconciliation.clocks import midnight_ms
from reconciliation.decisions import Approval, Level
from reconciliation.explain_words import parts, say
from reconciliation.model import Answer, Capture, Context, Occasion, Outcome, Receipt
from reconciliation.scope import held_because
from reconciliation.timeliness import timeliness
from reconciliation.wire import NOT_TAKEN_WORD, iso

COUNTS, SUPERSEDED, HELD, SET_ASIDE = "counts", "superseded", "held", "set-aside"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One link of the chain.

    Attributes:
        code: Which kind of step, e.g. `mark`.
        facts: Plain data: ids, codes, ISO times.
        ar: The sentence in Arabic.
        en: The same in English.
    """

    code: str
    facts: Mapping[str, Any]
    ar: str
    en: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trail:
    """What the store knows beside the register: all plain data, oldest first.

    Attributes:
        told: Events about the pupil (their CloudEvents data, with `type` and `time`).
        audit: Rows that concern the pupil or its changes: id, at_ms, actor, action, reason.
        dead: Dead letters of the register: offset, code.
        unsettled: Whether the stored outcome is older than the changes.
    """

    told: Sequence[Mapping[str, Any]] = ()
    audit: Sequence[tuple[int, int, str, str, str]] = ()
    dead: Sequence[tuple[int, str]] = ()
    unsettled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The chain for one pupil; `code` is what it ends in (None: not taken, or no answer)."""

    register: str
    pupil: str
    canonical: str
    code: Code | None
    steps: tuple[Step, ...]

    def to_wire(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "register": self.register,
            "pupil": self.pupil,
            "canonical": self.canonical,
            "code": NOT_TAKEN_WORD if self.code is None else self.code.word,
            "steps": [{"code": one.code, "facts": dict(one.facts), "ar": one.ar, "en": one.en} for one in self.steps],
        }


def explain(
    pupil: str,
    changes: Iterable[Change],
    receipts: Mapping[bytes, Receipt],
    context: Context,
    outcome: Outcome,
    trail: Trail | None = None,
) -> Explanation:
    """Explain one pupil's answer.

    Args:
        pupil: Any id of the pupil.
        changes: Every change of the register that could be read.
        receipts: Their first receipts.
        context: The surroundings with which `outcome` was computed.
        outcome: What `reconcile` made of these three.
        trail: What the store knows beside.
    """
    known = {change.hash: change for change in changes}
    canonical = context.aliases.get(pupil, pupil)
    chain = _Chain(
        canonical=canonical,
        known=known,
        history=merge(known.values()),
        receipts=receipts,
        context=context,
        outcome=outcome,
    )
    chain.surroundings()
    chain.marks()
    chain.answer()
    chain.after(trail or Trail())
    answer = outcome.answers.get(canonical)
    return Explanation(
        register=str(outcome.register),
        pupil=pupil,
        canonical=canonical,
        code=None if answer is None else answer.code,
        steps=tuple(chain.steps),
    )


@dataclass(slots=True, kw_only=True)
class _Chain:
    """The steps as they are put together."""

    canonical: str
    known: Mapping[bytes, Change]
    history: History
    receipts: Mapping[bytes, Receipt]
    context: Context
    outcome: Outcome
    over: dict[OpId, bytes] = field(default_factory=dict)  # mark -> a change that replaced it
    steps: list[Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        for digest, change in self.history.merged.items():
            for op in change.ops:
                for pred in op.preds:
                    self.over.setdefault(pred, digest)

    def add(self, code: str, facts: Mapping[str, Any], **shown: str) -> None:
        """One step; `shown` are fields of the sentence beside the facts. Moments are shown as clocks on the wall do."""
        if "at" in facts:
            shown["at"] = self._local(_ms(facts["at"]))
        arabic, english = say(code, facts, shown)
        self.steps.append(Step(code=code, facts=facts, ar=arabic, en=english))

    @property
    def _calendar(self) -> SchoolCalendar:
        return self.context.calendar or SchoolCalendar(zone=self.context.zone)

    @property
    def _ids(self) -> tuple[str, ...]:
        aliases = sorted(alias for alias, stands in self.context.aliases.items() if stands == self.canonical)
        return (*aliases, self.canonical)

    def _local(self, at_ms: int) -> str:
        """A moment as clocks on the wall show it."""
        date = civil_date(at_ms, self.context.zone)
        seconds = (at_ms - midnight_ms(date, self.context.zone)) // 1000
        return f"{date} {seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"

    def _last_day(self, end_ms: int) -> str:
        return civil_date(end_ms - 1, self.context.zone)

    # ---- what surrounds the register

    def surroundings(self) -> None:
        """List, merged records, calendar, session."""
        outcome, register = self.outcome, self.outcome.register
        facts = {"register": str(register), "pupil": self.canonical, "version": outcome.roster_version}
        self.add("on-roster" if self.canonical in outcome.answers else "not-on-roster", facts)
        for alias in self._ids[:-1]:
            self.add("alias", {"alias": alias, "canonical": self.canonical})
        if outcome.closed is not None:
            self.add("closed-day", {"reason": outcome.closed})
        else:
            closes_ms, asked_ms = self.context.window.closes_ms, asking_ends_ms(register, self._calendar)
            facts = {"closes_at": iso(closes_ms), "asked_by": iso(asked_ms)}
            self.add("open-day", facts, closes=self._local(closes_ms), asked_until=self._last_day(asked_ms))
        if outcome.occasion is Occasion.NO_SESSION:
            self.add("no-session", {"reason": outcome.no_session_reason})

    # ---- every mark ever made

    def marks(self) -> None:
        """Marks of the pupil in the order of their making, then those about the register itself."""
        ids = self._ids
        puts = [put for put in self.history.puts() if put.key in ids]
        unread = [
            (digest, op.key, op.value)
            for digest, change in sorted(self.known.items())
            if digest not in self.history.merged
            for op in change.ops
            if op.key in ids and op.value is not None
        ]
        if not puts and not unread:
            self.add("no-mark", {})
        about = [put for put in self.history.puts() if put.key.startswith("~")]
        requests: dict[bytes, None] = {}
        for put in (*about, *puts):
            self._mark(put)
            requests[put.change_hash] = None
        for digest, key, value in unread:
            settled = self.outcome.changes.get(digest)
            why = None if settled is None else settled.slug
            self.add("unread-mark", {"key": key, "change": digest.hex(), "code": _word(value), "why": why})
        for digest in requests:
            self._request(digest)

    def _mark(self, put: Put) -> None:
        change, receipt = self.history.merged[put.change_hash], self.receipts.get(put.change_hash)
        fate, why, place = self._fate(put)
        facts: dict[str, Any] = {
            "key": put.key, "value": put.value, "code": _word(put.value), "reason": put.value.partition(":")[2] or None,
            "change": put.change_hash.hex(), "fate": fate, "why": why, "place": place,
        }  # fmt: skip
        if receipt is None:
            self.add("unread-mark", {**facts, "why": "no-receipt"})
            return
        captured = captures_of(self.outcome.register, change, receipt, self.context)
        self._made(facts, change, receipt, captured[put.id[0]])
        self._right(change, receipt, list(captured.values()))
        if fate == SUPERSEDED:
            self.add(SUPERSEDED, {"over": why})
        elif fate == HELD:
            self.add(HELD, {"why": why})
        elif not put.key.startswith("~"):
            self.add(SET_ASIDE if self.outcome.occasion is Occasion.NO_SESSION else COUNTS, {})

    def _made(self, facts: dict[str, Any], change: Change, receipt: Receipt, capture: Capture) -> None:
        first, last = capture.interval
        facts |= {
            "author": receipt.user_id,
            "device": receipt.device.hex(),
            "captured_between": [iso(first), iso(last)],
            "captured_at": iso(capture.at_ms),
            "confidence": capture.confidence.value,
            "evidence": _evidence(receipt, change.actor),
            "clock_flag": capture.clock_flag,
            "received_at": iso(receipt.received_at_ms),
            "offset": receipt.offset,
            "relayed": receipt.relayed,
            "timeliness": timeliness(capture, receipt.received_at_ms, self.context.window).value,
        }
        reason = facts["reason"]
        self.add(
            "mark",
            facts,
            device=receipt.device.hex()[:12],
            first=self._local(first),
            last=self._local(last),
            received=self._local(receipt.received_at_ms),
            reason=f" ({reason})" if reason else "",
            relayed_ar="، في ملف سلّمه شخص آخر" if receipt.relayed else "",
            relayed_en=", in a file another person handed in" if receipt.relayed else "",
        )

    def _right(self, change: Change, receipt: Receipt, captures: list[Capture]) -> None:
        release = self.context.decisions.releases.get(change.hash)
        if release is not None and release.by != receipt.user_id:
            facts = {"by": release.by, "change": change.hash.hex(), "at": iso(release.at_ms), "reason": release.reason}
            self.add("released", facts)
            return
        day = day_window(self.outcome.register, self.context.zone)
        if held_because(receipt, captures, day, self.context) is None:
            rights = self.context.entitled.get(receipt.user_id, ())
            used = [one for one in rights if _covers(one.from_ms, one.until_ms, captures)]
            name = used[0].delegation if used else None
            used_by: dict[str, Any] = {"right": "post" if name is None else "delegation", "delegation": name}
            self.add("right", used_by, delegation="" if name is None else f" {name}")

    def _fate(self, put: Put) -> tuple[str, str | None, int | None]:
        """What became of a mark, why, and its place among those that stand (the later, the stronger)."""
        answer = self.outcome.answers.get(self.canonical)
        values = () if answer is None else answer.values
        mine = (put.change_hash, put.value)
        standing = [place for place, mark in enumerate(values) if (mark.change_hash, mark.value) == mine]
        if standing:
            return COUNTS, None, standing[-1]
        for held in self.outcome.held:
            if (held.key, held.change_hash, held.value) == (put.key, put.change_hash, put.value):
                return HELD, held.slug, None
        if put.id in self.over:
            return SUPERSEDED, self.over[put.id].hex(), None
        settled = self.outcome.changes[put.change_hash]
        return (COUNTS, None, None) if put.key.startswith("~") else (HELD, settled.slug, None)

    def _request(self, digest: bytes) -> None:
        """The adjustment one change asks for, and every word on it."""
        receipt = self.receipts.get(digest)
        if receipt is None:
            return
        found = request_of(self.outcome.register, self.history.merged[digest], receipt, self.context)
        if found is None:
            return
        facts = {"change": digest.hex(), "author": receipt.user_id, "stage": found.stage.value,
                 "asked_by": iso(found.asked_by_ms), "decide_by": iso(found.decide_by_ms)}  # fmt: skip
        self.add(
            "request",
            facts,
            asked_until=self._last_day(found.asked_by_ms),
            decide_until=self._last_day(found.decide_by_ms),
        )
        for approval in self.context.decisions.approvals.get(digest, ()):
            stage = Stage.APPROVED if approval.approved else Stage.REJECTED
            said = {"by": approval.by, "level": approval.level.value, "at": iso(approval.at_ms), "stage": stage.value,
                    "reason": approval.reason.value, "reference": approval.reference}  # fmt: skip
            if approval == found.approval:
                self.add("decision", said)
            else:
                why = _void(approval, receipt, found.approval, found.decide_by_ms)
                self.add("void-decision", {**said, "why": why})

    # ---- what follows

    def answer(self) -> None:
        """Disagreement, decisions over it, and the official code."""
        answer = self.outcome.answers.get(self.canonical)
        if answer is None:
            self.add("no-answer", {})
            return
        if self.outcome.occasion is not Occasion.NO_SESSION:
            self._agreement(answer)
        if answer.original is not None:
            self.add("original", {"code": answer.original.code.word, "change": answer.original.change_hash.hex()})
        code, labels = answer.code, [*answer.labels, *(["disputed"] if answer.disputed else [])]
        facts = {"code": NOT_TAKEN_WORD if code is None else code.word, "reason": answer.reason, "labels": labels}
        reason = f" ({answer.reason})" if answer.reason else ""
        self.add("answer", facts, reason=reason, labels_ar=parts(labels, 0), labels_en=parts(labels, 1))

    def _agreement(self, answer: Answer) -> None:
        choice = self.context.decisions.choices.get(self.canonical)
        if len(answer.values) > 1:
            self.add("disputed" if len({mark.code for mark in answer.values}) > 1 else "agreed", {})
        if choice is not None:
            counts = answer.chosen_by is not None
            said = {"by": choice.by, "at": iso(choice.at_ms), "chosen": choice.chosen.hex(), "value": choice.value}
            self.add("settled" if counts else "void-choice", said)
        for ruling in self.context.decisions.rulings.get(self.canonical, ()):
            facts: dict[str, Any] = {
                "bulk": ruling.bulk,
                "by": ruling.by,
                "at": iso(ruling.at_ms),
                "code": ruling.code.word,
            }
            self.add("ruled" if ruling == answer.ruling else "void-ruling", facts)

    def after(self, trail: Trail) -> None:
        """What was told, what the audit holds, what could not be read."""
        for event in trail.told:
            kind = str(event["type"]).split(".")[-2]
            facts = {"revision": event["revision"], "at": event["time"], "kind": kind, "code": event.get("code")}
            self.add("told", facts)
        if not trail.told:
            self.add("untold", {})
        for row_id, at_ms, actor, action, reason in trail.audit:
            facts = {"id": row_id, "at": iso(at_ms), "actor": actor, "act": f"act:{action}", "reason": reason}
            self.add("audit", facts)
        for offset, why in trail.dead:
            self.add("dead-letter", {"offset": offset, "why": why})
        if trail.unsettled:
            self.add("unsettled", {})


def _ms(moment: str) -> int:
    """Milliseconds of what `iso` wrote."""
    return round(datetime.fromisoformat(moment).timestamp() * 1000)


def _word(value: str) -> str:
    """What any stored value says: a code's word, or what it says of the register."""
    other = {"B": "all_present", "H": "held", "N": "no_session"}.get(value[0])
    return other or Mark.parse(value).code.word


def _evidence(receipt: Receipt, actor: bytes) -> str:
    if receipt.clock.beacon is not None:
        return "beacon" if actor[:8] == receipt.clock.session else "earlier-beacon"
    return "clock-alone" if receipt.offset_floor_ms is None else "earlier-frame"


def _covers(from_ms: int, until_ms: int | None, captures: list[Capture]) -> bool:
    return any(from_ms <= one.interval[1] and (until_ms is None or one.interval[0] < until_ms) for one in captures)


def _void(approval: Approval, receipt: Receipt, counted: Approval | None, decide_by_ms: int) -> str:
    """Why a decision does not count."""
    if approval.by == receipt.user_id:
        return "author"
    if approval.level is Level.CENTRAL and not approval.reference.strip():
        return "no-reference"
    late = approval.level is Level.SCHOOL and approval.at_ms >= max(decide_by_ms, approval.decide_by_ms)
    return "too-late" if late or counted is None else "superseded-decision"
