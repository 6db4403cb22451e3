/** The few service-worker types used, so that the page and the worker compile with one set of libraries. */
declare global {
  interface HudurWorkerEvent extends Event {
    waitUntil(work: Promise<unknown>): void;
    respondWith(answer: Promise<Response>): void;
    addRoutes?(routes: readonly object[]): Promise<void>;
    request: Request;
    data: unknown;
  }
  interface HudurWorker {
    addEventListener(kind: string, listener: (event: HudurWorkerEvent) => void): void;
    skipWaiting(): Promise<void>;
    clients: { claim(): Promise<void>; matchAll(options: object): Promise<readonly { postMessage(message: unknown): void }[]> };
  }
}
export {};
