"""Invariants looked at when the term is over, faults have stopped and everybody had time to talk."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from clientcore.change import Change, parse
from clientcore.history import merge
from clientcore.register import RegisterId
from clientcore.states import Step
from reconciliation.events import event_state, events
from reconciliation.model import Outcome
from reconciliation.reconcile import reconcile
from reconciliation.wire import canonical
from syncserver.store.port import Database
from syncserver.store.registers import StoredOutcome, changes_of, outcome_of
from syncserver.store.surroundings import context_of
from tests.simulator.lab import Lab
from tests.simulator.phone import PhoneHost
from tests.simulator.truth import Truth

ORACLE_REGISTERS_MAX = 4  # per world; 1,500 school-days give thousands
_REGISTERS = "SELECT DISTINCT school, class_id, date, session FROM changes ORDER BY 1, 2, 3, 4"
_UNSETTLED = """
SELECT c.school || '/' || c.class_id || '/' || c.date || '/' || c.session, hex(c.hash) FROM changes c
LEFT JOIN settlements s ON s.log_offset = c.log_offset LEFT JOIN dead_letters x ON x.log_offset = c.log_offset
WHERE s.log_offset IS NULL AND x.id IS NULL"""
_DEAD = """
SELECT c.school || '/' || c.class_id || '/' || c.date || '/' || c.session, c.hash, x.code, x.detail
FROM dead_letters x JOIN changes c ON c.log_offset = x.log_offset
WHERE x.requeued = 0"""


@dataclass(slots=True, kw_only=True)
class Final:
    """The last look at one world."""

    lab: Lab
    db: Database
    zone: str
    start_ms: int
    hostile: frozenset[bytes]  # hashes of changes that no machine can merge
    told: dict[str, dict[str, dict[str, Any]]]  # register -> pupil -> the last event's data, withdrawn ones left out

    async def look(self, phones: list[PhoneHost]) -> None:
        """Everything."""
        source = random.Random(f"final|{self.lab.swarm.seed}")
        left = await self.db.fetch_all(_UNSETTLED)
        self.lab.ledger.check("I7", not left, f"never settled: {left[:3]}")
        dead = await self.db.fetch_all(_DEAD)
        # What built upon a change that a restore took back, and whose phone is lost, waits for it in vain.
        orphans = {register for register, _ in self.lab.ledger.gone}
        innocent = [
            (register, digest.hex()[:12], code, detail)
            for register, digest, code, detail in dead
            if digest not in self.hostile and not (code == "pending" and register in orphans)
        ]
        self.lab.ledger.check("I7", not innocent, f"an honest change is a dead letter: {innocent[:3]}")
        await self._promises()
        for at, key in enumerate(await self.db.fetch_all(_REGISTERS)):
            await self._register((key[0], key[1], key[2], key[3]), source, oracle=at < ORACLE_REGISTERS_MAX)
        for phone in phones:
            self._phone(phone)
        await Truth(
            lab=self.lab,
            db=self.db,
            told=self.told,
            hostile=self.hostile,
            start_ms=self.start_ms,
            zone=self.zone,
            phones=phones,
        ).look()

    async def _promises(self) -> None:
        """I2, and after a restore: everything promised is in the log again."""
        ledger = self.lab.ledger
        stored = {
            (register, digest)
            for register, digest in await self.db.fetch_all(
                "SELECT school || '/' || class_id || '/' || date || '/' || session, hash FROM changes"
            )
        }
        missing = [name for name in ledger.promised if name not in stored and name not in ledger.gone]
        told = ", ".join(f"{register} {digest.hex()[:12]}" for register, digest in missing[:3])
        ledger.check("I2", not missing, f"promised and not in the log at the end: {len(missing)}: {told}")

    async def _register(self, key: tuple[str, str, str, str], source: random.Random, *, oracle: bool) -> None:
        ledger, name = self.lab.ledger, "/".join(key)
        stored = await changes_of(self.db, key, 1 << 53)
        found = await outcome_of(self.db, key)
        ledger.check("I4", found is not None, f"{name} has changes and no outcome")
        if found is None:
            return
        context = await context_of(self.db, key, self.zone)
        shuffled = stored * 2
        source.shuffle(shuffled)
        again = reconcile(
            RegisterId(*key),
            merge(parse(one.chunk) for one in shuffled),
            {one.hash: one.receipt for one in shuffled},
            context,
        )
        ledger.check("I4", canonical(again.to_wire()) == found.body, f"{name}: computed anew it is another outcome")
        await self._events(name, found)
        receipts = {one.hash: one.receipt for one in stored}
        self._tapped(name, again)
        for pupil, answer in again.answers.items():
            if answer.mark is not None:
                receipt = receipts[answer.mark.change_hash]
                revoked_ms = context.revoked_devices.get(receipt.device)
                late = revoked_ms is not None and receipt.received_at_ms > revoked_ms
                ledger.check("I11", not late, f"{name}/{pupil}: counts a mark that came after its device was revoked")
        if oracle:
            self._oracle(name, [parse(one.chunk) for one in stored])

    async def _events(self, name: str, found: StoredOutcome) -> None:
        """I4: the events about a register add up to its outcome."""
        told = self.told.get(name, {})
        wanted, _ = events(None, found.outcome, {}, time_ms=0)
        state = event_state(wanted)
        keep = {pupil: {key: said.get(key) for key in state.get(pupil, {})} for pupil, said in told.items()}
        self.lab.ledger.check("I4", keep == state, f"{name}: events add up to another register than the outcome")

    def _tapped(self, name: str, outcome: Outcome) -> None:
        """I5: whatever counts for a pupil, absences first of all, was tapped by the person it is counted for."""
        ledger = self.lab.ledger
        for pupil, answer in outcome.answers.items():
            if answer.mark is None:
                continue
            mark = (name, pupil, answer.mark.value)
            known = ledger.tappers.get(mark, set())
            made = bool(known) or answer.mark.change_hash in self.hostile
            ledger.check("I5", made, f"{mark}: nobody tapped this")
            rightly = not known or answer.mark.user_id in known
            ledger.check("I5", rightly, f"{mark}: tapped by {known}, counted for {answer.mark.user_id}")

    def _oracle(self, name: str, changes: list[Change]) -> None:
        """I10: the native core sees the same register. Only what the strict parser admitted comes here."""
        from automerge import core

        history = merge(changes)
        self.lab.samples.append(tuple(change.chunk for change in history.merged.values()))
        document: Any = core.Document.load(b"".join(change.chunk for change in history.merged.values()))
        heads = sorted(bytes(head) for head in document.get_heads())
        self.lab.ledger.check("I10", heads == sorted(history.heads), f"{name}: heads differ from the native core's")
        winners = {key: puts[-1].value for key, puts in history.visible().items()}
        root: Any = core.ROOT  # its stubs promise less than it gives
        values = {key: document.get(root, key)[0][1] for key in document.keys(root)}
        self.lab.ledger.check("I10", values == winners, f"{name}: values differ from the native core's")

    def talked(self, phone: PhoneHost) -> None:
        """I8: two maximal back-offs after the faults stopped a phone that can talk has nothing left to send."""
        device = phone.device
        if phone.retired or phone.refused is not None:
            return
        if device is None:
            self.lab.ledger.check("I8", False, f"{phone.name}: the app is not open when everything works")
            return
        registers = device.state.registers
        left = [
            name
            for name in sorted(device.state.pending_registers)
            if registers[name].taps
            or any(not one.is_sent and not one.is_refused for one in registers[name].entries.values())
        ]
        self.lab.ledger.check("I8", not left, f"{phone.name}: still pending when everything works: {left[:3]}")

    def _phone(self, phone: PhoneHost) -> None:
        """I8: a phone that can talk has nothing left to send."""
        device = phone.device
        if phone.retired or device is None or phone.refused is not None:
            return
        wrong = [
            name
            for name, register in device.state.registers.items()
            if register.step is Step.SENT and any(one.own and not one.settled for one in register.entries.values())
        ]
        self.lab.ledger.check("I8", not wrong, f"{phone.name}: sent and never told what became of it: {wrong[:3]}")
