/** Words that the first page does not need, in both languages. */
import { locale, t } from '../i18n';
import { arMore, type MoreWords } from '../i18n/ar-more';
import { enMore } from '../i18n/en-more';
import { PASSING } from './status';

export const more = (): MoreWords => (t.lang === 'en' ? enMore : arMore);

/** What happened, and what to do. Never a server's own text; an unknown slug is shown so that it can be read out. */
export function problemText(slug: string): readonly [what: string, todo: string] {
  const words = more();
  const passing = PASSING[slug];
  if (passing) return [words[passing], words[(passing + 'Why') as 'busyWhy']];
  return words.problems[slug] || [words.unknown.replace('{0}', slug), words.unknownWhy];
}

/** Verdicts that say no (docs/protocol.md section 9): that work is on this phone only. */
const REFUSED = /^(chunk-.*|too-many-ops|profile|bad-mark|not-canonical|erases-mark|actor|register-mismatch)$/;

/** Why a register is not simply confirmed: what happened, that the work is safe, what to do. */
export function whyText(slug: string): string {
  const { why } = more();
  return why[slug] || why[REFUSED.test(slug) ? 'refused' : 'other'].replace('{0}', slug);
}

/** An instant as the phone's own clock shows it: today's by the hour, older ones with their day. */
export function instantText(ms: number | null): string {
  if (!ms) return more().never;
  const at = new Date(ms);
  const hour = new Intl.DateTimeFormat(locale(), { hour: 'numeric', minute: '2-digit' }).format(at);
  return at.toDateString() === new Date().toDateString()
    ? more().todayAt.replace('{0}', hour)
    : new Intl.DateTimeFormat(locale(), { day: 'numeric', month: 'long' }).format(at) + ' ' + hour;
}
