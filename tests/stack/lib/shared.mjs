// One Chromium for many programs: each gets a window of its own, with its own cookies. The programs speak to it by a
// Unix socket, in lines of JSON: what is wanted there, `{log}` and at last the page at which it ended back.
import { createConnection, createServer } from 'node:net'
import { createInterface } from 'node:readline'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { camera } from './camera.mjs'
import { launch } from './launch.mjs'
import { visit } from './visit.mjs'

// Serves until `closed` resolves.
export async function serve (path, closed) {
  let chromium
  const server = createServer((socket) => {
    chromium ??= launch()
    answer(socket, chromium).catch((error) => socket.end(JSON.stringify({ broken: error.stack }) + '\n'))
  })
  rmSync(path, { force: true })
  await new Promise((resolve, reject) => server.once('error', reject).listen(path, resolve))
  console.log('ready')
  await closed
  rmSync(path, { force: true })
  if (chromium) await (await chromium).close()
}

async function answer (socket, chromium) {
  const say = (line) => { if (socket.writable) socket.write(JSON.stringify(line) + '\n') }
  const gone = new Promise((resolve) => socket.once('close', resolve).on('error', resolve))
  const wanted = JSON.parse(await new Promise((resolve) => createInterface({ input: socket }).once('line', resolve)))
  const window = await (await chromium).browser.createBrowserContext()
  // Sign-ins are session cookies; a profile keeps them until its next window.
  const jar = wanted.profile && join(wanted.profile, 'cookies.json')
  try {
    if (jar && existsSync(jar)) await window.setCookie(...JSON.parse(readFileSync(jar, 'utf8')))
    const page = await window.newPage()
    const end = visit(page, { ...wanted, shoot: camera(page, wanted.shots), log: (log) => say({ log }) })
    end.catch(() => {}) // once the program is gone, its window may break off
    const last = await Promise.race([end, gone])
    if (jar) {
      mkdirSync(wanted.profile, { recursive: true })
      writeFileSync(jar, JSON.stringify(await window.cookies()), { mode: 0o600 })
    }
    if (last) say({ end: last })
  } finally {
    await window.close()
    socket.end()
  }
}

// The program's side: the last page as a promise, and `close`, after which the window is gone.
export async function connect (path, wanted, log) {
  const socket = createConnection(path)
  const closed = new Promise((resolve) => socket.once('close', resolve))
  const end = new Promise((resolve, reject) => {
    socket.once('error', reject).once('close', () => reject(new Error('the shared browser hung up')))
    createInterface({ input: socket }).on('line', (line) => {
      const said = JSON.parse(line)
      if (said.log) log(said.log)
      if (said.end) resolve(said.end)
      if (said.broken) reject(new Error(said.broken))
    })
  })
  socket.write(JSON.stringify(wanted) + '\n')
  return { end, close: () => { socket.end(); return closed } }
}
