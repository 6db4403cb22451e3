import { t } from '../i18n';
import { button, h, type Child } from './dom';

/** A sheet over the page with a title and a way out. `body` gets the function that closes it. */
export function sheet(title: Child, body: (close: () => void) => Child): HTMLDialogElement {
  const close = (): void => dialog.close();
  const dialog: HTMLDialogElement = h(
    'dialog',
    {
      'aria-labelledby': 'sheet',
      onclose: () => dialog.remove(),
      // A press beside the sheet closes it: only the backdrop makes the dialog itself the target.
      onclick: (event) => event.target === dialog && close(),
    },
    h('div', { class: 'sheet' }, h('h2', { id: 'sheet' }, title), body(close), button(t.close, close, 'plain')),
  );
  document.body.appendChild(dialog);
  dialog.showModal();
  return dialog;
}
