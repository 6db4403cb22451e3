/** What the screen knows of marks: read a value, write a value, the order of taps, the counts. Pure. */
import type { ClassInfo, State } from '../api';

export const BULK = '~bulk';
/** A tap goes round these; a pupil not marked yet begins at the first. */
const ROUND = 'ALP';
/** Official duty, late and left early were at school; a suspended pupil was not. */
const HERE = 'PLXD';

export const codeOf = (value: string): string => value[0];
export const reasonOf = (value: string): string | undefined => value.split(':')[1];
export const valueOf = (code: string, ms: number, reason?: string): string => code + ms + (reason ? ':' + reason : '');
export const nextCode = (code: string | undefined): string => (code ? ROUND[(ROUND.indexOf(code) + 1) % 3] : ROUND[0]);

/** The values people should see: one, or several where authors put different codes. Equal codes are no difference. */
export function visible(values: readonly string[] | undefined): readonly string[] {
  const last = values && values.length ? values[values.length - 1] : undefined;
  if (!last) return [];
  return values!.some((value) => codeOf(value) !== codeOf(last)) ? values! : [last];
}

export interface Counts {
  present: number;
  absent: number;
  left: number;
  of: number;
}

export function countMarks(pupils: ClassInfo['pupils'], winner: (pupil: string) => string | undefined): Counts {
  const counts = { present: 0, absent: 0, left: 0, of: pupils.length };
  for (const [id] of pupils) {
    const value = winner(id);
    if (!value) counts.left++;
    else if (HERE.indexOf(codeOf(value)) < 0) counts.absent++;
    else counts.present++;
  }
  return counts;
}

/** The step to show for a register: "not taken" wherever the log holds nothing, and never "saved" where nothing is kept. */
export function stepOf({ registers, storage }: Pick<State, 'registers' | 'storage'>, register: string): string {
  const found = registers.get(register);
  const step = (found && found.step) || 'none';
  return step === 'saved' && storage === 'memory' ? 'unkept' : step;
}
