"""Bugs of the device: log, journal, sealing, fold, outbox, inbox, answers, waiting."""

from __future__ import annotations

from tests.simulator.saboteurs.model import Saboteur

DEVICE = (
    # ---- the log ----
    Saboteur(
        name="device-log-unsynced",
        file="clientcore/log.py",
        before="            db.execute(SCHEMA)",
        after='            db.execute(SCHEMA), db.execute("PRAGMA synchronous=OFF")',
        breaks=("I1",),
        why="Taps felt slow on an old phone, and nobody cut its power.",
        seen_by="Battery death of a phone soon after a tap (unsynced writes dropped or torn); at its next start every "
        "mark whose tap had returned must be in the fold of the log.",
    ),
    Saboteur(
        name="journal-in-memory",
        file="clientcore/log.py",
        before="PRAGMA journal_mode=DELETE",
        after="PRAGMA journal_mode=MEMORY",
        breaks=("I1",),
        why="The journal file is one write more for each tap.",
        seen_by="Kill or power cut at an I/O operation in the middle of the log's commit: the file is torn, the log "
        "is set aside as damaged and the saved marks of this phone are gone.",
    ),
    Saboteur(
        name="full-disk-swallowed",
        file="clientcore/log.py",
        before='        raise StoreError("storage", f"{type(broken).__name__}: {broken}") from broken',
        after="        return",
        breaks=("I1",),
        why="The app must not crash because a disk is full.",
        seen_by="ENOSPC or EIO at a tap's commit: the tap returns although no row was written; the mark is missing "
        "after the next start.",
    ),
    Saboteur(
        name="first-tap-sealed",
        file="clientcore/sealing.py",
        before="(key, of_key[-1].value)",
        after="(key, of_key[0].value)",
        breaks=("I1",),
        why="Index 0 of a list that usually has one element.",
        seen_by="A teacher corrects a pupil before the register is sealed. The last mark whose tap returned must be "
        "the one in force for its author, on the phone and (no other author, all faults off) in the outcome.",
    ),
    Saboteur(
        name="correction-replaces-nothing",
        file="clientcore/sealing.py",
        before="preds=tuple(put.id for put in visible.get(key, ())[-PREDS_PER_OP_MAX:])",
        after="preds=()",
        breaks=("C3", "I5"),
        why="Works for a first taking of the register, which is what was tried.",
        seen_by="A correction after the first was sealed: a pupil whom one author alone marked has two visible values "
        "and is disputed. Checker: a dispute needs two authors (or a copied phone).",
    ),
    Saboteur(
        name="one-head-of-several",
        file="clientcore/sealing.py",
        before="deps=history.heads,",
        after="deps=history.heads[:1],",
        breaks=("I10",),
        why="A register usually has one head.",
        seen_by="Two phones marked a register apart; the next change on top of both is `inconsistent`. Checker: no "
        "change of an honest device is ever inconsistent or an equivocation.",
    ),
    Saboteur(
        name="seal-after-pull",
        file="clientcore/device.py",
        before="        self.journal.seal()  # tapped without sight of what comes now",
        after="        pass  # tapped without sight of what comes now",
        breaks=("C3",),
        why="Sealing happens before the next request anyway.",
        seen_by="A tap while the answer is on its way (slow link) that brings a colleague's mark of the same pupil. "
        "Checker: no put supersedes a change that its phone did not hold when the tap was made.",
    ),
    Saboteur(
        name="one-actor-for-ever",
        file="clientcore/journal.py",
        before="self._session = self._random.bytes(NONCE_BYTES)",
        after="self._session = self.device[:NONCE_BYTES]",
        breaks=("S5", "I10"),
        why="A stable actor id keeps documents small; Automerge applications do it.",
        seen_by="A cloned phone, or one restored from an older copy, goes on marking: two changes with one (actor, "
        "seq). Checker: no change of an honest device is ever an equivocation or inconsistent.",
    ),
    # ---- the fold: what the phone says ----
    Saboteur(
        name="tap-not-pending",
        file="clientcore/fold.py",
        before="            del register.taps[key]\n        self._touch(register.register)",
        after="            del register.taps[key]",
        breaks=("I9",),
        why="The register becomes pending when the change is sealed.",
        seen_by="After each tap: `pending` must count every register with a mark that has no receipt.",
    ),
    Saboteur(
        name="sent-when-any-is-sent",
        file="clientcore/states.py",
        before="not all(entry.is_sent for entry in entries):",
        after="(entries and not any(entry.is_sent for entry in entries)):",
        breaks=("I9",),
        why="any and all, mixed up.",
        seen_by="A correction of a register that was sent before: `pending` is too low until its receipt comes.",
    ),
    Saboteur(
        name="confirmed-when-any-is",
        file="clientcore/states.py",
        before="if all(entry.settled == CONFIRMED for entry in entries)",
        after="if any(entry.settled == CONFIRMED for entry in entries)",
        breaks=("I9",),
        why="any and all, mixed up.",
        seen_by="A correction of a confirmed register, sent but not settled yet. Checker: a register shown confirmed "
        "has every own change settled with state 1 on the server.",
    ),
    Saboteur(
        name="reframed-keeps-its-verdict",
        file="clientcore/fold.py",
        before="            self._judge(name, None)",
        after="            pass",
        breaks=("I9",),
        why="The change was acknowledged once; that cannot be taken back, can it?",
        seen_by="Restore from an older backup; the server wants a lost change again, it is framed anew and shown as "
        "sent (or confirmed) while no log holds it. Checker: pending against what the log of this epoch holds "
        "or has answered, after the device has learnt of the new epoch and the server's `want`.",
    ),
    Saboteur(
        name="ignore-epoch",
        file="clientcore/fold.py",
        before="return self.epoch_seen > self.epoch or self.needs_whole_offer",
        after="return self.needs_whole_offer",
        breaks=("I2",),
        why="Restores never happen in development.",
        seen_by="Restore from a backup older than some acknowledged changes, then one contact of each phone: every "
        "change that was ever acknowledged is in the log again.",
    ),
    Saboteur(
        name="forgotten-at-durable",
        file="clientcore/fold.py",
        before="        entry.verdict = verdict\n",
        after="        entry.verdict = verdict\n        verdict and verdict.is_safe and self.entries.pop(name, None)\n",
        breaks=("I2",),
        why="The server has it, so the phone need not keep it.",
        seen_by="Restore from an older backup: what was forgotten is not offered again.",
    ),
    Saboteur(
        name="re-enrolment-offers-nothing",
        file="clientcore/fold.py",
        before="            self.offers_due += 1  # the server had forgotten",
        after="            pass  # the server had forgotten",
        breaks=("I2",),
        why="An enrolment is a fresh start.",
        seen_by="Restore from a backup older than the phone's enrolment; the phone enrols again with its key and log. "
        "Then all that was acknowledged before must be in the log.",
    ),
    Saboteur(
        name="number-not-learnt",
        file="clientcore/fold.py",
        before="            self.last_number, self.last_prev = answer.last_number, NO_PREV",
        after="            pass",
        breaks=("I8", "S5"),
        why="Our own log knows best how many frames we made.",
        seen_by="A phone restored from an older copy: every answer tells it that it is a copy, it offers all it has "
        "again and again, and its numbers are used twice. Conversations do not end.",
    ),
    # ---- journal, outbox, inbox ----
    Saboteur(
        name="acknowledged-never-resent",
        file="clientcore/journal.py",
        before="if entry is not None and entry.own:",
        after="if entry is not None and entry.own and not entry.is_sent:",
        breaks=("I2",),
        why="Never send again what was acknowledged: it costs the teacher's data.",
        seen_by="Restore from an older backup, the server wants lost changes again.",
    ),
    Saboteur(
        name="durable-taken-for-archived",
        file="clientcore/outbox.py",
        before="else state.archived\n",
        after="else {name for name, entry in state.entries.items() if entry.is_sent}\n",
        breaks=("I2",),
        why="What is on the server's disk need not be offered; the hash list gets short.",
        seen_by="Restore from a backup older than changes that were acknowledged.",
    ),
    Saboteur(
        name="want-ignored",
        file="clientcore/device.py",
        before="        if inbox.wanted:\n",
        after="        if inbox.wanted and self.state.unframed:\n",
        breaks=("I2",),
        why="Nothing waits for a frame, so there is nothing to frame.",
        seen_by="Restore from an older backup, the server wants lost changes again.",
    ),
    Saboteur(
        name="only-the-newest-frame",
        file="clientcore/outbox.py",
        before="if frame.changes or frame.number == state.last_number]",
        after="if frame.number == state.last_number]",
        breaks=("I8",),
        why="A later frame overtakes an earlier one.",
        seen_by="A request that is lost, and another register taken before the next try: the first frame never goes "
        "out again. At the end every pending set must be empty.",
    ),
    Saboteur(
        name="restored-copy-offers-nothing",
        file="clientcore/fold.py",
        before="        if slug == RESTORED_COPY:\n            self.offers_due += 1",
        after="        if slug == RESTORED_COPY:\n            self.offers_due += 0",
        breaks=("I8",),
        why="What the old copy lacks will come with the next pull.",
        seen_by="A phone restored from an older copy after its later changes were sent: it never gets its own changes "
        "back. Checker at the end: each phone holds every change of its log's registers that the server "
        "shows.",
    ),
    Saboteur(
        name="settlement-only-if-newer",
        file="clientcore/inbox.py",
        before="known.revision != revision or not told:",
        after="known.revision < revision:",
        breaks=("I8", "I9"),
        why="An older revision is an old message.",
        seen_by="Restore (revisions count anew), or a word that changes while the outcome stays. Checker at the end: "
        "state and reason of every own change on the phone = the server's word.",
    ),
    Saboteur(
        name="stale-answer-believed",
        file="clientcore/exchange.py",
        before="if answer.request != request_digest(request):",
        after="if not answer.request:",
        breaks=("I9", "I2"),
        why="It is signed by our server, so it is true.",
        seen_by="A middlebox answers a POST with an earlier answer of ours (same phone, an equal number of changes): "
        "the phone takes changes for durable which no log holds.",
    ),
    # ---- waiting ----
    Saboteur(
        name="queue-cleared-on-503",
        file="clientcore/fold.py",
        before="        self.last_outcome, self.last_attempt_at_ms = outcome, row.at_ms",
        after="        self.last_outcome, self.last_attempt_at_ms = outcome, row.at_ms\n"
        '        outcome in ("busy", "storage") and [setattr(frame, "open", False) for frame in self.open_frames()]',
        breaks=("I8",),
        why="The server has answered, so the queue is done.",
        seen_by="The server answers 503 (its disk fails, or it is busy) while work waits: pending never empties.",
    ),
    Saboteur(
        name="back-off-without-cap",
        file="clientcore/backoff.py",
        before="min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2.0 ** min(failures - 1, _DOUBLINGS_MAX))",
        after="BACKOFF_BASE_S * 2.0 ** min(failures - 1, _DOUBLINGS_MAX)",
        breaks=("I8",),
        why="Exponential means exponential.",
        seen_by="An outage over a day or more, the app left open and trying on its own. Checker: when faults stop, "
        "pending is empty within two maximal back-offs (2 x 900 s), by the app's own waiting; or `wait_ms` <= "
        "900 s.",
    ),
    Saboteur(
        name="retry-after-ignored",
        file="clientcore/backoff.py",
        before="max(ceiling_s * fraction, retry_after_s or 0.0)",
        after="ceiling_s * fraction",
        breaks=("L2",),
        why="The device has its own back-off.",
        seen_by="503 or 429 with Retry-After. Checker: the `wait_ms` of the conversation is never less than the "
        "Retry-After of its last answer.",
    ),
)
