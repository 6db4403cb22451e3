/** The classes of today, each with its step, and the last 14 days. */
import type { ClassInfo } from '../api';
import { dateText, num, t } from '../i18n';
import { bdi, button, chip, counted, fmt, h, note, refill, type Child } from './dom';
import { stepOf } from './marks';
import type { App, View } from './view';

export const DAYS = 14;
const opened: Record<string, boolean> = {};

export function sessionText(session: string): Child {
  const period = /^(am|pm)(\d)$/.exec(session);
  return period ? fmt(t[period[1] as 'am' | 'pm'], +period[2]) : t.day;
}

/** Never in school hours, never with work that is not sent. */
function mayUpdate(app: App): boolean {
  const hour = app.device.msSinceMidnight(app.device.today()) / 36e5;
  return !app.unsaved && !app.state().pending && (hour < 7 || hour >= 15);
}

/** Names of the notes due now; their words and buttons are in `sheets.ts`. */
function dueNotes(app: App): string[] {
  const state = app.state();
  return [
    state.storage === 'memory' && state.storage,
    ...state.notices,
    state.directive && 'directive',
    app.update && mayUpdate(app) && 'update',
    state.closedDates.has(app.device.today()) && 'closed',
    state.sessions.length > 1 && 'session',
  ].filter(Boolean) as string[];
}

export function homeView(app: App): View {
  const body = h('div');
  const { device } = app;

  /** Rebuilt in place, so that a change of state does not make the days jump. */
  const boxes: Record<string, HTMLElement> = {};
  const days14 = (info: ClassInfo): HTMLElement => {
    const box = boxes[info.id] || (boxes[info.id] = h('div'));
    app.lazily(import('./sheets'), (sheets) => refill(box, sheets.strip(app, info)));
    return box;
  };

  const card = (info: ClassInfo): HTMLElement => {
    const register = info.id + '/' + device.today() + '/' + app.session();
    const step = stepOf(app.state().registers.get(register));
    const days = h('details', { open: opened[info.id] },
      h('summary', { id: 's-' + info.id }, fmt(t.lastDays, DAYS)),
      opened[info.id] && days14(info));
    days.addEventListener('toggle', () => {
      if (days.open === !!opened[info.id]) return;
      opened[info.id] = days.open;
      update();
    });
    return h('li', { class: 'card' },
      h('button', { type: 'button', id: 'c-' + info.id, class: 'open', onclick: () => app.go('r/' + register) },
        h('span', { class: 'row' }, h('b', { class: 'grow' }, bdi(info.name)), chip(step, t[step as 'none'])),
        h('small', null, info.grade && [bdi(info.grade), ' · '], counted(t.pupils, info.pupils.length))),
      days);
  };

  const notes = h('div');
  let noted = '';
  const showNotes = (): void => {
    const due = dueNotes(app);
    const { directive } = app.state();
    const key = due.join() + (directive && directive.id) + t.lang;
    if (key === noted) return;
    noted = key;
    refill(notes);
    if (due.length) app.lazily(import('./sheets'), (sheets) => key === noted && refill(notes, due.map((name) => sheets.noteOf(app, name))));
  };

  function update(): void {
    showNotes();
    const focused = document.activeElement && document.activeElement.id;
    const { classes, identity } = app.state();
    refill(body,
      h('p', { class: 'lead' }, identity && [bdi(identity.schoolName), h('br')], dateText(device.today())),
      notes,
      classes.length ? h('ul', { class: 'cards' }, classes.map(card)) : note(t.none, t.noClasses),
      h('p', { class: 'row' },
        button(t.settings, () => app.go('s')),
        identity && identity.role === 'champion' && button(t.school, () => app.go('m'))));
    const again = focused && document.getElementById(focused);
    if (again && body.contains(again)) again.focus();
  }
  return { title: t.today, body, update };
}

export const pupilNumber = (index: number): string => num(index + 1);
