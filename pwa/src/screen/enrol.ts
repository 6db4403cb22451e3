/** Enrolment: school and code (or both from the link), then the short number both screens show. */
import type { Identity, Problem } from '../api';
import { changeLanguage, latin, t } from '../i18n';
import { bdi, button, h, note, refill, say } from './dom';
import type { Sheets } from './sheets';
import { PASSING } from './status';
import type { App, View } from './view';

/** `#e=SCHOOL.CODE`; a school's id may hold dots, a code cannot. */
export function linkParts(hash: string): { school: string; code: string } | null {
  const found = /^#?e=(.+)\.([^.]+)$/.exec(decodeURIComponent(hash));
  return found && { school: found[1], code: found[2] };
}

const bare = (code: string): string => code.toUpperCase().replace(/[^A-Z]/g, '');
const CODE = /^[B-DF-HJ-NP-TV-XZ]{10}$/;

export function enrolView(app: App, { more, problemText }: Sheets, hash: string): View {
  const words = more();
  const link = linkParts(hash);
  const body = h('div');
  const field = (id: string, label: string, value: string, extra: Record<string, string | number>): HTMLInputElement => h('input', { id, value, autocomplete: 'off', autocapitalize: 'characters', spellcheck: 'false', dir: 'ltr', 'aria-label': label, ...extra });
  const school = field('e-school', words.schoolCode, link ? link.school : '', { maxlength: 36, autocapitalize: 'none' });
  const code = field('e-code', words.code, link ? link.code : '', { maxlength: 16, placeholder: 'BCD-FGHJ-KLM' });
  const label = field('e-label', words.label, '', { maxlength: 40, dir: 'auto', autocapitalize: 'none', placeholder: words.labelHint });
  const problem = h('div', { role: 'alert' });
  const submit = h('button', { class: 'btn main' }, words.enrol);

  const done = (identity: Identity): void => {
    refill(body,
      note(words.enrolled, [bdi(identity.userName), ' · ', bdi(identity.schoolName)]),
      h('p', null, words.shortNumber), h('p', { class: 'big' }, h('bdi', { id: 'short' }, identity.shortNumber)), h('p', null, words.shortNumberWhy),
      button(words.start, () => app.home(), 'main'));
    say(words.enrolled);
  };

  const failed = (error: Problem): void => {
    const [what, todo] = problemText(error.slug || error.name);
    refill(problem, note(words.notEnrolled + ': ' + what, PASSING[error.slug] ? words.enrolLater : todo, null, true));
  };

  const send = async (): Promise<void> => {
    if (!school.value.trim() || !CODE.test(bare(code.value))) {
      refill(problem, note(words.needCode, words.enrolHow, null, true));
      return (school.value.trim() ? code : school).focus();
    }
    submit.disabled = true;
    submit.textContent = words.enrolling;
    refill(problem);
    try {
      done(await app.device.enrol(latin(school.value.trim()), bare(code.value), label.value.trim()));
    } catch (error) {
      console.error(error);
      failed(error as Problem);
    }
    submit.disabled = false;
    submit.textContent = words.enrol;
  };

  const { identity } = app.state();
  refill(body,
    identity && note(words.already, [bdi(identity.userName), ' · ', words.alreadyWhy], button(t.back, () => app.home())),
    h('form', { novalidate: true, onsubmit: (event) => { event.preventDefault(); void send(); } },
    h('p', null, words.enrolHow),
    ([[school, words.schoolCode], [code, words.code], [label, words.label]] as const).map(([input, text]) => h('p', { class: 'field' }, h('label', { for: input.id }, text), input)),
    problem, submit),
    button(words.otherLanguage, () => changeLanguage().then(() => app.reopen()), 'plain'));
  return { title: words.enrolTitle, body, update() {} };
}
