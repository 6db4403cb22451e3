/** The few helpers that replace a framework: elements, text with isolated numbers, shapes, sheets. */
import { num, plural, type Forms } from '../i18n';

export type Child = Node | string | number | null | undefined | false | readonly Child[];
type Props = Record<string, string | number | boolean | null | undefined | ((event: Event) => unknown)>;

function fill(node: Node, kids: readonly Child[]): void {
  for (const kid of kids) {
    if (kid === null || kid === undefined || kid === false) continue;
    if (Array.isArray(kid)) fill(node, kid);
    else node.appendChild(kid instanceof Node ? kid : document.createTextNode(String(kid)));
  }
}

/** Make an element. Functions become listeners (`onclick`), `true` an empty attribute, `false` and null nothing. */
export function h<K extends keyof HTMLElementTagNameMap>(tag: K, props?: Props | null, ...kids: Child[]): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  for (const key in props) {
    const value = props[key];
    if (typeof value === 'function') node.addEventListener(key.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(key, value === true ? '' : String(value));
  }
  fill(node, kids);
  return node;
}

export function refill(node: Node, ...kids: Child[]): void {
  node.textContent = '';
  fill(node, kids);
}

const keys = new WeakMap<Node, unknown>();

/** Refill `node` only when `key` is another: what a finger is pressing must not be replaced under it. */
export function refresh(node: Node, key: unknown, make: () => Child): void {
  if (keys.has(node) && keys.get(node) === key) return;
  keys.set(node, key);
  refill(node, make());
}

/** A number or name inside text of the other direction. Without this "0 من 40" would turn around. */
export const bdi = (value: string | number): HTMLElement => h('bdi', null, typeof value === 'number' ? num(value) : value);

/** Text with `{0}`, `{1}` replaced by isolated values. */
export const fmt = (text: string, ...values: (string | number)[]): Child[] =>
  text.split(/\{(\d)\}/).map((part, i) => (i % 2 ? bdi(values[+part]) : part));

export const counted = (forms: Forms, value: number): Child[] => fmt(plural(forms, value), value);

const CIRCLE = 'M21 12a9 9 0 1 1-18 0 9 9 0 0 1 18 0';
/** One shape for each state, drawn in a 24 x 24 box: a state is never told by its colour alone. */
export const SHAPES: Record<string, string> = {
  none: CIRCLE,
  P: 'M4 13l5 5L20 6',
  A: 'M6 6l12 12M18 6L6 18',
  L: CIRCLE + 'M12 7v5l4 2',
  E: 'M6 3h12v18H6zM10 8h4m-4 4h4',
  U: 'M4 4h16v16H4zM9 9l6 6m0-6l-6 6',
  X: 'M4 12h11m-4-5l5 5-5 5M20 4v16',
  D: 'M4 8h16v11H4zM9 8V5h6v3',
  S: CIRCLE + 'M6 6l12 12',
  saving: CIRCLE + 'M8 12h0m4 0h0m4 0h0',
  saved: 'M7 2h10v20H7zM11 18h2',
  sent: 'M12 21V4m-7 7l7-7 7 7',
  confirmed: 'M1 13l5 5L16 6m-5 11l1 1L23 6',
  review: 'M12 3L2 21h20zM12 10v5m0 3h0',
  unkept: 'M7 2h10v20H7zM4 4l16 16',
  closed: 'M6 12h12',
  back: 'M4 12h16m-6-6l6 6-6 6',
  more: 'M12 5h0m0 7h0m0 7h0',
};

export function shape(name: string): SVGSVGElement {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS(svg.namespaceURI, 'path');
  path.setAttribute('d', SHAPES[name]);
  svg.appendChild(path);
  return svg;
}

/** Shape, word and colour of one state. The colour comes from the class. */
export const chip = (name: string, ...words: Child[]): HTMLElement => h('span', { class: 'chip k-' + name }, shape(name), h('span', null, words));

export const button = (text: Child, onclick: () => unknown, cls = ''): HTMLButtonElement => h('button', { type: 'button', class: 'btn ' + cls, onclick }, text);

/** A calm box with a title, a sentence and at most one action. `act` marks what only a person can solve. */
export const note = (title: Child, text: Child, action?: HTMLElement | null, act = false): HTMLElement =>
  h('section', { class: act ? 'note act' : 'note' }, h('h2', null, title), h('p', null, text), action);

/** Say something to people who do not see the screen, when nothing moves the focus. */
export const say = (...words: Child[]): void => refill(document.getElementById('say')!, words);
