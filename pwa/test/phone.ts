/** Phones for the tests of the whole device: their clock and timers are turned by hand, their server is `Server`. */
import { IDBFactory, IDBKeyRange } from 'fake-indexeddb';
import assert from 'node:assert/strict';
import type { Device } from '../src/api';
import { Core, openDevice } from '../src/core/device';
import type { Ports } from '../src/core/ports';
import { Server } from './server';
import { seeded } from './support';

Object.assign(globalThis, { IDBKeyRange });
export const DAY = '2026-11-22';
export const REGISTER = 'c-3a/' + DAY + '/day';

/** A phone whose clock and timers the test turns by hand. */
export class World {
  wall = Date.parse('2026-11-22T06:00:00Z');
  mono = 5000;
  up = true;
  looking = true;
  timers: { at: number; then: () => void }[] = [];
  random = seeded(9);

  constructor(
    readonly server: Server,
    public factory: IDBFactory | null = new IDBFactory(),
    seed = 9,
  ) {
    this.random = seeded(seed);
  }

  readonly ports: Ports = {
    wallMs: () => this.wall,
    monoMs: () => this.mono,
    random: (bytes) => this.random.bytes(bytes),
    uniform: () => 0.5,
    later: (ms, then) => {
      const timer = { at: this.mono + ms, then };
      this.timers.push(timer);
      return () => (this.timers = this.timers.filter((other) => other !== timer));
    },
    fetch: (url, init) => this.server.fetch(url, init),
    indexedDb: null,
    origin: 'http://test',
    online: () => this.up,
    visible: () => this.looking,
    modulesAtHand: () => true,
    link: () => '2g',
    exclusively: (work) => work().then(() => true),
  };

  open(): Promise<Device> {
    return openDevice({ ...this.ports, indexedDb: this.factory }, 'test-1');
  }

  /** Let time pass; timers due run in order. */
  pass(ms: number): void {
    this.mono += ms;
    this.wall += ms;
    const due = this.timers.filter((timer) => timer.at <= this.mono);
    this.timers = this.timers.filter((timer) => timer.at > this.mono);
    due.forEach(({ then }) => then());
  }
}

export const coreOf = (device: Device): Core => (device as unknown as { core: Core }).core;
/** Wait until the conversation under way has ended (signatures run on other threads, so turns of the loop are counted generously). */
export const settled = async (device: Device): Promise<void> => {
  await coreOf(device).store.write(() => null);
  for (let i = 0; i < 20; i++) await new Promise((done) => setImmediate(done)); // sealing comes before the attempt
  for (let i = 0; i < 100000 && device.state.syncing; i++) await new Promise((done) => setImmediate(done));
  assert.equal(device.state.syncing, false);
};
export const stepOf = (device: Device): unknown => device.state.registers.get(REGISTER)?.step;
export const valueOf = (device: Device, key: string): readonly string[] => device.state.registers.get(REGISTER)?.values.get(key) ?? [];

export async function enrolled(server?: Server): Promise<{ world: World; server: Server; device: Device }> {
  const theServer = server ?? (await new Server().start());
  const world = new World(theServer);
  const device = await world.open();
  const identity = await device.enrol('eg-07-113', 'bcd-fghj-klm', 'هاتف سعاد');
  assert.equal(identity.userName, 'سعاد');
  await settled(device);
  return { world, server: theServer, device };
}

/** Two phones of one class at one server. */
export async function twoPhones(): Promise<{ server: Server; one: { device: Device; world: World }; other: Device }> {
  const server = await new Server().start();
  const one = await enrolled(server);
  const two = new World(server, new IDBFactory(), 77);
  const other = await two.open();
  await other.enrol('eg-07-113', 'BCDFGHJKLM', 'second');
  await settled(other);
  return { server, one, other };
}
