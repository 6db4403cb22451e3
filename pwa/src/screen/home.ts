/** The classes of today, each with its step, and the last 14 days. */
import type { ClassInfo } from '../api';
import { dateText, num, setting, t } from '../i18n';
import { bdi, button, chip, fmt, h, note, refill, refresh, type Child } from './dom';
import { stepOf } from './marks';
import type { App, View } from './view';

export const DAYS = 14;
const opened: Record<string, boolean> = {};

export function sessionText(session: string): Child {
  const period = /^(am|pm)(\d)$/.exec(session);
  return period ? fmt(t[period[1] as 'am' | 'pm'], +period[2]) : t.day;
}

/** A notice that was read stays away on this phone; a phone enrolled anew starts afresh. */
export const seenKey = (app: App, slug: string): string => slug + app.state().identity!.device.slice(0, 8);

/** Names of the notes due now; their words and buttons are in `sheets.ts`. */
function dueNotes(app: App): string[] {
  const state = app.state();
  return [
    state.storage === 'memory' && state.storage,
    ...state.notices.filter((slug) => slug === 'revoked' || (setting('seen') || '').indexOf(seenKey(app, slug)) < 0),
    state.directive && 'directive',
    app.update && 'update',
    state.closedDates.has(app.device.today()) && 'closed',
    state.sessions.length > 1 && 'session',
  ].filter(Boolean) as string[];
}

/** One class: its button and its days. The nodes stay, only what changed in them is filled again. */
function cardOf(app: App, info: ClassInfo): { node: HTMLElement; update(): void } {
  const { id } = info;
  const register = (): string => id + '/' + app.device.today() + '/' + app.session();
  const state = h('span');
  const box = h('div');
  const days = h('details', { open: opened[id] }, h('summary', null, fmt(t.lastDays, DAYS)), box);
  const update = (): void => {
    const step = stepOf(app.state(), register());
    refresh(state, step, () => chip(step, t[step as 'none']));
    if (opened[id]) app.lazily(import('./sheets'), (sheets) => sheets.showDays(app, info, box));
  };
  days.addEventListener('toggle', () => {
    opened[id] = days.open;
    update();
  });
  const node = h('li', { class: 'card' },
    h('button', { type: 'button', id: 'c-' + id, class: 'open', onclick: () => app.go('r/' + register()) },
      h('span', { class: 'row' }, h('b', { class: 'grow' }, bdi(info.name)), state),
      h('small', null, info.grade && [bdi(info.grade), ' · '], fmt(t.pupils, info.pupils.length))),
    days);
  return { node, update };
}

export function homeView(app: App): View {
  const lead = h('p', { class: 'lead' });
  const notes = h('div');
  const list = h('div');
  const doors = h('p', { class: 'row' });
  let cards: ReturnType<typeof cardOf>[] = [];

  const showNotes = (): void => {
    const { directive } = app.state();
    const due = dueNotes(app);
    const key = due.join() + (directive && directive.id);
    // Emptied at once, filled when the words are there, unless something else is due by then.
    refresh(notes, key, () => {
      if (due.length) app.lazily(import('./sheets'), (sheets) => due.join() === dueNotes(app).join() && refill(notes, due.map((name) => sheets.noteOf(app, name))));
      return null;
    });
  };

  function update(): void {
    const { classes, identity } = app.state();
    const today = app.device.today();
    refresh(lead, identity && identity.school + today, () => [identity && [bdi(identity.schoolName), h('br')], dateText(today)]);
    showNotes();
    refresh(list, classes.map((info) => [info.id, info.name, info.grade, info.pupils.length]).join(), () => {
      cards = classes.map((info) => cardOf(app, info));
      return cards.length ? h('ul', null, cards.map((card) => card.node)) : note(t.none, t.noClasses);
    });
    cards.forEach((card) => card.update());
    refresh(doors, identity && identity.role, () => [
      button(t.settings, () => app.go('s')),
      identity && identity.role === 'champion' && button(t.school, () => app.go('m')),
    ]);
  }
  return { title: t.today, body: h('div', null, lead, notes, list, doors), update };
}

export const pupilNumber = (index: number): string => num(index + 1);
