/** Words, numbers and dates as people of the chosen language read them. */
import { ar } from './ar';

export type Words = typeof ar;
export type Forms = readonly string[];

/** The words in use. One object, refilled when the language changes, so that everybody may keep it. */
export const t: Words = { ...ar };

export type Language = 'ar' | 'en';
export const DIGITS = 'digits';
export const LANGUAGE = 'language';
const FORMS = ['zero', 'one', 'two', 'few', 'many', 'other'];

/** localStorage throws where storage is switched off; a setting is then forgotten with the page. */
const settings: Record<string, string> = {};
export function setting(key: string, value?: string): string | undefined {
  if (value !== undefined) settings[key] = value;
  try {
    if (value !== undefined) localStorage.setItem(key, value);
    return localStorage.getItem(key) || settings[key];
  } catch (error) {
    return settings[key];
  }
}

export const language = (): Language => (setting(LANGUAGE) === 'en' ? 'en' : 'ar');
export const latinDigits = (): boolean => setting(DIGITS) === 'latn';

/** Load the words of the remembered language. Arabic is always there; English is fetched once and cached. */
export async function loadWords(): Promise<void> {
  Object.assign(t, language() === 'en' ? (await import('./en')).en : ar);
  const root = document.documentElement;
  root.lang = t.locale;
  root.dir = t.dir;
  document.title = t.app;
}

/** `ar` alone prints Latin digits in new browsers, so the region is always named, and the digits where chosen. */
export const locale = (): string => t.locale + (latinDigits() && t.lang === 'ar' ? '-u-nu-latn' : '');

export const num = (value: number): string => new Intl.NumberFormat(locale()).format(value);

/** The right one of six plural forms; the number itself is put in by the caller's `{0}`. */
export const plural = (forms: Forms, value: number): string =>
  forms[value ? FORMS.indexOf(new Intl.PluralRules(t.locale).select(value)) : 0] || forms[5];

/** A civil date, spelled out. It is a date, not an instant: UTC keeps the phone's zone out of it. */
export const dateText = (date: string, options: Intl.DateTimeFormatOptions = { weekday: 'long', day: 'numeric', month: 'long' }): string =>
  new Intl.DateTimeFormat(locale(), { ...options, timeZone: 'UTC' }).format(new Date(date + 'T00:00:00Z'));
