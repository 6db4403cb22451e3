/**
 * قرارات: what waits for the champion. Changes asked for after the window, different marks, marks that do not count yet.
 *
 * Nothing is decided on the phone: the server checks every decision, and what a rule answers is shown in its own words.
 * What the page hides (a champion's own requests) is hidden to spare a refusal. No order of people, no shares of anything.
 */
import { dateText, t } from '../i18n';
import { arDecide, type DecideWords } from '../i18n/ar-decide';
import { enDecide } from '../i18n/en-decide';
import { bdi, button, chip, counted, fmt, h, note, refill, say, type Child } from './dom';
import { cellsOf, civil, dateAt, grouped, inOrder, letterOf, named, ruleOf, slugOf, takenAt, type Cell, type Dispute, type Held, type Request, type Said } from './deciding';
import { sessionText } from './home';
import { PASSING } from './status';
import type { Sheets } from './sheets';
import type { App } from './view';

const NAMES_SHOWN_MAX = 5;
const REASON_CHARS_MAX = 200;
const LOCK = 'M5 11h14v10H5zM8 11V7a4 4 0 0 1 8 0v4';

/** A decision that is to be confirmed in a sheet. */
interface Wish {
  readonly title: Child;
  readonly what: string;
  readonly button: string;
  readonly order: string;
  readonly args: Record<string, string>;
  /** A code of the closed list, or words. */
  readonly codes: boolean;
  readonly done: readonly [shape: string, word: string, then: string];
}

export function decisions(app: App, { instantText, more, problemText, sheet }: Sheets): HTMLElement {
  const words: DecideWords = t.lang === 'en' ? enDecide : arDecide;
  const { school, userId } = app.state().identity!;
  const box = h('div');

  const order = async <T>(name: string, args: object): Promise<T> => JSON.parse((await app.device.call('order', [name, JSON.stringify(args)])) as string) as T;

  // ---- words ----------------------------------------------------------------------------------------------------

  /** Ids become names when the school's people have come; without them the ids stay. */
  const people = new Map<string, string>();
  const shownIds = new Map<string, HTMLElement[]>();
  const person = (id: string): HTMLElement => {
    const node = bdi(people.get(id) || id);
    shownIds.set(id, (shownIds.get(id) || []).concat(node));
    return node;
  };
  const namePeople = async (): Promise<void> => {
    for (const [id, name] of (await app.device.call('users', [])) as readonly (readonly [string, string])[]) {
      people.set(id, name);
      for (const node of shownIds.get(id) || []) node.textContent = name;
    }
  };
  /** Text with nodes in its holes. */
  const withNodes = (text: string, ...nodes: Child[]): Child[] => text.split(/\{(\d)\}/).map((part, i) => (i % 2 ? nodes[+part] : part));

  const room = (classId: string) => app.state().classes.filter((one) => one.id === classId)[0];
  const pupil = (classId: string, id: string): HTMLElement => {
    const info = room(classId);
    const found = info && info.pupils.filter(([one]) => one === id)[0];
    return bdi(found ? found[1] : id);
  };
  const instant = (ms: number): HTMLElement => bdi(instantText(ms));

  const saidChip = ({ code, reason }: Said): HTMLElement => {
    const letter = letterOf(code);
    const about: Record<string, string | undefined> = { B: words.bulk, H: words.sessionHeld, N: words.noSession, none: t.notYet };
    const detail = reason && (letter === 'L' && +reason ? [' ', counted(t.minutes, +reason)] : [': ', t.reasons[reason] ? t.reasons[reason] : bdi(reason)]);
    return chip(about[letter] ? 'none' : letter, about[letter] || t[letter as 'P'] || bdi(code), detail);
  };
  const line = (name: string, said: Said | null): Child => said && h('p', { class: 'row said' }, h('small', { class: 'grow' }, name), saidChip(said));

  // ---- cards ----------------------------------------------------------------------------------------------------

  const head = (register: string, state: HTMLElement): HTMLElement => {
    const { classId, date, session } = named(register);
    const info = room(classId);
    return h('div', null, h('h3', null, bdi(info ? info.name : classId)), h('small', null, dateText(date), ' · ', sessionText(session)), h('p', { class: 'state' }, state));
  };

  const groupsOf = (classId: string, cells: readonly Cell[], asked: string): Child =>
    grouped(cells).map(({ keys, ...group }) => {
      const names = keys.map((key, i) => [i ? '، ' : '', key[0] === '~' ? words.wholeRegister : pupil(classId, key)]);
      return h('div', { class: 'group' },
        keys.length > NAMES_SHOWN_MAX ? h('details', null, h('summary', null, counted(words.names, keys.length)), h('p', null, names)) : h('p', null, h('b', null, names)),
        line(words.now, group.now), line(asked, group.asked));
    });

  const card = (register: string, state: HTMLElement, ...rest: Child[]): HTMLElement => h('li', { class: 'note case', tabindex: -1 }, head(register, state), rest);

  /** The card says what was decided; the list is asked again only by hand, so that nothing moves under a finger. */
  const settled = (node: HTMLElement, [shape, word, then]: Wish['done']): void => {
    refill(node.querySelector('.state')!, chip(shape, word));
    refill(node.querySelector('.actions')!, h('p', null, then));
    node.focus();
    say(word);
  };

  const refusal = (error: unknown): HTMLElement => {
    const rule = ruleOf(error);
    if (!rule) {
      const [what, todo] = problemText(slugOf(error));
      return PASSING[slugOf(error)] ? note(what, words.unsure) : note(what, todo, null, true);
    }
    const sentence = t.lang === 'en' ? rule.en : rule.ar || rule.en;
    const known = words.whoBy[rule.name];
    const who = known === undefined ? rule.who : known;
    const date = civil(rule.closedOn);
    return note(words.refused, [
      h('span', { class: 'block' }, bdi(sentence)),
      rule.closedOn && h('span', { class: 'block' }, fmt(words.closedOn, date ? dateText(date) : instantText(Date.parse(rule.closedOn)))),
      who && h('span', { class: 'block' }, fmt(words.who, who)),
    ], null, true);
  };

  const ask = (node: HTMLElement, wish: Wish): void => {
    sheet(wish.title, (close) => {
      const why = wish.codes
        ? h('select', { id: 'why' }, h('option', { value: '' }, words.pick), Object.keys(words.reasons).map((code) => h('option', { value: code }, words.reasons[code])))
        : h('input', { id: 'why', maxlength: REASON_CHARS_MAX, autocomplete: 'off', 'aria-describedby': 'why-hint' });
      const reference = h('input', { id: 'ref', maxlength: REASON_CHARS_MAX, autocomplete: 'off', 'aria-describedby': 'ref-hint' });
      const result = h('div', { role: 'alert' });
      const send = async (): Promise<void> => {
        const reason = why.value.trim();
        if (!reason) return why.focus();
        if (reason === 'documented' && wish.codes && !reference.value.trim()) return reference.focus();
        go.disabled = true;
        refill(result, h('p', null, words.loading));
        try {
          await order(wish.order, { ...wish.args, reason, ...(reference.value.trim() ? { reference: reference.value.trim() } : {}) });
          close();
          settled(node, wish.done);
        } catch (error) {
          console.info(error);
          refill(result, refusal(error));
        }
        go.disabled = false;
      };
      const go = button(wish.button, send, 'main');
      return [
        h('p', null, wish.what), h('label', { for: 'why' }, words.reason), why,
        wish.codes ? [h('label', { for: 'ref', class: 'field' }, words.reference), reference, h('p', { id: 'ref-hint', class: 'dim' }, words.referenceHint)]
          : h('p', { id: 'why-hint', class: 'dim' }, words.whyHint),
        result, go,
      ];
    });
  };

  // ---- adjustments ----------------------------------------------------------------------------------------------

  const requestCard = (request: Request): HTMLElement => {
    const { register, change, locked_since: since } = request;
    const mine = request.author === userId;
    const state = chip(since ? 'closed' : mine ? 'sent' : 'L', since ? words.locked : mine ? words.mine : words.waiting);
    if (since) state.querySelector('path')!.setAttribute('d', LOCK);
    const { device } = app;
    const actions = h('div', { class: 'actions' });
    const node = card(register, state,
      groupsOf(named(register).classId, request.cells, words.asked),
      h('p', { class: 'facts' }, withNodes(words.by, person(request.author)), h('br'), withNodes(words.received, instant(Date.parse(request.received_at))),
        request.days_left !== null && [h('br'), h('b', null, counted(words.daysLeft, request.days_left)), ' · ', fmt(words.until, dateText(request.decide_until))]),
      since && h('p', null, fmt(words.lockedSince, dateText(dateAt(Date.parse(since), (date) => Date.now() - device.msSinceMidnight(date))), words.central)),
      !since && mine && h('p', null, fmt(words.others, words.another)),
      actions);
    if (!since && !mine) {
      const args = { register, change };
      const decide = (name: 'approve' | 'reject', wish: Pick<Wish, 'title' | 'what' | 'done'>): HTMLElement =>
        button(words[name], () => ask(node, { ...wish, button: words[name], order: 'adjustment-' + name, args, codes: true }), name === 'approve' ? 'main' : '');
      refill(actions, h('div', { class: 'picks' },
        decide('approve', { title: words.approveOf, what: words.approveWhat, done: ['confirmed', words.approved, words.soon] }),
        decide('reject', { title: words.rejectOf, what: words.rejectWhat, done: ['none', words.rejected, words.stays] })));
    }
    return node;
  };

  // ---- disputes -------------------------------------------------------------------------------------------------

  const disputeCard = ({ register, pupil: id, stands, values }: Dispute): HTMLElement => {
    const name = (): HTMLElement => pupil(named(register).classId, id);
    const party = values.some((value) => value.by === userId);
    const actions = h('div', { class: 'actions' });
    const time = (between: readonly [string, string]): Child => {
      const ends = takenAt(between).map(instant);
      return withNodes(ends.length > 1 ? words.takenBetween : words.takenAt, ...ends);
    };
    const node = card(register, chip('review', t.differ), h('p', null, h('b', null, name())), line(words.provisional, stands), actions);
    refill(actions, values.map((value) =>
      h('div', { class: 'group' }, h('p', null, saidChip(value)), h('p', { class: 'facts' }, withNodes(words.by, person(value.by)), h('br'), time(value.captured_between)),
        !party && button(words.choose, () => ask(node, {
          title: [name(), ': ', saidChip(value)], what: words.chooseWhat, button: words.choose, order: 'dispute-settle', args: { register, pupil: id, change: value.change },
          codes: false, done: ['confirmed', words.chosen, words.soon],
        })))),
      party && h('p', null, fmt(words.party, words.another)));
    return node;
  };

  // ---- held changes ---------------------------------------------------------------------------------------------

  const heldCard = (held: Held): HTMLElement => {
    const { register, change } = held;
    const actions = h('div', { class: 'actions' });
    const node = card(register, chip('review', words.notCounted),
      h('p', null, words.causes[held.cause] || fmt(words.otherCause, held.cause)),
      groupsOf(named(register).classId, cellsOf(held.marks), words.marked),
      h('p', { class: 'facts' }, withNodes(words.by, person(held.by)), h('br'), withNodes(words.received, instant(held.received_ms))),
      actions);
    if (held.releasable)
      refill(actions, button(words.approve, () => ask(node, {
        title: words.releaseOf, what: words.releaseWhat, button: words.approve, order: 'release', args: { register, change }, codes: false, done: ['confirmed', words.approved, words.soon],
      }), 'main'));
    else refill(actions, h('p', null, held.by === userId ? fmt(words.ownWork, words.another) : fmt(words.opens, t.lang === 'en' ? held.who : held.ar)));
    return node;
  };

  // ---- the page -------------------------------------------------------------------------------------------------

  const section = (title: string, forms: readonly string[], why: string, cards: readonly HTMLElement[], isMore: boolean): HTMLElement =>
    h('section', null, h('h2', { class: 'part' }, title), h('p', { class: 'dim' }, counted(forms, cards.length), cards.length > 0 && why && [' · ', why]),
      h('ul', null, cards), isMore && h('p', null, words.more));

  const load = async (): Promise<void> => {
    shownIds.clear();
    const status = h('p', { role: 'status' }, words.loading);
    const shown = h('div');
    refill(box, shown, status);
    try {
      // One after the other: each call needs the nonce of the answer before it.
      const asked = await order<{ requests: Request[]; more: boolean }>('adjustments', { school });
      shown.appendChild(section(words.adjustments, words.requests, '', inOrder(asked.requests).map(requestCard), asked.more));
      const differing = await order<{ disputes: Dispute[]; more: boolean }>('disputes', { school });
      shown.appendChild(section(words.disputes, words.disputed, words.disputesWhy, differing.disputes.map(disputeCard), differing.more));
      const kept = await order<{ held: Held[]; more: boolean }>('held', { school });
      shown.appendChild(section(words.held, words.heldCount, words.heldWhy, kept.held.map(heldCard), kept.more));
      refill(status);
      shown.appendChild(button(more().refresh, load));
      await namePeople();
    } catch (error) {
      console.info(error);
      const [what, todo] = problemText(slugOf(error));
      const passing = PASSING[slugOf(error)];
      refill(status, passing ? note(what, passing === 'busy' ? todo : words.needsNetwork, button(t.retry, load)) : ruleOf(error) ? refusal(error) : note(what, todo, button(t.retry, load), true));
    }
  };
  void load();
  return h('div', null, h('p', null, words.lead), box, button(words.toSchool, () => app.go('m'), 'plain'));
}
