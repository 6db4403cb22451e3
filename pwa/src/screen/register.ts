/**
 * One register: the roll in order, a tap for each exception.
 *
 * A tap is painted at once as "being saved" and shown as saved only after the log has it. Whatever is unsealed is
 * sealed when the page is left or the work is finished; after 20 s without a tap the device does it by itself.
 */
import { dateText, t } from '../i18n';
import { bdi, chip, counted, fmt, h, note, refill, refresh, say, shape, SHAPES, type Child } from './dom';
import { pupilNumber, sessionText } from './home';
import { BULK, codeOf, countMarks, nextCode, reasonOf, stepOf, valueOf, visible } from './marks';
import type { App, View } from './view';

type Tap = readonly [key: string, value: string | null];

/** A mark in words: "تأخير ٥ دقائق", "غياب بعذر: مرض". */
export function markText(value: string): Child {
  const code = codeOf(value) as 'P';
  const reason = reasonOf(value);
  if (!reason) return t[code];
  return codeOf(value) === 'L' && +reason ? [t[code], ' ', counted(t.minutes, +reason)] : [t[code], ': ', t.reasons[reason] || bdi(reason)];
}

export function registerView(app: App, register: string): View {
  const [classId, date, session] = register.split('/');
  const { device } = app;
  const info = app.state().classes.filter((one) => one.id === classId)[0];
  if (!info) return { title: t.app, body: note(t.unknownClass, t.noClasses), update() {} };

  const onItsWay = new Map<string, string | null>();
  let lastSave: Promise<void> = Promise.resolve();
  let bulk: readonly string[] = [];
  let bulkValue = '';
  let failed = false;
  let reason = 'save';

  const current = () => app.state().registers.get(register);
  const valuesOf = (id: string): readonly string[] => {
    const fresh = onItsWay.get(id);
    if (fresh !== undefined) return fresh ? [fresh] : [];
    const state = current();
    return visible(state && state.values.get(id));
  };
  const winner = (id: string): string | undefined => valuesOf(id)[valuesOf(id).length - 1];
  const unsealed = (): number => onItsWay.size || (current() || { unsealed: 0 }).unsealed;

  const save = (taps: readonly Tap[]): void => {
    for (const [key, value] of taps) onItsWay.set(key, value);
    app.unsaved++;
    failed = false;
    const settle = (): void => {
      app.unsaved--;
      for (const [key, value] of taps) if (onItsWay.get(key) === value) onItsWay.delete(key);
      update();
    };
    lastSave = device.tap(register, taps).then(settle, (error: Error) => {
      // Nothing is hidden: the mark goes back to what the log holds, and the page says so.
      console.error(error);
      failed = true;
      settle();
    });
    update();
  };

  const mark = (id: string, name: string, code: string, reason?: string): void => {
    const value = valueOf(code, device.msSinceMidnight(date), reason);
    save([[id, value]]);
    say(bdi(name), ' ', markText(value));
  };

  const markRest = (): void => {
    const ms = device.msSinceMidnight(date);
    bulkValue = valueOf('P', ms);
    bulk = info.pupils.map(([id]) => id).filter((id) => !winner(id));
    save([[BULK, valueOf('B', ms)] as Tap].concat(bulk.map((id): Tap => [id, bulkValue])));
  };
  const undoRest = (): void => {
    // Only what the bulk act wrote; a pupil tapped since keeps the newer mark.
    const back = bulk.filter((id) => winner(id) === bulkValue);
    bulk = [];
    save([BULK].concat(back).map((key): Tap => [key, null]));
  };

  const rows = info.pupils.map(([id, name], index) => {
    const icon = shape('none');
    const word = h('span');
    const state = h('span', null, icon, word);
    const mine = h('button', { type: 'button', class: 'mark', onclick: () => mark(id, name, nextCode(codeOf(winner(id) || '') || undefined)) },
      h('bdi', { class: 'no' }, pupilNumber(index)), h('span', { class: 'grow' }, bdi(name)), state);
    const open = (): void => app.lazily(import('./sheets'), (sheets) => sheets.choose(name, valuesOf(id).length > 1 ? valuesOf(id).map(markText) : null, {
      mark: (code, reason) => mark(id, name, code, reason),
      takeBack: unsealed() && winner(id) ? () => save([[id, null]]) : null,
    }));
    const node = h('li', { class: 'pupil' }, mine, h('button', { type: 'button', class: 'more', 'aria-label': t.more.replace('{0}', name), onclick: open }, shape('more')));
    let shown = '';
    return {
      node,
      update() {
        const values = valuesOf(id);
        const key = values.join() + onItsWay.has(id);
        if (key === shown) return;
        shown = key;
        const code = values.length > 1 ? 'review' : values.length ? codeOf(values[0]) : 'none';
        state.className = 'chip k-' + code;
        node.className = 'pupil k-' + code + (onItsWay.has(id) ? ' wait' : '');
        (icon.firstChild as Element).setAttribute('d', SHAPES[code]);
        refill(word, values.length > 1
          ? [t.differ, h('small', null, values.map((value, i) => [i ? ' / ' : '', markText(value)]))]
          : values.length ? markText(values[0]) : t.notYet);
      },
    };
  });

  const finish = (): void => {
    reason = 'hand'; // asked for with a finger: no back-off stands in the way
    const { left, of } = countMarks(info.pupils, winner);
    if (!left || left === of) return app.home();
    app.lazily(import('./sheets'), (sheets) => sheets.askAboutRest(left, of, () => { markRest(); app.home(); }, app.home));
  };

  const step = h('span');
  const notes = h('div');
  const hint = h('p', { class: 'dim' });
  const counts = h('p', { class: 'counts' });
  const all = h('button', { type: 'button', id: 'all', class: 'btn', onclick: () => (bulk.length ? undoRest() : markRest()) });
  const body = h('div', null,
    h('div', { class: 'sub' }, h('p', null, dateText(date), session !== 'day' && [' · ', sessionText(session)], ' ', step), notes, hint),
    h('ol', { class: 'roll' }, rows.map((row) => row.node)));
  const foot = h('div', { class: 'bar' }, counts,
    h('p', { class: 'row' }, all, h('button', { type: 'button', id: 'done', class: 'btn main', onclick: finish }, t.done)));

  /** Why it needs review or waits, and a save that failed: at once in a word, in full when the words have come. */
  const explain = (slugs: readonly string[]): void =>
    refresh(notes, slugs.join() + failed, () => {
      const lost = failed;
      if (lost || slugs.length)
        app.lazily(import('./sheets'), (sheets) => lost === failed && refill(notes, lost && sheets.unsavedNote(app), slugs.length > 0 && sheets.reviewNote(slugs, stepOf(app.state(), register) === 'review')));
      return lost && h('p', { class: 'note act', role: 'alert' }, t.saveFailed);
    });

  function update(): void {
    rows.forEach((row) => row.update());
    const state = current();
    const { present, absent, left, of } = countMarks(info.pupils, winner);
    const now = onItsWay.size ? 'saving' : stepOf(app.state(), register);
    if (!unsealed()) bulk = [];
    explain((state && state.slugs) || []);
    refresh(step, now, () => chip(now, t[now as 'none']));
    refresh(hint, left === of, () => left === of && t.how);
    refresh(counts, [present, absent, left].join(), () =>
      [fmt(t.present, present), fmt(t.absent, absent), fmt(t.notTaken, left, of)].map((text) => h('span', null, text, ' ')));
    all.hidden = !bulk.length && !left;
    refresh(all, [bulk.length, left < of].join(), () => (bulk.length ? fmt(t.undoAll, bulk.length) : left < of ? t.restPresent : t.allPresent));
  }

  return {
    title: bdi(info.name),
    body,
    foot,
    update,
    leave() {
      void lastSave.then(() => {
        if (unsealed() || app.state().pending) void app.finish(reason);
      });
    },
  };
}
