/** Enrolment, and what a champion asks (docs/protocol.md sections 7 and 8). */
import { Refusal, hex } from './bytes';
import { unhex } from './bytes-more';
import { verified } from './converse';
import { identityOf } from './device';
import type { Core, Names } from './device';
import { Effects, Enrolled, callPart, effectsOf, enrolPart, envelope, openAnswer, readAnswer, readEnrolled } from './exchange';
import { DeviceKey, deviceId, newKey, sign, verify } from './keys';
import { shortNumber } from './ledger';
import { Value, unpack } from './msgpack';
import { frameAll, keyOf, ledgerOf } from './outbox';
import type { Write } from './store';
import { Reply, post } from './uploader';
import type { Identity } from '../api';

function problemOf(slug: string, retry = 'same', safe = true): Error {
  return Object.assign(new Error(slug), { slug, retry, safe });
}

const thrown = ({ problem, nothing }: Reply): Error =>
  problem ? Object.assign(problemOf(problem.slug, problem.retry, problem.safe), { rule: problem.rule }) : problemOf(nothing || 'no-answer');

/**
 * Become a device of `school`. What an earlier enrolment still has to say is sealed and framed first.
 *
 * The key is kept as long as the server takes it, so that a server restored from before the enrolment knows the same device,
 * and its changes keep their actor. A stopped device, and a key that belongs to somebody else, need a new one.
 */
export async function enrol(core: Core, school: string, code: string, label: string): Promise<Identity> {
  const { fold, store } = core;
  const earlier = store.cache.get('key') as DeviceKey | undefined;
  if (fold.enrolment && earlier) await frameAll(core);
  if (!earlier || fold.notices.has('revoked')) return enrolWith(core, await newKey(), school, code, label);
  try {
    return await enrolWith(core, earlier, school, code, label);
  } catch (cause) {
    if ((cause as { slug?: string }).slug !== 'wrong-audience') throw cause;
    return enrolWith(core, await newKey(), school, code, label);
  }
}

async function enrolWith(core: Core, key: DeviceKey, school: string, code: string, label: string): Promise<Identity> {
  const letters = code.toUpperCase().replace(/[^A-Z]/g, '');
  const part = enrolPart(school, letters, key.publicKey, label.slice(0, 40), core.release);
  const body = envelope('enrol1', part, await sign(key, part));
  const reply = await post(core.ports, '/v1/enrol', body);
  if (!reply.body) throw thrown(reply);
  try {
    const signed = openAnswer(reply.body);
    const enrolled = readEnrolled(signed, body);
    if (!(await verify(enrolled.serverKey, signed.signed, signed.signature))) throw new Refusal('no-answer', 'signature');
    if (hex(enrolled.device) !== hex(deviceId(key.publicKey))) throw new Refusal('no-answer', 'device');
    const effects = effectsOf(signed.payload!, core.fold, ledgerOf(core), core.ports.wallMs());
    const names: Names = { schoolName: enrolled.schoolName, userName: enrolled.userName, shortNumber: shortNumber(key.publicKey) };
    await core.write(() => taken(core, key, enrolled, effects, names));
    return identityOf(core.fold.enrolment!, names);
  } catch (cause) {
    if (cause instanceof Refusal) throw problemOf(cause.slug);
    throw cause;
  }
}

/** What an enrolment leaves in the log and the cache. */
function taken(core: Core, key: DeviceKey, enrolled: Enrolled, effects: Effects, names: Names): Write {
  const { env, school, device, userId, role, serverKey, epoch, nonce, serverMs } = enrolled;
  const before = core.fold.enrolment;
  // The same device again: the server had forgotten it, and what it once held may be gone as well.
  const mode = before && hex(before.device) === hex(device) ? 'rebuild' : null;
  const begun = core.begin();
  core.beacon = [serverMs, 0];
  core.told = true; // the enrolment told it
  return {
    rows: [core.row('enrol', null, [env, school, device, userId, role, serverKey, epoch]), begun, ...effects.rows],
    cache: { ...effects.cache, key, names, nonce: nonce.slice(), cursor: effects.cursor.slice(), mode, want: [] },
  };
}

/** A champion's call; resolves to the result, unpacked. */
export const call = async (core: Core, command: string, args: readonly Value[]): Promise<Value> => (await ring(core, '/v1/call', command, args)).result;

/** One signed call; a stale nonce is answered with a fresh one and signed again. */
export async function ring(core: Core, path: string, command: string, args: readonly Value[]): Promise<{ result: Value; receipts: readonly Value[] }> {
  const { fold, store, ports } = core;
  if (!fold.enrolment) throw problemOf('unknown-device', 'rekey');
  const { env, school, device } = fold.enrolment;
  let nonce = (store.cache.get('nonce') as Uint8Array | undefined) || new Uint8Array(8);
  for (let tries = 0; ; tries++) {
    const part = callPart(env, school, device, nonce, ports.wallMs(), command, args);
    const body = envelope('call1', part, await sign(keyOf(core), part));
    const reply = await post(ports, path, body);
    const { problem } = reply;
    if (problem && problem.slug === 'stale-nonce' && problem.nonce && /^[0-9a-f]{16}$/.test(problem.nonce) && tries < 2) {
      nonce = unhex(problem.nonce);
      continue;
    }
    if (!reply.body) throw thrown(reply);
    try {
      const signed = await verified(fold, reply.body);
      const answer = readAnswer(signed, body);
      await core.write(() => ({ rows: [], cache: { nonce: answer.nonce.slice() } }));
      return { result: signed.payload ? unpack(signed.payload) : null, receipts: answer.receipts };
    } catch (cause) {
      if (cause instanceof Refusal) throw problemOf(cause.slug);
      throw cause;
    }
  }
}
