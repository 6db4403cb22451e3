// The devices of one peer: reads a command a line, answers a line. A process of its own, so that the server's CPU is
// the server's. Every push is a fresh connection and ends when the server is known to have the register.
// node load.mjs DEVICE WORK.json; DEVICE is a module with push, correct and has (see the ones beside this file).
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'

const [module, work] = process.argv.slice(2)
const device = await import(`./device_${module}.mjs`)
const registers = JSON.parse(readFileSync(work, 'utf8'))
const kept = new Map()

async function inTurns(indices, atOnce, one) {
  const waiting = indices[Symbol.iterator]()
  const worker = async () => {
    for (const index of waiting) await one(index)
  }
  await Promise.all(Array.from({ length: atOnce }, worker))
}

const commands = {
  // First pushes; `keep` holds the device for a correction. With `kill`, that process ends at the acknowledgement
  // number `after`, and the answer names what was acknowledged until then.
  async push({ port, indices, at_once, keep = false, kill = null }) {
    const acked = []
    let killed = false
    const all = inTurns(indices, at_once, async (index) => {
      if (killed) return
      const began = performance.now()
      const [ref, held] = await device.push(port, registers[index], keep)
      if (killed) return
      acked.push([index, ref, performance.now() - began])
      if (keep) kept.set(index, held)
      if (kill !== null && acked.length === kill.after) {
        process.kill(kill.pid, 'SIGKILL')
        killed = true
        cut()
      }
    })
    let cut
    const end = new Promise((resolve) => (cut = resolve))
    await Promise.race(kill === null ? [all] : [all, end])
    return { acked }
  },

  async correct({ port, indices }) {
    const ms = []
    for (const index of indices) {
      const began = performance.now()
      await device.correct(port, registers[index], kept.get(index))
      ms.push(performance.now() - began)
      kept.delete(index)
    }
    return { ms }
  },

  // Which of the registers a new device gets whole from the server.
  async find({ port, refs, at_once }) {
    const found = []
    await inTurns(refs, at_once, async ([index, ref]) => {
      if (await device.has(port, registers[index], ref)) found.push(index)
    })
    return { found }
  },
}

process.on('unhandledRejection', (error) => console.error(error)) // of devices whose server was killed
process.on('uncaughtException', (error) => console.error(error))
console.log(JSON.stringify({ ready: true }))
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line)
  let answer
  try {
    answer = await commands[command.do](command)
  } catch (error) {
    answer = { error: String(error?.stack ?? error) }
  }
  console.log(JSON.stringify(answer))
}
process.exit(0)
