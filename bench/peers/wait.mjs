// A promise with an end: what never answers fails the benchmark and does not hang it.
export function within(ms, what, start) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`${what}: nothing within ${ms} ms`)), ms)
    const settle = (finish) => (value) => {
      clearTimeout(timer)
      finish(value)
    }
    start(settle(resolve), settle(reject))
  })
}
