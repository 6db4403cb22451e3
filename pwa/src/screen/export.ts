/** Hand out what this phone holds, as a file the champion can carry. */
import { t } from '../i18n';
import { button, note } from './dom';
import { sheet } from './sheet';
import { more } from './more';
import type { App } from './view';

const fileName = (app: App, kind: string): string => {
  const { identity } = app.state();
  return ['hudur', identity ? identity.school : '', identity ? identity.shortNumber : '', app.device.today()].filter(Boolean).join('-') + kind;
};

/** Download through a link, which works in every browser; the address is given back a minute later. */
function download(bytes: Uint8Array, name: string, type: string): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([bytes as BlobPart], { type }));
  link.download = name;
  document.body.appendChild(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

const tell = async (work: () => Promise<void>): Promise<void> => {
  try {
    await work();
  } catch (error) {
    if ((error as Error).name === 'AbortError') return;
    console.error(error);
    sheet(more().fileFailed, () => note(more().fileFailed, more().fileFailedWhy, null, true));
  }
};

/** The whole log: a SQLite file that `sqlite3` and the champion's tools open. */
export const saveLog = (app: App): Promise<void> =>
  tell(async () => download(await app.device.exportLog(), fileName(app, '.sqlite'), 'application/vnd.sqlite3'));

const shareable = (bytes: Uint8Array, name: string): File | null => {
  if (!navigator.canShare || typeof File !== 'function') return null;
  // Browsers share only a few kinds of file, and plain text is one of them; the reader goes by the content.
  const file = new File([bytes as BlobPart], name + '.txt', { type: 'text/plain' });
  return navigator.canShare({ files: [file] }) ? file : null;
};

export const canShare = (): boolean => shareable(new Uint8Array(1), 'x') !== null;

/** Only the signed frames: small enough for any messenger. */
export const shareBundle = (app: App): Promise<void> =>
  tell(async () => {
    const name = fileName(app, '.hudur');
    const bytes = await app.device.exportBundle();
    const file = shareable(bytes, name);
    if (!file) return download(bytes, name, 'application/octet-stream');
    // Sharing needs a fresh touch, and framing may have taken longer: one more button makes it certain.
    await navigator.share({ files: [file], title: t.app }).catch((error: Error) => {
      if (error.name !== 'NotAllowedError') throw error;
      sheet(name, (close) => button(more().saveFile, () => { close(); void tell(() => navigator.share({ files: [file], title: t.app })); }, 'main'));
    });
  });
