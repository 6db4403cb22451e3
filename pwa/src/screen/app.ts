/** The shell: header, one page at a time, the status line; addresses after `#`, so that Android's back button works. */
import type { Device } from '../api';
import { setting, t } from '../i18n';
import { button, h, note, refill, shape, type Child } from './dom';
import { homeView } from './home';
import { registerView } from './register';
import { statusLine } from './status';
import type { App, View } from './view';

export function startApp(device: Device): App {
  const root = document.getElementById('app')!;
  const [header, main] = Array.from(root.children);
  const [scroll, foot] = Array.from(main.children);
  /** The enrolment form: on the page already, or still in its template. */
  const form = document.getElementById('enrol') || (document.querySelector('template')!.content.firstElementChild as HTMLElement);
  let view: View | null = null;
  let deep = false;
  let opening = 0;

  /** `body` is shown until the module has come; when it cannot be had, `told` says so. */
  const lazyView = <T>(loading: Promise<T>, make: (module: T) => View, body: HTMLElement = h('div'), told: Element = body): View => {
    const mine = ++opening;
    loading.then(
      (module) => mine === opening && show(make(module)),
      (error: Error) => {
        console.error(error);
        refill(told, note(t.loadFailed, t.loadFailedWhy, button(t.retry, open)));
      },
    );
    return { title: t.app, body, update() {} };
  };

  const viewOf = (page: string): View => {
    if (!device.state.identity || /^e=/.test(page)) return lazyView(import('./enrol'), (lazy) => lazy.enrolView(self, form), form, form.children[0]);
    if (/^r\/[^/]+\/[^/]+\/[^/]+$/.test(page)) {
      const register = page.slice(2);
      const unread = (): boolean => (device.state.registers.get(register) || { partial: false }).partial;
      if (!unread()) return registerView(self, register);
      // Marks that are there but not read yet must not look as if nobody had been marked.
      return { ...lazyView(device.prepare(), () => registerView(self, register), note(t.partial, '')), update: () => void (unread() || open()) };
    }
    if (page === 's') return lazyView(Promise.all([import('./settings'), import('./sheets')]), ([lazy, sheets]) => lazy.settingsView(self, sheets));
    if (/^m/.test(page)) return lazyView(Promise.all([import('./school'), import('./sheets')]), ([lazy, sheets]) => lazy.schoolView(self, sheets));
    return homeView(self);
  };

  const page = (): string => {
    try {
      return decodeURIComponent(location.hash.slice(1));
    } catch (malformed) {
      return ''; // somebody's broken link: home
    }
  };

  function show(next: View): void {
    view = next;
    const inside = page() && device.state.identity;
    const title: Child = next.title;
    refill(header,
      inside && h('button', { type: 'button', class: 'back', 'aria-label': t.back, onclick: () => self.home() }, shape('back')),
      h('h1', { tabindex: -1 }, title));
    // A form that is being filled in keeps its place, and so its focus and its keyboard.
    if (scroll.firstChild !== next.body || next.body.nextSibling) refill(scroll, next.body);
    refill(foot, next.foot);
    footer.hidden = !device.state.identity;
    next.update();
    status.update();
  }

  function open(): void {
    // For the first script of the next start: whether the enrolment form is needed at once.
    setting('enrolled', device.state.identity ? '1' : '');
    if (view && view.leave) view.leave();
    opening++;
    show(viewOf(page()));
    scroll.scrollTop = 0;
    // A page change must be heard: the title takes the focus, except at the very start.
    if (deep) (header.querySelector('h1') as HTMLElement).focus();
  }

  const self: App = {
    device,
    unsaved: 0,
    update: null,
    sendLater() {},
    state: () => device.state,
    go(to) {
      deep = true;
      location.hash = to;
    },
    home() {
      deep = true;
      if (page()) history.replaceState(null, '', location.pathname);
      open();
    },
    reopen: open,
    changed() {
      if (view) view.update();
      status.update();
    },
    lazily(loading, run) {
      loading.then(run).catch((error: Error) => {
        console.error(error);
        scroll.insertBefore(note(t.loadFailed, t.loadFailedWhy), scroll.firstChild);
      });
    },
    session() {
      const { sessions } = device.state;
      const mine = setting('session');
      return mine && sessions.indexOf(mine) >= 0 ? mine : sessions[0] || 'day';
    },
    async finish(reason) {
      try {
        await device.sync(reason);
      } catch (error) {
        // Only storage can fail here. The taps are in the log, unsealed, and are sealed at the next occasion.
        console.error(error);
      }
      if (device.state.pending) self.sendLater();
    },
  };

  const status = statusLine(self);
  const footer = h('footer', null, status.node);
  root.appendChild(footer);
  device.subscribe(self.changed);
  window.addEventListener('hashchange', open);
  open();
  return self;
}
