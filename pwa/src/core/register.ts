/** The grammar of ids, keys and marks (docs/protocol.md section 1), and civil days over the calendar's table of offsets. */

const ID = '[A-Za-z0-9][A-Za-z0-9._-]{0,35}';
const MS = '(?!-0)-?(0|[1-9][0-9]{0,12})';
const KEY = RegExp('^' + ID + '$');
const REGISTER = RegExp('^' + ID + '/\\d{4}-\\d\\d-\\d\\d/(day|[ap]m[1-8])$');
const MARK = RegExp('^[PLXAEUDS]' + MS + '(:[a-z0-9_]{1,24})?$');
const BULK = RegExp('^B' + MS + '$');
const SESSION = RegExp('^(H' + MS + '|N' + MS + ':[a-z0-9_]{1,24})$');

const VALUE_CHARS_MAX = 48;

/** Whether `value` obeys the grammar that belongs to `key`, and `key` may stand in a register document. */
export const isMark = (key: string, value: string): boolean =>
  isKey(key) &&
  value.length <= VALUE_CHARS_MAX &&
  (key === '~bulk' ? BULK : key === '~session' ? SESSION : MARK).test(value);

export const isKey = (key: string): boolean => key === '~bulk' || key === '~session' || KEY.test(key);

export function isRegister(register: string): boolean {
  const date = register.split('/')[1];
  return REGISTER.test(register) && isoDate(Date.parse(date + 'T00:00:00Z')) === date;
}

/** `YYYY-MM-DD` of an instant whose UTC fields are read as local ones; empty for no instant. */
export const isoDate = (ms: number): string => (isNaN(ms) ? '' : new Date(ms).toISOString().slice(0, 10));

/** UTC offsets of the school's zone: `[from (UTC ms), offset (s)]`, ascending. */
export type Offsets = readonly (readonly [utcFromMs: number, offsetS: number])[];

/** Offset in ms in force at `utcMs`; the first entry also serves what lies before it. */
export function offsetAt(offsets: Offsets, utcMs: number): number {
  let found = offsets[0][1];
  for (const [from, seconds] of offsets) if (from <= utcMs) found = seconds;
  return found * 1000;
}

/**
 * The instant (UTC ms) at which the civil `date` begins in the school's zone.
 *
 * Where summer time skips midnight the day begins at the switch; where midnight comes twice, at the later one.
 */
export function midnight(offsets: Offsets, date: string): number {
  const local = Date.parse(date + 'T00:00:00Z');
  for (let i = offsets.length; --i > 0; ) {
    const start = local - offsets[i][1] * 1000;
    if (start >= offsets[i][0]) return start;
  }
  return local - offsets[0][1] * 1000;
}
