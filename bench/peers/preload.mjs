// Loaded before each peer's server: it ends when the benchmark does, and collects its garbage when asked (SIGUSR2), so
// that memory is what the server holds and not what V8 has not yet looked at.
process.stdin.resume()
process.stdin.on('end', () => process.exit(1))
process.on('SIGUSR2', () => {
  globalThis.gc()
  globalThis.gc()
  console.log('collected')
})
