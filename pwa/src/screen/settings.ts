/** Settings and export: language, digits, who uses this phone, its short number, the file. */
import { latinDigits, t } from '../i18n';
import { changeLanguage, useLatinDigits } from '../i18n/more';
import { bdi, button, h, type Child } from './dom';
import type { Sheets } from './sheets';
import type { App, View } from './view';

const row = (name: Child, value: Child): HTMLElement => h('p', { class: 'row' }, h('span', { class: 'grow dim' }, name), h('b', null, value));

export function settingsView(app: App, sheets: Sheets): View {
  const words = sheets.more();
  const { identity } = app.state();
  const kept = h('span', null, words.no);
  if (navigator.storage && navigator.storage.persisted)
    void navigator.storage.persisted().then((yes) => { kept.textContent = yes ? words.yes : words.no; }, (error) => console.error(error));
  const body = h('div', null,
    identity && h('section', { class: 'note' },
      h('h2', null, bdi(identity.userName)), h('p', null, bdi(identity.schoolName)),
      row(words.user, words.role[identity.role]), row(words.schoolCode, bdi(identity.school)),
      row(words.shortNumber, bdi(identity.shortNumber)), row(words.version, bdi(__APP__)), row(words.asleep, kept)),
    h('section', { class: 'note' },
      button(words.otherLanguage, () => changeLanguage().then(() => app.reopen(), (error) => { console.error(error); sheets.openStatus(app); })),
      t.lang === 'ar' && button(latinDigits() ? words.digits : words.digitsOther, () => { useLatinDigits(!latinDigits()); app.reopen(); })),
    h('section', { class: 'note' }, h('h2', null, words.file), h('p', null, words.fileWhy),
      button(words.saveFile, () => sheets.saveLog(app), 'main'), sheets.canShare() && button(words.share, () => sheets.shareBundle(app)),
      h('p', { class: 'dim' }, words.clearWhy)));
  return { title: words.settings, body, update() {} };
}

declare const __APP__: string;
