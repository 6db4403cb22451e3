/**
 * Writes a log as the phone's own core writes it: a confirmed register, a frame whose answer was lost, and taps that nobody sealed.
 * Argument: the file to write. Prints what the phone itself thinks of it, as JSON.
 */
import { IDBFactory, IDBKeyRange } from 'fake-indexeddb';
import { writeFileSync } from 'node:fs';
import { hex } from '../../pwa/src/core/bytes';
import { Core, openDevice } from '../../pwa/src/core/device';
import { Server } from '../../pwa/test/server';
import { seeded } from '../../pwa/test/support';

Object.assign(globalThis, { IDBKeyRange });
const random = seeded(4);
const server = await new Server().start();
const phone = await openDevice(
  {
    wallMs: () => Date.parse('2026-11-22T06:00:00Z'),
    monoMs: () => 5000,
    random: (count) => random.bytes(count),
    uniform: () => 0.5,
    later: () => () => undefined,
    fetch: (url, init) => server.fetch(url, init),
    indexedDb: new IDBFactory(),
    origin: 'http://test',
    online: () => true,
    visible: () => true,
    modulesAtHand: () => true,
    link: () => '2g',
    exclusively: (work) => work().then(() => true),
  },
  'test-1',
);
const idle = async (): Promise<void> => {
  while (phone.state.syncing) await new Promise((done) => setImmediate(done));
};
await phone.enrol('eg-07-113', 'BCDFGHJKLM', 'phone');
await phone.sync('user');
await idle();
for (let day = 1; day < 15; day++) await phone.tap(`c-3a/2026-11-${String(day).padStart(2, '0')}/day`, [['s1', `P${28800000 + day}`], ['s2', 'E28800001:sick']]);
await phone.sync('user');
await idle();
await phone.tap('c-3a/2026-11-20/day', [['s1', 'P28800000'], ['s2', 'A28800001']]);
server.faults = ['lose-answer'];
await phone.sync('user');
await idle();
await phone.tap('c-3a/2026-11-22/day', [['s1', 'L28800000:5'], ['s2', 'A28800001']]);
await phone.tap('c-3a/2026-11-22/day', [['s2', null]]);
writeFileSync(process.argv[2], (phone as unknown as { core: Core }).core.store.bytes());
const [serverKey, registers] = [hex(server.key.publicKey), phone.state.registers.size];
console.log(JSON.stringify({ serverKey, registers, pending: phone.state.pending, device: phone.state.identity!.device }));
process.exit(0);
