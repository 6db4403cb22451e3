"""Bugs of the server: intake, store, settle, feed, pull, enrolment, quota."""

from __future__ import annotations

from tests.simulator.saboteurs.model import Saboteur

INTAKE = (
    Saboteur(
        name="ack-before-commit",
        file="syncserver/intake.py",
        before='            self._ports.reached("intake.before_commit")',
        after="            [one.done.done() or one.done.set_result(got) for one, got in zip(batch, stored)]\n"
        '            self._ports.reached("intake.before_commit")',
        breaks=("I2",),
        why="The receipts are ready; the commit is a formality.",
        seen_by="The commit fails (EIO, ENOSPC at the server's disk) or the process dies at `intake.before_commit` "
        "with the answer already on its way. Checker: every change in a receipt that left the server is in "
        "the log.",
    ),
    Saboteur(
        name="ack-on-exception",
        file="syncserver/store/inline.py",
        before='        connection.execute("COMMIT")',
        after='        try:\n            connection.execute("COMMIT")\n        except sqlite3.Error:\n'
        '            if connection.in_transaction:\n                connection.execute("ROLLBACK")',
        breaks=("I2",),
        why="Cleaning up was the point; the error got lost on the way.",
        seen_by="EIO or ENOSPC at the server's COMMIT: the push is answered durable and rolled back.",
    ),
    Saboteur(
        name="server-sync-normal",
        file="syncserver/store/sqlite.py",
        before='("synchronous", 2)',
        after='("synchronous", 1)',
        breaks=("I2",),
        why="The manual calls NORMAL the best choice for WAL.",
        seen_by="Power cut of the server (unsynced writes dropped) after receipts left it.",
    ),
    Saboteur(
        name="failed-store-goes-on",
        file="syncserver/store/sqlite.py",
        before="            self._fail()  # as in `transaction`",
        after="            pass  # as in `transaction`",
        breaks=("I2",),
        why="One failed write; the next may well succeed.",
        seen_by="EIO at a COMMIT or fsync of the server (settle's or intake's). Checker on the store: after a failed "
        "commit no commit succeeds, and no receipt leaves, before the store was closed, opened and checked "
        "(D6).",
    ),
    Saboteur(
        name="group-commit-answers-swapped",
        file="syncserver/intake.py",
        before="zip(batch, appended, strict=True)",
        after="zip(batch, reversed(appended), strict=True)",
        breaks=("I3",),
        why="A stack instead of a queue.",
        seen_by="Two phones whose pushes share one commit (07:30): each gets the other's verdicts. Checker: receipts "
        "name exactly the frames of their request, one verdict for each change, true for the log.",
    ),
    Saboteur(
        name="duplicate-told-as-durable",
        file="syncserver/store/log.py",
        before="            return _DUPLICATE",
        after="            return _DURABLE",
        breaks=("I3",),
        why="For the phone both mean the same.",
        seen_by="A request whose answer is lost, sent again. Checker on the server's ledger: a change is told "
        "`durable` at most once per epoch, and durable verdicts = rows written.",
    ),
    Saboteur(
        name="revoked-work-refused",
        file="syncserver/store/log.py",
        before="        self.known_changes.add(name)\n        self.log_offset += 1",
        after='        if revoked:\n            return Verdict(REFUSED, "revoked")\n'
        "        self.known_changes.add(name)\n        self.log_offset += 1",
        breaks=("I3",),
        why="Who is revoked has nothing to say.",
        seen_by="A revoked phone sends what it holds (itself: 403 with `held`, or by a courier). Checker: authentic "
        "changes of revoked subjects are in the log as held, and `held` tells their number.",
    ),
    Saboteur(
        name="twice-in-one-request",
        file="syncserver/store/log.py",
        before="        self.known_changes.add(name)\n",
        after="",
        breaks=("I3", "I8"),
        why="The unique index will say so.",
        seen_by="A courier's bundle with the same frame twice, or one change in two frames of one request: the push "
        "breaks a constraint and is answered 500 for ever. Checker: no answer 500; pending empties.",
    ),
    Saboteur(
        name="archived-at-settled",
        file="syncserver/store/log.py",
        before="archived=int(archived or 0),",
        after="archived=int(archived or settled_seq),",
        breaks=("I2",),
        why="A default that is never wrong in a store that has backups.",
        seen_by="Phones are told that their changes are archived without any verified backup; then a restore from a "
        "backup older than some of them (the first backups not yet verified): they are not offered again.",
    ),
    Saboteur(
        name="dedupe-by-signature",
        file="clientcore/frame.py",
        before="        hash=hashlib.sha256(signed).digest(),",
        after="        hash=hashlib.sha256(raw).digest(),",
        breaks=("S2", "S5"),
        why="The whole frame is what was received.",
        seen_by="A relay that turns signatures (r, s) into (r, n-s): the same frame again counts as a new one with a "
        "used number and its phone is reported as a copy. Checker: replayed bytes change nothing; no security "
        "event for a phone that was never copied.",
    ),
    Saboteur(
        name="clone-not-noticed",
        file="syncserver/store/log.py",
        before="numbers={(row[2], row[3]) for row in numbered},",
        after="numbers=set(),",
        breaks=("S5",),
        why="Within the batch is where it can be seen cheaply.",
        seen_by="A cloned or restored phone sends a used frame number with other bytes. Checker: for every (device, "
        "number) with two frames there is a `number-reused` event and the device is flagged `restored-copy`.",
    ),
    Saboteur(
        name="last-frame-forgotten",
        file="syncserver/store/log.py",
        before="if name[1] <= contacts[name[0]].last_number",
        after="if name[1] < contacts[name[0]].last_number",
        breaks=("S5",),
        why="A number above all before is new without a look; whoever thinks of the loop's bound is off by one.",
        seen_by="An answer that is lost: the phone sends its last frame again. Checker: no frame is stored twice.",
    ),
    Saboteur(
        name="last-number-goes-back",
        file="syncserver/store/log.py",
        before="max(self.last_numbers[frame.device], frame.number)",
        after="frame.number",
        breaks=("S5",),
        why="The latest frame has the latest number.",
        seen_by="A courier brings an older frame after newer ones came by network. Checker: `devices.last_number` = "
        "greatest number among the device's frames.",
    ),
    Saboteur(
        name="one-bad-change-blocks-the-frame",
        file="syncserver/checking.py",
        before="        return refused.code",
        after="        raise",
        breaks=("I7", "I3"),
        why="Errors should not pass silently.",
        seen_by="A hostile or broken device sends a frame with good changes and one that breaks the profile: the good "
        "ones must be durable, the bad one refused with its slug.",
    ),
    Saboteur(
        name="run-length-bomb",
        file="clientcore/columns.py",
        before="    if abs(count) > room:",
        after="    if abs(count) > 1 << 30:",
        breaks=("I7",),
        why="The sizes of the columns are compared afterwards.",
        seen_by="A hostile device sends a change of 52 bytes whose run length says 10^5 to 10^9 (reliability.md 6.1): "
        "it must be refused as `too-many-ops`, within 50 ms and 64 MB.",
    ),
    Saboteur(
        name="non-canonical-accepted",
        file="clientcore/columns.py",
        before="    if count == 1 or (count < 0 and after_literal):",
        after="    if count < 0 and after_literal:",
        breaks=("I10", "I7"),
        why="A run of one is a run.",
        seen_by="A hostile device sends a change with a run of length 1 spelt as a run, otherwise fine: it must be "
        "refused `not-canonical`. Checker: every change in the log re-encodes to its own bytes (Automerge "
        "loads it).",
    ),
    Saboteur(
        name="quota-never-refills",
        file="syncserver/quota.py",
        before="bucket.tokens + (now_ms - bucket.at_ms) * self._per_ms)",
        after="bucket.tokens)",
        breaks=("I8",),
        why="A sign lost while the expression was shortened.",
        seen_by="A phone with more than 60 requests, or 20 tries with one frame, in one life of the server: 429 for "
        "ever.",
    ),
)

SETTLE = (
    Saboteur(
        name="offset-before-output",
        file="syncserver/settle.py",
        before="        await self._db.atomically(partial(self._write_in, done=done), lane=LANE)",
        after="        await self._db.atomically("
        "partial(consuming.write_position, partition=0, log_offset=done.position, fence=self._need_fence()))\n"
        "        await self._db.atomically(partial(self._write_in, done=done), lane=LANE)",
        breaks=("I6", "I4"),
        why="Claim the work first, then do it.",
        seen_by="Crash of the server at `settle.before_outcome` or a failed commit there: the changes of that round "
        "are never settled. Checkers: recomputation from offset 0; every durable change has a word at the "
        "end.",
    ),
    Saboteur(
        name="settle-skips-one",
        file="syncserver/sight.py",
        before="    position = fresh[-1].log_offset if fresh else settled",
        after="    position = fresh[-1].log_offset + 1 if fresh else settled",
        breaks=("I4", "I8"),
        why="Is the position the last one read or the next one to read?",
        seen_by="Any second change: it is never settled. Recomputation from offset 0.",
    ),
    Saboteur(
        name="context-of-another-day",
        file="syncserver/store/surroundings.py",
        before="key = (school, class_id, day)",
        after='key = (school, class_id, "")',
        breaks=("I4",),
        why="A class has one roster, so the class is the cache's key.",
        seen_by="One round settles two days of one class (a phone that comes back after days, a lagging consumer): "
        "windows and rosters of the wrong day. Recomputation register by register.",
    ),
    Saboteur(
        name="revisions-not-saved",
        file="syncserver/store/settled.py",
        before="body = excluded.body, revisions = excluded.revisions",
        after="body = excluded.body",
        breaks=("I6",),
        why="A column added later, forgotten in one of two places.",
        seen_by="Two corrections of one pupil in separate rounds: two events with one id. Checker: a sink that reads "
        "the feed all along: ids unique, revisions 1, 2, 3, ..., each `supersedes` the one before.",
    ),
    Saboteur(
        name="revisions-begin-again",
        file="syncserver/settle.py",
        before="above=self._revisions_above",
        after="above=0",
        breaks=("I6",),
        why="A parameter that was tried with its default.",
        seen_by="Restore from a backup older than events that were read: the same ids come again with other content. "
        "Checker: the sink's memory of ids holds across restores (only ids between the marks of the restore "
        "are void).",
    ),
    Saboteur(
        name="word-compared-by-state",
        file="syncserver/store/settled.py",
        before="if known.get(word.log_offset) == (word.state, word.slug):",
        after="if known.get(word.log_offset, (0,))[0] == word.state:",
        breaks=("I4",),
        why="The state is what matters.",
        seen_by="A change that needs review for one reason, later for another (out of scope, then disputed after the "
        "roster came). Checker: `settlements` = the words of the recomputed outcome.",
    ),
    Saboteur(
        name="released-change-not-shown",
        file="syncserver/store/settled.py",
        before="merged_seq = coalesce(settlements.merged_seq, excluded.merged_seq)",
        after="merged_seq = settlements.merged_seq",
        breaks=("I8",),
        why="A change is shown when it is first settled.",
        seen_by="A change that was held or pending, then released (roster corrected, missing part came): colleagues "
        "never see it. Checker at the end: each phone holds all shown changes of its classes' registers of "
        "the last days.",
    ),
    Saboteur(
        name="national-holiday-not-resettled",
        file="syncserver/store/calendars.py",
        before="    if scope != EVERY_SCHOOL:\n        where +=",
        after="    if scope:\n        where +=",
        breaks=("I4",),
        why="One governorate was tried.",
        seen_by="A day closed (or opened again) late for all schools, after registers of it were settled. "
        "Recomputation: the labels differ.",
    ),
    Saboteur(
        name="rights-change-not-resettled",
        file="syncserver/store/roster.py",
        before="for school, class_id in sorted(plan.touched)],",
        after="for school, class_id in sorted(plan.versions)],",
        breaks=("I4",),
        why="The classes whose list has changed.",
        seen_by="Upstream assigns a teacher late (marks held as out of scope wait for it) without any change among "
        "the pupils. Recomputation: the marks count now.",
    ),
    Saboteur(
        name="release-not-settled",
        file="syncserver/orders/operating.py",
        before="JOIN changes c ON c.log_offset = s.log_offset WHERE s.device = ?",
        after="JOIN changes c ON c.log_offset = s.log_offset WHERE s.device = ? AND s.state = 1",
        breaks=("I4",),
        why="Only what counted can stop counting.",
        seen_by="The wrong phone is revoked, its work arrives and is held, then `undo`: the held changes must count. "
        "Recomputation from offset 0.",
    ),
    Saboteur(
        name="pending-never-buried",
        file="syncserver/settle.py",
        before="- self._config.pending_days * _DAY_MS",
        after="- self._config.pending_days * _DAY_MS * 1_000",
        breaks=("I7",),
        why="A unit converted twice.",
        seen_by="A change whose dependency never comes (a hostile device, a phone destroyed after a courier took half "
        "of its frames): a dead letter after 72 hours. Checker: no word `pending` older than 73 hours without "
        "one.",
    ),
    Saboteur(
        name="upstream-end-ignored",
        file="syncserver/store/surroundings.py",
        before="WHERE d.school IN ({}) AND (d.revoked_ms IS NOT NULL OR u.active = 0)",
        after="WHERE d.school IN ({}) AND d.revoked_ms IS NOT NULL",
        breaks=("I11",),
        why="Revocation is an operator's order; the roster is another matter.",
        seen_by="Upstream ends a teacher (roster import), whose phone then sends marks made before or after. Checker "
        "by the world's own truth: nothing received after the import alters an outcome.",
    ),
    Saboteur(
        name="feed-skips-rest-of-batch",
        file="syncserver/store/told.py",
        before="  FROM outcomes WHERE last_seq > ? {0}",
        after="  FROM outcomes WHERE first_seq > ? {0}",
        breaks=("I6",),
        why="Two columns, one of them was handier.",
        seen_by="A sink that reads pages smaller than a register's batch of events (limit 7). Checker: the sink's "
        "copy is dense, without gap in `sequence`, and equal to a whole reading.",
    ),
)

PULL = (
    Saboteur(
        name="new-class-brings-no-past",
        file="syncserver/pull.py",
        before="cursor = replace(cursor, classes=which, seq=0)",
        after="cursor = replace(cursor, classes=which)",
        breaks=("I8",),
        why="The cursor says what the device was told.",
        seen_by="A teacher gets one more class in which marks were made this week. Checker at the end: each phone "
        "holds all shown changes of its classes' registers of the last days.",
    ),
    Saboteur(
        name="rebuild-brings-no-own",
        file="syncserver/pull.py",
        before="own_chunks=whole",
        after="own_chunks=False",
        breaks=("I8",),
        why="A device knows its own changes.",
        seen_by="A phone restored from an older copy, after its later changes were sent: it never gets them back. "
        "Checker at the end: a phone holds all changes of its own device that the server holds.",
    ),
    Saboteur(
        name="directive-delivered-once",
        file="syncserver/store/pulled.py",
        before="reason, made_ms FROM directives WHERE device = ? AND done_ms IS NULL",
        after="reason, made_ms FROM directives WHERE device = ? AND delivered_ms IS NULL",
        breaks=("I8",),
        why="What was delivered need not be delivered again.",
        seen_by="A champion's resync order whose answer is lost on the way. Checker at the end: every directive to a "
        "device that talked since is done, on both sides.",
    ),
    Saboteur(
        name="pull-cache-ignores-imports",
        file="syncserver/pull.py",
        before="user, name = (contact.school, contact.user_id), (today, contact.roster_version)",
        after="user, name = (contact.school, contact.user_id), (today, 0)",
        breaks=("I8",),
        why="Classes change once a day at most.",
        seen_by="A roster import during the day, pulls before and after it without a restart of the server between. "
        "Checker after each complete conversation: the phone's classes and lists = the roster of that day.",
    ),
    Saboteur(
        name="amnesia-not-noticed",
        file="syncserver/enrol.py",
        before="wiped = tuple(row[0] for row in earlier) if request.label or len(earlier) == 1 else ()",
        after="wiped = tuple(row[0] for row in earlier) if request.label and len(earlier) > 1 else ()",
        breaks=("D9",),
        why="A condition turned around.",
        seen_by="A phone is wiped and enrolled again under its label. Checker: the earlier device is flagged "
        "`wiped-phone` and the phone is told.",
    ),
)
