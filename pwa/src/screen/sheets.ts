/// <reference path="../css.d.ts" />
/** The common second stage, loaded after the first page. What opens over a page or tells something rare: the status sheet, the long choice, the last question, notes. */
import type { ClassInfo } from '../api';
import { dateText, num, setting, t } from '../i18n';
import { addDays, latin } from '../i18n/more';
import { bdi, button, chip, counted, fmt, h, note, refresh, shape, type Child } from './dom';
import { canShare, saveLog, shareBundle } from './export';
import { instantText, more, problemText, whyText } from './more';
import rules from '../later.css';
import { DAYS, seenKey, sessionText } from './home';
import { stepOf } from './marks';
import { sheet } from './sheet';
import { statusOf } from './status';
import type { App } from './view';

/** Status: what, why, one action. It follows what happens while it is open. */
export function openStatus(app: App): void {
  const title = h('span');
  const box = h('div');
  let close = (): void => undefined;
  const update = (): void => {
    const state = app.state();
    const { kind, level } = statusOf(state);
    const words = more();
    const text: Record<typeof kind, readonly [what: string, why: Child]> = {
      memory: [words.memory, words.memoryWhy],
      revoked: [words.revoked, words.revokedWhy],
      help: words.problems[state.trouble!] || [words.help, fmt(words.helpWhy, state.trouble || '')],
      sending: [t.sending, counted(t.waiting, state.pending)],
      offline: [words.offline, words.offlineWhy],
      portal: [words.portal, words.portalWhy],
      busy: [words.busy, words.busyWhy],
      ready: [words.ready, words.readyWhy],
      fine: [words.fine, words.fineWhy],
    };
    const key = [kind, state.trouble, state.pending, state.lastCompleteSyncAtMs, state.lastTryAtMs].join();
    refresh(title, kind + state.trouble, () => text[kind][0]);
    refresh(box, key, () => [
      h('p', null, text[kind][1]),
      level !== 'act' && h('p', null, words.safe),
      h('p', { class: 'facts' }, counted(t.waiting, state.pending), h('br'), fmt(words.lastSend, instantText(state.lastCompleteSyncAtMs)), h('br'), fmt(words.lastTry, instantText(state.lastTryAtMs))),
      level === 'act' ? button(words.saveFile, () => { close(); void saveLog(app); }, 'main')
        : kind !== 'sending' && button(words.sendNow, () => { close(); void app.finish('hand'); }, 'main'),
    ]);
  };
  update();
  const dialog = sheet(title, (shut) => { close = shut; return box; });
  dialog.addEventListener('close', app.device.subscribe(update));
}

// Rules the first page does without. Put in through the style sheet's own door, which the policy allows.
const [page] = Array.from(document.styleSheets) as CSSStyleSheet[];
for (const rule of rules.split('}')) if (rule.trim()) page.insertRule(rule + '}', page.cssRules.length);

// The other lazy pages take these from here, so that they are carried once.
export { canShare, instantText, more, problemText, saveLog, shareBundle, sheet };
export type Sheets = typeof import('./sheets');

interface Choice {
  mark(code: string, reason?: string): void;
  /** null where the mark is already sealed: it can only be replaced. */
  takeBack: (() => void) | null;
}

const MINUTES = [5, 10, 15, 30];
const MOST_MINUTES = 600;

/** The long choice for one pupil: every mark with its detail, and taking an unsealed mark back. */
export function choose(name: string, differing: readonly Child[] | null, choice: Choice): void {
  const words = more();
  sheet(bdi(name), (close) => {
    const act = (run: () => void) => (): void => { close(); run(); };
    const plain = (code: string): HTMLElement => button(chip(code, t[code as 'P']), act(() => choice.mark(code)), 'pick');
    const minutes = h('input', { id: 'late', inputmode: 'numeric', autocomplete: 'off', maxlength: 3, placeholder: num(20) });
    const late = (): void => {
      const count = +latin(minutes.value.trim());
      // Nothing typed is "late", without minutes.
      if (count >= 0 && count <= MOST_MINUTES && count % 1 === 0) act(() => choice.mark('L', count ? String(count) : undefined))();
      else minutes.focus();
    };
    return [
      differing && h('p', null, h('b', null, t.differ), ': ', differing.map((value, i) => [i ? ' / ' : '', value]), h('br'), words.differWhy),
      h('div', { class: 'picks' }, ['P', 'A', 'X', 'D'].map(plain)),
      h('fieldset', null, h('legend', null, chip('L', t.L)),
        h('div', { class: 'picks four' }, MINUTES.map((count) => h('button', { type: 'button', class: 'btn', onclick: act(() => choice.mark('L', String(count))) }, counted(t.minutes, count)))),
        h('p', { class: 'row' }, h('label', { for: 'late', class: 'grow' }, words.lateBy), minutes, button(words.choose, late))),
      h('fieldset', null, h('legend', null, chip('E', t.E)),
        h('div', { class: 'picks' }, Object.keys(t.reasons).map((reason) => button(t.reasons[reason], act(() => choice.mark('E', reason)))))),
      choice.takeBack && button(words.takeBack, act(choice.takeBack)),
    ];
  });
}

/** "Done" with names left: nobody is made present or absent by silence, so the teacher says which. */
export function askAboutRest(left: number, of: number, restPresent: () => void, asIs: () => void): void {
  const words = more();
  sheet(fmt(words.someLeft, left, of), (close) => [
    h('p', null, words.someLeftWhy),
    button(t.restPresent, () => { close(); restPresent(); }, 'main'),
    button(words.asIs, () => { close(); asIs(); }),
  ]);
}

/** The last 14 days of a class, today last: a shape a day, and the words for the shapes that occur. */
export function showDays(app: App, info: ClassInfo, box: HTMLElement): void {
  const today = app.device.today();
  const cells: (() => Child)[] = [];
  const all: string[] = [];
  for (let back = DAYS - 1; back >= 0; back--) {
    const date = addDays(today, -back);
    const register = info.id + '/' + date + '/' + app.session();
    const state = app.state();
    let step = stepOf(state, register);
    if (step === 'none' && state.closedDates.has(date)) step = 'closed';
    all.push(step);
    cells.push(() =>
      h('button', { type: 'button', id: 'd-' + register, class: 'k-' + step, onclick: () => app.go('r/' + register) },
        h('span', { class: 'hide' }, dateText(date) + ': ' + t[step as 'none']),
        h('span', { 'aria-hidden': 'true' }, h('small', null, dateText(date, { weekday: 'short' })), h('b', null, dateText(date, { day: 'numeric' })), shape(step))),
    );
  }
  refresh(box, [today, app.session(), all].join(), () => [
    h('div', { class: 'strip' }, cells.map((cell) => cell())),
    h('p', { class: 'days' }, all.filter((step, i) => all.indexOf(step) === i).map((step) => chip(step, t[step as 'none']))),
  ]);
}

/** Why a register needs review, or waits, in words: what happened, that the work is safe, what to do. */
export const reviewNote = (slugs: readonly string[], review: boolean): HTMLElement => {
  return note(review ? t.review : more().about, slugs.map((slug) => h('span', { class: 'block' }, whyText(slug))));
};

export const unsavedNote = (app: App): HTMLElement => note(t.saveFailed, more().saveFailedWhy, button(more().saveFile, () => saveLog(app)), true);

/** The notes of the home page, by the names `home.ts` gives them. */
export function noteOf(app: App, name: string): Child {
  const words = more();
  const file = (): HTMLElement => button(words.saveFile, () => saveLog(app));
  const understood = (): HTMLElement => button(words.understood, () => {
    setting('seen', (setting('seen') || '') + seenKey(app, name));
    app.changed();
  });
  const { directive } = app.state();
  switch (name) {
    case 'memory': return note(words.memory, words.memoryWhy, file(), true);
    case 'revoked': return note(words.revoked, words.revokedWhy, file(), true);
    case 'wiped-phone': return note(words.wiped, words.wipedWhy, understood(), true);
    case 'restored-copy': return note(words.restored, words.restoredWhy, understood());
    case 'directive': return directive && note(words.directive, [words.directiveWhy[directive.level], ' ', h('q', null, bdi(directive.reason)), h('br'), words.directiveSafe]);
    case 'closed': return app.state().closedDates.get(app.device.today()) === 'weekend' ? note(words.weekend, words.weekendDay) : note(t.closed, words.closedDay);
    case 'update': return note(words.update, '', h('p', { class: 'row' },
      app.update && button(words.updateNow, app.update.now, 'main'), app.update && button(words.later, app.update.later)));
    case 'session': return h('p', { class: 'field' }, h('label', { for: 'session' }, words.session),
      h('select', { id: 'session', onchange: (event) => { setting('session', (event.target as HTMLSelectElement).value); app.changed(); } },
        app.state().sessions.map((session) => h('option', { value: session, selected: session === app.session() }, sessionText(session)))));
    default: return null;
  }
}
