/** What the shell and its pages agree on. */
import type { Device, State } from '../api';
import type { Child } from './dom';

export interface View {
  title: Child;
  body: HTMLElement;
  /** Stays below the scrolling part, so that it never covers a row. */
  foot?: HTMLElement;
  /** The device's state or the language changed. */
  update(): void;
  /** The page is being left: whatever is unsealed must be sealed now. */
  leave?(): void;
}

export interface App {
  device: Device;
  state(): State;
  /** Open a page by its address after `#`. */
  go(page: string): void;
  /** To the classes of today. */
  home(): void;
  /** Build the open page again, in the language of now. */
  reopen(): void;
  /** Paint the open page and the status line again. */
  changed(): void;
  /** Run with a lazy module; when it cannot be loaded (first visit, no network yet) the page says so. */
  lazily<T>(loading: Promise<T>, run: (module: T) => unknown): void;
  /** Session the teacher works in, where the calendar has several. */
  session(): string;
  /** Seal what is unsealed, then send. Never rejects: what went wrong is in the state. */
  finish(reason: string): Promise<void>;
  /** Ask the browser to wake us when there is a network, where it can. */
  sendLater: () => unknown;
  /** Number of taps on their way to the log; the page must not reload meanwhile. */
  unsaved: number;
  /** A waiting release that may be offered now: put it in place, or put it off. */
  update: { now(): void; later(): void } | null;
}
