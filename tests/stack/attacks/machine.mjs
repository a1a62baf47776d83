// Programs of this machine that are no browser: other users', and junk.
import { spawn } from 'node:child_process'
import { Agent, request } from 'node:http'
import { createConnection } from 'node:net'
import { readFile } from 'node:fs/promises'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { accept, atIdentityProvider, go, signIn } from './tabs.mjs'

const NOBODY = 65534
const BROWSER = { 'Sec-Fetch-Dest': 'document', 'Sec-Fetch-Mode': 'navigate', 'Sec-Fetch-Site': 'none' }

// Another user of the machine who has read the link in the list of processes.
export async function another_user_of_the_machine ({ broker, tab, mallory, victim, port }) {
  if (process.getuid() !== 0) return 'skipped: only root can be somebody else'
  const attempt = await broker.begin()
  const real = await tab()
  const seen = []
  real.on('request', (sent) => seen.push(sent.url()))
  go(real, attempt.url)
  await atIdentityProvider(real)
  const begin = seen.find((url) => url.includes('/begin/'))
  const clean = seen.find((url) => url.includes('/clean/'))
  const form = new URLSearchParams({ token: await mallory.token() }).toString()
  const requests = ['127.0.0.1', '::1', '::ffff:127.0.0.1'].flatMap((address) => [
    { address, url: attempt.url }, { address, url: begin }, { address, url: clean },
    { address, url: broker.callback, form }
  ])
  requests.push({ socket: broker.socket, url: 'http://ksb/v1/status' })

  // The control: the very same requests are answered when they are ours.
  const ours = await ask(requests)
  for (const [index, { code }] of ours.entries()) {
    if (![200, 204].includes(code)) throw new Error(`${JSON.stringify(requests[index])} is not answered to us either: ${code}`)
  }
  const theirs = await ask(requests, ['setpriv', '--reuid', `${NOBODY}`, '--regid', `${NOBODY}`, '--clear-groups'])
  for (const [index, { code, bytes }] of theirs.entries()) {
    if (code || bytes) throw new Error(`${JSON.stringify(requests[index])} told another user ${bytes} bytes`)
  }
  await attempt.goesOn()
  // What we asked for as a control has cleaned the tab's origin for nobody: it was no browser.
  await signIn(real, victim, 'confirm')
  await accept(real)
  await attempt.endsAs(victim)
}

async function ask (requests, [program, ...args] = ['env']) {
  const script = fileURLToPath(new URL('ask.py', import.meta.url))
  // The system's Python, and by its text: the other user may be able to read neither ours nor this directory.
  const python = spawn(program, [...args, '/usr/bin/python3', '-c', await readFile(script, 'utf8'), JSON.stringify({ headers: BROWSER, requests })])
  const [out, err] = await Promise.all([text(python.stdout), text(python.stderr)])
  if (!out) throw new Error(`${program}: ${err}`)
  return JSON.parse(out)
}

// A thousand requests of no use and more connections than are served, left idle: it completes, when it was to.
export async function junk_in_numbers ({ broker, tab, victim, port }) {
  const attempt = await broker.begin()
  await attempt.goesOn()
  const idle = []
  for (let count = 0; count < 600; count++) {
    const socket = createConnection({ port, host: count % 2 ? '127.0.0.1' : '::1' })
    socket.on('error', () => {})
    // Some say nothing, some never end what they say.
    if (count % 3 === 0) socket.write('POST /auth/websso/ HTTP/1.1\r\nHost: localhost\r\nX-Slow:')
    if (count % 3 === 1) socket.write(`POST /auth/websso/ HTTP/1.1\r\nHost: localhost:${port}\r\nContent-Length: 9\r\n\r\n`)
    idle.push(once(socket, 'connect').catch(() => {}).then(() => socket))
  }
  const sockets = await Promise.all(idle)
  const real = await tab()
  go(real, attempt.url)
  await atIdentityProvider(real)

  const agent = new Agent({ keepAlive: true, maxSockets: 20 })
  const types = ['application/x-www-form-urlencoded', 'application/json', 'multipart/form-data; boundary=x', '']
  const bodies = ['', 'token=', 'token=gAAAAAnonsense', '{"claim":"0","id":"0","secret":"0"}', 'x'.repeat(70_000), 'token=a&token=b']
  const paths = ['/auth/websso/', '/claim', '/answer', '/begin/0', '/', '/auth/websso/?token=x']
  const answers = new Map()
  await Promise.all(Array.from({ length: 1000 }, async (_, count) => {
    const headers = { ...(count % 2 && BROWSER), 'content-type': types[count % types.length] }
    const sent = request({ port, host: '127.0.0.1', path: paths[count % paths.length], method: 'POST', agent, headers: { ...headers, host: `localhost:${port}` } })
    sent.end(bodies[count % bodies.length])
    const [answer] = await once(sent, 'response').catch((error) => [{ statusCode: error.code }])
    answer.resume?.()
    answers.set(answer.statusCode, (answers.get(answer.statusCode) ?? 0) + 1)
  }))
  agent.destroy()
  await attempt.goesOn()
  await signIn(real, victim, 'confirm')
  await accept(real)
  await attempt.endsAs(victim)
  for (const socket of sockets) socket.destroy()
  // Who sends too much is not listened to until the end.
  const expected = (status) => (status >= 200 && status < 500) || ['EPIPE', 'ECONNRESET'].includes(status)
  const odd = [...answers.keys()].filter((status) => !expected(status))
  if (odd.length) throw new Error(`junk was answered with ${odd}`)
}
