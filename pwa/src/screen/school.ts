/** المدرسة: the champion's page. Devices worst first, a new phone's code, a forced resync, a file from another phone. */
import type { Problem } from '../api';
import { t } from '../i18n';
import { bdi, button, chip, counted, fmt, h, note, refill, type Child } from './dom';
import type { MoreWords } from '../i18n/ar-more';
import type { Sheets } from './sheets';
import type { App, View } from './view';

/** One row of `devices` (docs/protocol.md section 8). */
type DeviceRow = readonly [
  device: Uint8Array, userId: string, userName: string, role: string, label: string, classes: readonly string[], lastContactMs: number | null,
  silentDays: number, unsent: number, clockOffsetMs: number | null, app: string, state: string, directive: readonly [id: number, level: string, state: string] | null,
  shortNumber: string,
];
type UserRow = readonly [id: string, name: string, role: string, classes: readonly string[], devices: number];
type ImportResult = readonly [
  frames: number, durable: number, duplicate: number, held: number, refused: number, truncated: boolean,
  by: readonly (readonly [device: Uint8Array, userId: string, registers: number, changesNew: number])[],
];

/** Up to two minutes is no more than a round trip and a rounded clock. */
const CLOCK_TOLERANCE_MS = 120_000;
const STATE_SHAPES: Record<string, string> = { ok: 'confirmed', silent: 'L', 'restored-copy': 'review', 'wiped-phone': 'review', revoked: 'S', never: 'none' };
const LEVELS = ['nudge', 'repull', 'rebuild'];
const MOST_REASON_CHARS = 200;

function span(words: MoreWords, ms: number): Child {
  const minutes = Math.round(Math.abs(ms) / 60_000);
  if (minutes < 120) return fmt(words.duration.m, minutes);
  return minutes < 2880 ? fmt(words.duration.h, Math.round(minutes / 60)) : fmt(words.duration.d, Math.round(minutes / 1440));
}

function clockText(words: MoreWords, offset: number | null): Child {
  if (offset === null) return words.clockUnknown;
  if (Math.abs(offset) < CLOCK_TOLERANCE_MS) return words.clockGood;
  const text = offset > 0 ? words.clockAhead : words.clockBehind;
  return [text.replace('{0}', ''), span(words, offset)];
}

/** `#m` is the school, `#m/d` its decisions: one address less for the start page to know. */
export const schoolView = (app: App, sheets: Sheets): View => (location.hash.slice(2) === '/d' ? decisionsPage(app, sheets) : devicesView(app, sheets));

function decisionsPage(app: App, sheets: Sheets): View {
  const body = h('div');
  import('./decisions').then(
    ({ decisions }) => refill(body, decisions(app, sheets)),
    (error: Error) => {
      console.error(error);
      refill(body, note(t.loadFailed, t.loadFailedWhy, button(t.retry, app.reopen)));
    },
  );
  return { title: sheets.more().decide, body, update() {} };
}

function devicesView(app: App, { instantText, more, problemText, sheet }: Sheets): View {
  const words = more();

  /** Run a call into a box: loading, then its result, or what went wrong and a way to try again. */
  const into = async (box: HTMLElement, waiting: string, work: () => Promise<Child>): Promise<void> => {
    refill(box, h('p', { role: 'status' }, waiting));
    try {
      refill(box, await work());
    } catch (error) {
      console.error(error);
      const [what, todo] = problemText((error as Problem).slug || 'unknown');
      refill(box, note(what, todo, button(t.retry, () => into(box, waiting, work)), true));
    }
  };

  const askResync = (device: DeviceRow | null): void => {
    sheet(fmt(words.resyncOf, device ? device[2] : words.everybody), (close) => {
      const reason = h('input', { id: 'why', maxlength: MOST_REASON_CHARS, autocomplete: 'off', 'aria-describedby': 'why-hint' });
      const hint = h('p', { id: 'why-hint', class: 'dim' }, words.reasonNeeded);
      const radios = LEVELS.map((level, i) => h('input', { type: 'radio', name: 'level', value: level, id: 'l-' + level, checked: i === 0 }));
      const result = h('div', { role: 'alert' });
      const send = (): void => {
        if (!reason.value.trim()) return reason.focus();
        const level = radios.filter((radio) => radio.checked)[0].value;
        void into(result, words.loading, async () => {
          const ids = (await app.device.call('resync', [device ? device[0] : null, level, reason.value.trim()])) as readonly number[];
          close();
          sheet(counted(words.sentTo, ids.length), () => h('p', null, words.sentToWhy));
          void listDevices();
          return null;
        });
      };
      return [
        h('p', null, words.resyncSafe),
        h('fieldset', { class: 'levels' }, h('legend', null, words.level), radios.map((radio) =>
          h('label', { class: 'level', for: radio.id }, radio, h('span', null, h('b', null, words.levels[radio.value][0]), h('small', null, words.levels[radio.value][1]))))),
        h('label', { for: 'why' }, words.reason), reason, hint, result,
        button(words.send, send, 'main'),
      ];
    });
  };

  const deviceCard = (row: DeviceRow): HTMLElement => {
    const [, , userName, , label, classes, lastContactMs, silentDays, unsent, offset, version, state, directive, short] = row;
    const shapeName = STATE_SHAPES[state] || 'review';
    return h('li', { class: 'note device' },
      h('p', { class: 'row' }, h('span', { class: 'grow' }, h('b', null, bdi(userName)), label && h('small', null, bdi(label))), chip(shapeName === 'L' ? 'L' : shapeName, words.states[state] || bdi(state))),
      h('p', { class: 'facts' },
        classes.length ? classes.map((name, i) => [i ? '، ' : '', bdi(name)]) : words.noClass, h('br'),
        state === 'never' ? null : [counted(words.silentDays, silentDays), ' · ', fmt(words.lastContact, instantText(lastContactMs)), h('br')],
        counted(words.unsent, unsent), unsent > 0 && [' ', words.lastKnown], ' · ', clockText(words, offset), h('br'),
        bdi(version || '?'), ' · ', words.shortNumber, ' ', bdi(short),
        directive && [h('br'), words.asked.split(/\{\d\}/)[0], words.levels[directive[1]] ? words.levels[directive[1]][0] : directive[1], '، ', words.directiveStates[directive[2]] || directive[2]]),
      button(words.resync, () => askResync(row)));
  };

  const devicesBox = h('div');
  const listDevices = (): Promise<void> =>
    into(devicesBox, words.loading, async () => {
      const rows = (await app.device.call('devices', [])) as readonly DeviceRow[];
      return rows.length
        ? [h('ul', null, rows.map(deviceCard)), button(words.resyncAll, () => askResync(null)), button(words.refresh, listDevices)]
        : [h('p', null, words.noDevices), button(words.refresh, listDevices)];
    });

  const showCode = async (user: UserRow): Promise<Child> => {
    const [code, expires] = (await app.device.call('code', [user[0]])) as readonly [string, number];
    const { school } = app.state().identity!;
    const letters = code.replace(/[^A-Z]/g, '');
    const link = location.origin + location.pathname + '#e=' + school + '.' + letters;
    const shown = letters.slice(0, 3) + '-' + letters.slice(3, 7) + '-' + letters.slice(7);
    const { qrPicture } = await import('./qr');
    const copy = button(words.copyLink, () => navigator.clipboard.writeText(link).then(() => { copy.textContent = words.copied; }, () => (field.focus(), field.select())));
    const field = h('input', { value: link, readonly: true, dir: 'ltr', 'aria-label': words.link });
    return h('section', { class: 'note code' },
      h('h2', null, fmt(words.codeFor, user[1])), h('p', { class: 'big' }, bdi(shown)), h('p', null, fmt(words.codeUntil, instantText(expires))),
      qrPicture(link, words.qr), h('p', null, fmt(words.codeHow, school)), field, navigator.clipboard ? copy : null);
  };

  const codeBox = h('div');
  const usersBox = h('div');
  const listUsers = (): Promise<void> =>
    into(usersBox, words.loading, async () => {
      const users = (await app.device.call('users', [])) as readonly UserRow[];
      const select = h('select', { id: 'user' }, users.map((user, i) => h('option', { value: i }, user[1] + ' — ' + (user[3].join('، ') || words.role[user[2]] || user[2]))));
      return [h('label', { for: 'user' }, words.forWhom), select, h('p', null, button(words.makeCode, () => into(codeBox, words.loading, () => showCode(users[+select.value])), 'main'))];
    });

  const importBox = h('div', { role: 'status' });
  const takeFile = async (input: HTMLInputElement): Promise<void> => {
    const file = input.files && input.files[0];
    if (!file) return;
    const bytes = new Uint8Array(await new Response(file).arrayBuffer());
    input.value = '';
    await into(importBox, words.importing, async () => {
      const [, durable, duplicate, held, refused, truncated, by] = (await app.device.importFile(bytes)) as ImportResult;
      void listDevices();
      return note(durable + held ? words.imported : words.importedNothing, [
        fmt(words.brought, durable, duplicate, held, refused),
        by.map((row) => h('span', { class: 'block' }, bdi(row[1]), ' · ', counted(words.broughtRow, row[2]), ' · ', fmt(words.changesNew, row[3]))),
        truncated && h('span', { class: 'block' }, words.truncated),
      ]);
    });
  };
  const picker = h('input', { type: 'file', id: 'file', onchange: (event) => takeFile(event.target as HTMLInputElement).catch((error) => console.error(error)) });

  const body = h('div', null,
    h('section', { class: 'note' }, h('p', null, words.decideWhy), button(words.decide, () => app.go('m/d'), 'decide')),
    h('h2', { class: 'part' }, words.devices), h('p', { class: 'dim' }, words.devicesWhy), devicesBox,
    h('h2', { class: 'part' }, words.newCode), h('p', { class: 'dim' }, words.newCodeWhy), usersBox, codeBox,
    h('h2', { class: 'part' }, words.import), h('p', { class: 'dim' }, words.importWhy), h('label', { for: 'file' }, words.pickFile), picker, importBox);
  // One after the other: each call needs the nonce of the answer before it.
  void listDevices().then(listUsers);
  return { title: words.school, body, update() {} };
}
