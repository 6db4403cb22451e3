/**
 * Enrolment: school and code (or both from the link), then the short number both screens show.
 *
 * The form is a part of the start page and stands long before this module has come; what was typed, the focus and a press
 * of the button are taken over as they are.
 */
import type { Identity, Problem } from '../api';
import { t } from '../i18n';
import { changeLanguage, latin } from '../i18n/more';
import { arEnrol, type EnrolWords } from '../i18n/ar-enrol';
import { enEnrol } from '../i18n/en-enrol';
import { bdi, button, h, note, refill, say } from './dom';
import { browserPlaces, defaultLabel } from './installation';
import { linkParts } from './link';
import { PASSING } from './status';
import type { App, View } from './view';

const bare = (code: string): string => code.toUpperCase().replace(/[^A-Z]/g, '');
/** The form of the start page, also while it is put away. */
let kept: HTMLFormElement | null = null;
const CODE = /^[B-DF-HJ-NP-TV-XZ]{10}$/;

/** `box` is the start page's own: a place for notes, the form, a place for what comes of it. */
export function enrolView(app: App, box: HTMLElement): View {
  const words: EnrolWords = t.lang === 'en' ? enEnrol : arEnrol;
  const [above, below] = [box.firstElementChild!, box.lastElementChild!];
  const form = (kept = kept || box.querySelector('form')!);
  if (!box.contains(form)) box.insertBefore(form, below); // put away by an enrolment before
  const [school, code, label] = Array.from(form.querySelectorAll('input'));
  const problem = form.querySelector<HTMLElement>('[role=alert]')!;
  const submit = form.querySelector('button')!;
  const link = linkParts(location.hash);

  const ready = (yes: boolean): void => {
    submit.disabled = !yes;
    submit.textContent = yes ? words.enrol : words.enrolling;
  };

  const done = (identity: Identity): void => {
    form.remove();
    refill(above);
    refill(below,
      note(words.enrolled, [bdi(identity.userName), ' · ', bdi(identity.schoolName)]),
      h('p', null, words.shortNumber), h('p', { class: 'big' }, h('bdi', { id: 'short' }, identity.shortNumber)), h('p', null, words.shortNumberWhy),
      button(words.start, () => app.home(), 'main'));
    say(words.enrolled);
  };

  /** The words of rare problems are in another module. Where it cannot be had, the slug says enough to be read out. */
  const wordsOf = async (slug: string): Promise<readonly [what: string, todo: string]> => {
    const passing = PASSING[slug];
    if (passing) return [t[(passing + 'Short') as 'busyShort'], words.enrolLater];
    try {
      return (await import('./sheets')).problemText(slug);
    } catch (error) {
      console.error(error);
      return [slug, t.loadFailedWhy];
    }
  };

  const send = async (): Promise<void> => {
    if (!school.value.trim() || !CODE.test(bare(code.value))) {
      refill(problem, note(words.needCode, words.enrolHow, null, true));
      ready(true);
      return (school.value.trim() ? code : school).focus();
    }
    ready(false);
    refill(problem);
    try {
      done(await app.device.enrol(latin(school.value.trim()), bare(code.value), label.value.trim() || (await defaultLabel(browserPlaces()))));
    } catch (error) {
      console.error(error);
      const [what, todo] = await wordsOf((error as Problem).slug || (error as Error).name);
      refill(problem, note(words.notEnrolled + ': ' + what, todo, null, true));
    }
    ready(true);
  };

  // Each link fills the form once; the first script has done it for the page's own. What was typed over it stays.
  if (link && form.dataset.link !== location.hash) {
    school.value = link.school;
    code.value = link.code;
    form.dataset.link = location.hash;
  }
  box.querySelectorAll<HTMLElement>('[data-w]').forEach((node) => { node.textContent = words[node.dataset.w as 'code']; });
  label.placeholder = words.labelHint;
  form.onsubmit = (event) => { event.preventDefault(); void send(); };
  const { identity } = app.state();
  refill(above, identity && note(words.already, [bdi(identity.userName), ' · ', words.alreadyWhy], button(t.back, () => app.home())));
  refill(below, button(words.otherLanguage, () => changeLanguage().then(() => app.reopen(), (error) => { console.error(error); say(t.loadFailed); }), 'plain'));
  const pressed = submit.disabled;
  ready(true);
  if (pressed) void send();
  return { title: words.enrolTitle, body: box, update() {} };
}
