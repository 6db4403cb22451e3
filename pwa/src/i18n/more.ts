/** What the lazy pages do with words, numbers and dates. */
import { DIGITS, LANGUAGE, language, loadWords, setting } from './index';

export const useLatinDigits = (yes: boolean): void => void setting(DIGITS, yes ? 'latn' : 'arab');

export const changeLanguage = (): Promise<void> => {
  setting(LANGUAGE, language() === 'en' ? 'ar' : 'en');
  return loadWords();
};

export const addDays = (date: string, days: number): string =>
  new Date(Date.parse(date + 'T00:00:00Z') + days * 864e5).toISOString().slice(0, 10);

/** What was typed, with Arabic-Indic and Persian digits as Latin ones. */
export const latin = (text: string): string =>
  text.replace(/[\u0660-\u0669\u06f0-\u06f9]/g, (digit) => String(digit.charCodeAt(0) & 15));
