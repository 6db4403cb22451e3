/** One HTTP request with a deadline, told apart into answer, problem and no answer (docs/protocol.md sections 4, 5, 9). */
import type { Rule } from '../api';
import type { Ports } from './ports';

export const MEDIA_TYPE = 'application/x-hudur';
const DEADLINE_MS = 90000; // 2G: silence, not reset, is the usual death; 8 kB took up to 60 s on measured networks
const ANSWER_BYTES_MAX = 1 << 20;
const WORDS_MAX = 400; // of a refusal: a sentence or two; whoever forges one shall not fill the screen
const RETRY_AFTER_MAX_S = 3600; // a problem is unsigned: a portal's must not silence the phone for long

export interface Problem {
  readonly slug: string;
  readonly status: number;
  readonly retry: string;
  readonly safe: boolean;
  readonly retryAfterMs: number;
  /** Hex, of `stale-nonce`. */
  readonly nonce: string | null;
  readonly rule: Rule | null;
}

export interface Reply {
  /** Bytes that may be an answer; exactly one of these three is set. */
  readonly body: Uint8Array | null;
  readonly problem: Problem | null;
  /** `offline`, `timeout` or `no-answer` (a portal, a broken proxy). */
  readonly nothing: string | null;
  readonly startedMonoMs: number;
  readonly durationMs: number;
  readonly firstByteMs: number;
  readonly bytesDown: number;
}

interface Got {
  body?: Uint8Array;
  problem?: Problem;
  nothing?: string;
}

/** Post `body`. Never rejects: whatever the network does is a reply. */
export async function post(ports: Ports, path: string, body: Uint8Array): Promise<Reply> {
  const started = ports.monoMs();
  let firstByteMs = 0;
  let bytesDown = 0;
  // Chrome 64 and 65 lack AbortController: there the deadline only stops the waiting.
  const abort = typeof AbortController === 'function' ? new AbortController() : null;
  let cancel = (): void => undefined;
  const deadline = new Promise<Got>((done) => {
    cancel = ports.later(DEADLINE_MS, () => {
      if (abort) abort.abort();
      done({ nothing: 'timeout' });
    });
  });
  const exchange = async (): Promise<Got> => {
    const init: RequestInit = {
      method: 'POST',
      headers: { 'Content-Type': MEDIA_TYPE },
      body: body as BodyInit,
      cache: 'no-store',
      credentials: 'omit',
      redirect: 'error', // a portal that redirects is no answer
    };
    if (abort) init.signal = abort.signal;
    const response = await ports.fetch(ports.origin + path, init);
    firstByteMs = ports.monoMs() - started;
    const bytes = new Uint8Array(await response.arrayBuffer());
    bytesDown = bytes.length;
    const type = (response.headers.get('Content-Type') || '').split(';')[0].trim();
    if (response.status === 200 && type === MEDIA_TYPE && bytes.length <= ANSWER_BYTES_MAX) return { body: bytes };
    if (type !== 'application/problem+json') return { nothing: 'no-answer' };
    return { problem: readProblem(bytes, response) };
  };
  // A rejected fetch says only that there was no answer: no route, a reset, a refused redirect, a truncated body.
  const got = await Promise.race([exchange().catch((): Got => ({ nothing: ports.online() ? 'no-answer' : 'offline' })), deadline]);
  cancel();
  return {
    body: got.body || null,
    problem: got.problem || null,
    nothing: got.nothing || null,
    startedMonoMs: started,
    durationMs: ports.monoMs() - started,
    firstByteMs,
    bytesDown,
  };
}

/** A problem is unsigned: it may change when and how we try again, and what we show; nothing else. */
function readProblem(bytes: Uint8Array, response: Response): Problem {
  const value = JSON.parse(new TextDecoder().decode(bytes)) as Record<string, unknown>;
  const seconds = Number(response.headers.get('Retry-After'));
  const words = (key: string): string => (typeof value[key] === 'string' ? (value[key] as string).slice(0, WORDS_MAX) : '');
  return {
    slug: String(value.type).replace(/^.*\//, '').slice(0, 40),
    status: response.status,
    retry: String(value.retry),
    safe: value.safe !== false,
    retryAfterMs: seconds > 0 ? Math.min(seconds, RETRY_AFTER_MAX_S) * 1000 : 0,
    nonce: typeof value.nonce === 'string' ? value.nonce : null,
    rule: words('rule') ? { name: words('rule'), en: words('detail'), ar: words('ar'), who: words('who'), closedOn: words('closed_on') } : null,
  };
}
