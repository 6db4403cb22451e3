/**
 * A server for the device's tests: it speaks docs/protocol.md, checks what it gets with its own reading of it, and can be
 * told to lose answers, refuse, restore an older backup, or be a portal. The real server is tested with the real page
 * elsewhere.
 */
import { hex } from '../src/core/bytes';
import { unhex } from '../src/core/bytes-more';
import { parseChange } from '../src/core/change';
import { digest } from '../src/core/exchange';
import { nonceOf, readBundle } from '../src/core/frame';
import { DeviceKey, deviceId, newKey, sign, verify } from '../src/core/keys';
import { shortNumber } from '../src/core/ledger';
import { Value, pack, unpack } from '../src/core/msgpack';
import { zlibInflate } from './support';

interface Known { key: Uint8Array; lastNumber: number; nonce: string; user: string }
export type Fault = 'lose-request' | 'lose-answer' | 'portal' | 'busy' | 'too-large' | 'slow-body' | 'cut' | 'forged' | 'timeout' | null;

const json = (status: number, slug: string, more: object = {}, headers: Record<string, string> = {}): Response =>
  new Response(JSON.stringify({ type: '/problems/' + slug, title: slug, status, retry: 'same', safe: true, held: 0, ...more }), {
    status, headers: { 'Content-Type': 'application/problem+json', ...headers },
  });

export class Server {
  key!: DeviceKey;
  epoch = 1;
  nowMs = 1795000000000;
  readonly devices = new Map<string, Known>();
  /** hash -> [register, chunk, user, device] */
  changes = new Map<string, { register: string; chunk: Uint8Array; user: string; device: string }>();
  readonly frames = new Set<string>();
  settledUpTo = new Map<string, number>();
  /** Faults of the next requests, in order. */
  faults: Fault[] = [];
  requests = 0;
  readonly asks: Value[][] = [];
  items: (device: string) => Value[] = () => [];
  verdict: (hash: string) => Value | null = () => null;
  refuseFrame: (number: number) => boolean = () => false;
  revoked = false;
  /** The keys known here belong to somebody else. */
  foreignKey = false;
  settle = true;
  /** A crowd is there: a push is answered with its receipts, and its news wait for the next ask. */
  sheds = false;
  readonly calls: Value[][] = [];
  readonly errors: string[] = [];
  timingOut = false;
  private random = 1;

  async start(): Promise<this> {
    this.key = await newKey();
    return this;
  }

  private nonce(): Uint8Array {
    return unhex((this.random++).toString(16).padStart(16, '0'));
  }

  readonly fetch = async (url: string, init: RequestInit): Promise<Response> => {
    this.requests++;
    this.nowMs += 1000;
    const fault = this.faults.shift() ?? null;
    if (fault === 'lose-request') throw new TypeError('network');
    if (fault === 'portal') return new Response('<!DOCTYPE html><title>Recharge</title>', { status: 200, headers: { 'Content-Type': 'text/html' } });
    if (fault === 'busy') return json(503, 'busy', { retry: 'after' }, { 'Retry-After': '120' });
    if (fault === 'too-large') return json(413, 'too-large', { retry: 'split' });
    if (fault === 'slow-body') return json(408, 'slow-body');
    if (fault === 'timeout') {
      this.timingOut = true;
      return new Promise(() => undefined);
    }
    const body = init.body as Uint8Array;
    const answer = await (url.endsWith('/v1/sync') ? this.sync(body) : url.endsWith('/v1/enrol') ? this.enrol(body) : this.call(body));
    if (answer instanceof Response) return answer;
    if (fault === 'lose-answer') throw new TypeError('reset');
    const bytes = fault === 'cut' ? answer.slice(0, answer.length - 9) : answer;
    if (fault === 'forged') bytes[bytes.length >> 1] ^= 1;
    return new Response(bytes as BodyInit, { status: 200, headers: { 'Content-Type': 'application/x-hudur' } });
  };

  private async enrol(body: Uint8Array): Promise<Uint8Array | Response> {
    const [word, signed, signature] = unpack(body) as [string, Uint8Array, Uint8Array];
    const [tag, school, code, key] = unpack(signed) as [string, string, string, Uint8Array];
    if (word !== 'enrol1' || tag !== 'hudur1e' || !(await verify(key, signed, signature))) return json(400, 'bad-frame');
    if (code !== 'BCDFGHJKLM') return json(401, 'bad-code', { retry: 'never' });
    const device = deviceId(key);
    const nonce = this.nonce();
    const known = this.devices.get(hex(device));
    if (known && this.foreignKey) return json(401, 'wrong-audience', { retry: 'never' });
    this.devices.set(hex(device), { key, lastNumber: known ? known.lastNumber : 0, nonce: hex(nonce), user: 't-1' });
    const payload = pack([Uint8Array.of(1), false, [
      ['classes', [['c-3a', 'فصل ٣/أ', '3']]],
      ['roster', 'c-3a', 4, [['s1', 'أحمد'], ['s2', 'منى']]],
      ['calendar', 2, [[0, 7200], [1777000000000, 10800], [1793000000000, 7200]], [['2026-10-06', 'armed-forces-day']], ['day']],
    ]]);
    const answer = pack(['hudur1n', digest(body), 'demo', school, 'مدرسة', device, 't-1', 'سعاد', 'champion', this.key.publicKey, this.nowMs, this.epoch,
      nonce, shortNumber(key), digest(payload)]);
    return pack(['ans1', answer, await sign(this.key, answer), payload]);
  }

  private async sync(body: Uint8Array): Promise<Uint8Array | Response> {
    const [word, frames] = unpack(body) as [string, Uint8Array[]];
    if (word !== 'sync1' || !frames.length || frames.length > 32 || body.length > 262144) return json(400, 'bad-frame', { retry: 'never' });
    let from = '';
    const receipts: Value[] = [];
    let fresh = false;
    for (const raw of frames) {
      if (raw.length > 16384) return json(400, 'frame-limits', { retry: 'never' });
      const signed = raw.subarray(0, -64);
      const frame = unpack(signed) as Value[];
      from = hex(frame[3] as Uint8Array);
      const device = this.devices.get(from);
      if (!device) return json(401, 'unknown-device', { retry: 'rekey' });
      if (this.refuseFrame(frame[4] as number)) return json(400, 'bad-frame', { retry: 'never' });
      if (!(await verify(device.key, signed, raw.subarray(-64)))) return json(401, 'bad-signature', { retry: 'never' });
      if (this.revoked) return json(403, 'revoked', { retry: 'never', held: 1 });
      const id = hex(digest(signed));
      fresh = !this.frames.has(id);
      this.frames.add(id);
      device.lastNumber = Math.max(device.lastNumber, frame[4] as number);
      receipts.push((frame[7] as [string, null, Uint8Array][]).map(([register, , chunk]) => this.keep(register, chunk, device.user, from)));
    }
    const device = this.devices.get(from)!;
    const last = unpack(frames[frames.length - 1].subarray(0, -64)) as Value[];
    const ask = last[8] as Value[] | null;
    const asked = nonceOf(frames[frames.length - 1]);
    let payload: Uint8Array | null = null;
    if (ask) this.asks.push(ask);
    if (ask && fresh && asked && hex(asked) === device.nonce) {
      const waits = this.sheds && ask[1] && !ask[2] && receipts.some((entry) => (entry as Value[]).indexOf(0) >= 0);
      payload = waits ? pack([ask[1], false, []]) : this.pull(from, ask);
    }
    const nonce = this.nonce();
    device.nonce = hex(nonce);
    return this.answer(body, device, nonce, receipts, payload);
  }

  private keep(register: string, chunk: Uint8Array, user: string, device: string): Value {
    const change = parseChange(chunk, zlibInflate);
    const special = this.verdict(change.hash);
    if (Array.isArray(special) && special[0] === 3) return special; // refused: not kept; held is kept like any other
    if (this.changes.has(change.hash)) return 1;
    this.changes.set(change.hash, { register, chunk: change.chunk, user, device });
    return special ?? 0;
  }

  private pull(device: string, ask: Value[]): Uint8Array {
    const items = this.items(device).slice();
    const have = ask[2] as Uint8Array | null;
    if (have) {
      const held = new Set(Array.from({ length: have.length / 8 }, (_, i) => hex(have.subarray(i * 8, i * 8 + 8))));
      const want = [...held].filter((short) => ![...this.changes.keys()].some((hash) => hash.startsWith(short)));
      if (want.length) items.push(['want', unhex(want.join(''))]);
    }
    const registers = new Map<string, Value[]>();
    this.changes.forEach(({ register }, hash) => {
      registers.set(register, (registers.get(register) ?? []).concat([[unhex(hash.slice(0, 16)), 1, null]]));
    });
    if (this.settle) registers.forEach((states, register) => items.push(['settled', register, this.revision(register, states), states]));
    this.changes.forEach(({ register, chunk, user, device: by }) => by !== device && items.push(['change', register, user, chunk]));
    items.push(['a word of tomorrow', 1]);
    return pack([Uint8Array.of(this.changes.size), false, items]);
  }

  /** As the real one: it rises with each settlement of a register, and begins anew with a restored log. */
  revision: (register: string, states: Value[]) => number = (_register, states) => states.length;

  private async answer(request: Uint8Array, device: Known, nonce: Uint8Array, receipts: Value[], payload: Uint8Array | null): Promise<Uint8Array> {
    const answer = pack(['hudur1a', digest(request), this.nowMs, this.epoch, nonce, device.lastNumber, receipts, null, payload && digest(payload)]);
    return pack(['ans1', answer, await sign(this.key, answer), payload]);
  }

  private async call(body: Uint8Array): Promise<Uint8Array | Response> {
    const [, signed, signature] = unpack(body) as [string, Uint8Array, Uint8Array];
    const [, , , id, nonce, , command, args] = unpack(signed) as [string, string, string, Uint8Array, Uint8Array, number, string, Value[]];
    const device = this.devices.get(hex(id));
    if (!device || !(await verify(device.key, signed, signature))) return json(401, 'bad-signature', { retry: 'never' });
    const next = this.nonce();
    const stale = hex(nonce) !== device.nonce;
    device.nonce = hex(next);
    if (stale) return json(409, 'stale-nonce', { nonce: hex(next) });
    this.calls.push([command, args]);
    let result: Value = [command];
    const receipts: Value[] = [];
    if (command === 'bundle') {
      const { frames, truncated } = readBundle(args[0] as Uint8Array);
      let durable = 0;
      for (const raw of frames) {
        const frame = unpack(raw.subarray(0, -64)) as Value[];
        const by = hex(frame[3] as Uint8Array);
        const verdicts = (frame[7] as [string, null, Uint8Array][]).map(([register, , chunk]) => this.keep(register, chunk, 'other', by));
        durable += verdicts.filter((verdict) => verdict === 0).length;
        receipts.push(verdicts);
      }
      result = [frames.length, durable, 0, 0, 0, truncated, []];
    }
    return this.answer(body, device, next, receipts, pack(result));
  }
}
