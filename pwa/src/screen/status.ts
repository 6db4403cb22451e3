/** The status line: one place, always visible. Grey when offline; red only when a person must act. */
import type { State } from '../api';
import { t } from '../i18n';
import { counted, h, refresh, shape, type Child } from './dom';
import type { App } from './view';

/** Troubles that pass by themselves. Every other slug needs a person, and says so. */
export const PASSING: Record<string, 'offline' | 'portal' | 'busy' | undefined> = { offline: 'offline', 'no-answer': 'portal', 'slow-body': 'portal', busy: 'busy', 'slow-down': 'busy', storage: 'busy' };

export interface Status {
  level: 'calm' | 'wait' | 'act';
  icon: string;
  /** Which of the sheet's explanations fits. */
  kind: 'memory' | 'revoked' | 'help' | 'sending' | 'offline' | 'portal' | 'busy' | 'ready' | 'fine';
  text: Child;
}

export function statusOf(state: State): Status {
  const { trouble, pending } = state;
  const act = (kind: Status['kind']): Status => ({ level: 'act', icon: 'review', kind, text: t.helpShort });
  const waiting = counted(t.waiting, pending);
  if (state.storage === 'memory') return act('memory');
  if (trouble === 'revoked' || state.notices.indexOf('revoked') >= 0) return act('revoked');
  if (state.syncing) return { level: 'calm', icon: 'sent', kind: 'sending', text: t.sending };
  if (trouble) {
    const kind = PASSING[trouble];
    if (!kind) return act('help');
    return { level: 'wait', icon: 'saved', kind, text: [t[(kind + 'Short') as 'busyShort'], pending > 0 && [' · ', waiting]] };
  }
  if (pending) return { level: 'wait', icon: 'saved', kind: 'ready', text: waiting };
  return { level: 'calm', icon: 'confirmed', kind: 'fine', text: state.lastCompleteSyncAtMs ? t.allSent : t.nothingYet };
}

export function statusLine(app: App): { node: HTMLElement; update(): void } {
  const node = h('button', { type: 'button', id: 'status', onclick: () => app.lazily(import('./sheets'), (sheets) => sheets.openStatus(app)) });
  return {
    node,
    update() {
      const status = statusOf(app.state());
      node.className = 'l-' + status.level;
      refresh(node, [status.kind, app.state().pending, app.state().lastCompleteSyncAtMs].join(), () => [shape(status.icon), h('span', null, status.text)]);
    },
  };
}
