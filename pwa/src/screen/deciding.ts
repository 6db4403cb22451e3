/** What the page of decisions knows of the server's lists (docs/protocol.md section 8, `order`). Pure. */
import type { Problem } from '../api';

/** A code in words and its reason, as the lists give it. `code` of a `~` key is its letter: B, H, N. */
export interface Said {
  readonly code: string;
  readonly reason: string | null;
}

export interface Cell {
  readonly key: string;
  readonly now: Said | null;
  readonly asked: Said;
}

/** One row of `adjustments`. */
export interface Request {
  readonly register: string;
  readonly change: string;
  readonly author: string;
  readonly received_at: string;
  readonly cells: readonly Cell[];
  readonly stage: string;
  readonly decide_until: string;
  readonly days_left: number | null;
  readonly locked_since: string | null;
}

/** One row of `disputes`. */
export interface Dispute {
  readonly register: string;
  readonly pupil: string;
  readonly stands: Said;
  readonly values: readonly (Said & { readonly by: string; readonly change: string; readonly captured_between: readonly [string, string] })[];
}

/** One row of `held`. */
export interface Held {
  readonly register: string;
  readonly change: string;
  readonly cause: string;
  readonly by: string;
  readonly received_ms: number;
  /** Values as stored, by key. */
  readonly marks: Readonly<Record<string, string>>;
  readonly releasable: boolean;
  readonly who: string;
  readonly ar: string;
}

/** `school/class/date/session`. */
export interface Named {
  readonly classId: string;
  readonly date: string;
  readonly session: string;
}

export function named(register: string): Named {
  const [, classId, date, session] = register.split('/');
  return { classId, date, session };
}

const LETTERS: Record<string, string> = {
  present: 'P', late: 'L', left_early: 'X', absent: 'A', absent_excused: 'E', absent_unexcused: 'U', official_duty: 'D', suspended: 'S', not_taken: 'none',
};

/** Letter of a code's word; `none` is "not taken"; what is no word of a code stays what it is. */
export const letterOf = (code: string): string => LETTERS[code] || code;

/** Cells that say the same, in the order in which they first occur. */
export function grouped(cells: readonly Cell[]): (Pick<Cell, 'now' | 'asked'> & { keys: string[] })[] {
  const groups = new Map<string, Pick<Cell, 'now' | 'asked'> & { keys: string[] }>();
  for (const { key, now, asked } of cells) {
    const same = JSON.stringify([key[0] === '~', now && [now.code, now.reason], asked.code, asked.reason]);
    const found = groups.get(same);
    if (found) found.keys.push(key);
    else groups.set(same, { now, asked, keys: [key] });
  }
  return Array.from(groups.values());
}

/** The marks of a held change as cells: nothing stands beside them. */
export const cellsOf = (marks: Held['marks']): Cell[] =>
  Object.keys(marks).map((key) => ({ key, now: null, asked: { code: marks[key][0], reason: marks[key].split(':')[1] || null } }));

/** What can be decided here first, the shortest time before the longer ones; what is closed here last. */
export const inOrder = (requests: readonly Request[]): Request[] =>
  requests
    .map((request, at) => ({ request, at, left: request.days_left === null ? Infinity : request.days_left }))
    .sort((one, other) => (one.left === other.left ? one.at - other.at : one.left - other.left))
    .map(({ request }) => request);

/** The civil date of an instant in the school's zone. `midnightMs` is the device's own table: the zones of old phones are wrong. */
export function dateAt(ms: number, midnightMs: (date: string) => number): string {
  // The clock is read twice on the way here; an instant is often exactly a midnight.
  const slack = 1000;
  const guess = (days: number): string => new Date(ms + days * 864e5).toISOString().slice(0, 10);
  const found = [1, 0].map(guess).filter((date) => midnightMs(date) <= ms + slack)[0];
  return found || guess(-1);
}

/** Two moments closer than this are one for people. */
const MOMENT_MS = 120_000;

/** When a mark was made: an instant, or two where the phone's clock leaves doubt. */
export function takenAt([from, until]: readonly [string, string]): readonly number[] {
  const ends = [Date.parse(from), Date.parse(until)];
  return ends[1] - ends[0] < MOMENT_MS ? ends.slice(1) : ends;
}

export type Ruled = NonNullable<Problem['rule']>;

/** The refusal of a rule, as the server says it; null when something else went wrong. */
export const ruleOf = (error: unknown): Ruled | null => (error as Problem).rule || null;

/** What went wrong; silence for 90 s is no answer, as a portal's page is. */
export function slugOf(error: unknown): string {
  const { slug } = error as Problem;
  return slug === 'timeout' ? 'no-answer' : slug || 'unknown';
}

/** A civil date of `closed_on`; null when it is a moment. */
export const civil = (closedOn: string): string | null => (/^\d{4}-\d\d-\d\d$/.test(closedOn) ? closedOn : null);
