/**
 * The lazy half of the device that signs and sends: its only door. It owns no state; the log, the fold and the cache are the
 * `Core`'s, so a phone that never reaches the network never loads it.
 */
export { Attempts } from './attempts';
export { call, enrol } from './calls';
export { exportBundle, importFile, rowsOfFile } from './files';
export { frameAll } from './outbox';
