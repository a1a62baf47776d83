// The broker under attack: the real `ksb` in a home of its own, whose BROWSER opens nothing.
import { spawn } from 'node:child_process'
import { request } from 'node:http'
import { createConnection } from 'node:net'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { revoke } from './attacker.mjs'
import { looking, within } from './patience.mjs'

export class Broker {
  #running = new Set()

  constructor ({ ksb, port, keystone, socket }) {
    Object.assign(this, { ksb, port, keystone, socket })
    this.callback = `http://localhost:${port}/auth/websso/`
    this.environment = { ...process.env, BROWSER: 'true' }
  }

  // Runs `ksb` to its end.
  async run (...args) {
    const { code, out, err } = await within(this.#spawn(args).ended, `ksb ${args.join(' ')}`)
    return { code, out, err }
  }

  // `ksb login` (or what `args` says instead) that waits for its browser. `url` is what it asks to be opened.
  async begin (...args) {
    const command = this.#spawn(args.length ? args : ['login', 'demo'])
    const url = await command.says(/sign in: (http:\S+)/)
    return new Attempt(this, command, url)
  }

  // The same in a terminal of its own; `press` types.
  async beginInTerminal () {
    const python = 'import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))'
    const command = this.#spawn(['-c', python, this.ksb, 'login', 'demo'], 'python3')
    const url = await command.says(/sign in: (http:\S+)/)
    return new Attempt(this, command, url)
  }

  // The sign-in under way, as the agent tells it to whoever asks.
  async waiting () {
    const { out } = await this.run('status', '--json')
    return JSON.parse(out).sign_ins[0]
  }

  // A sign-in after the first one: Keystone has ended the session, and the agent remembers whose it was.
  async beginAgain () {
    const { out } = await this.run('token', 'demo', '--unscoped')
    await revoke(this.keystone, out.trim())
    return this.begin('token', 'demo')
  }

  // The tokens that the person would be offered in the terminal: the valid ones of what nobody has proven.
  async offers () {
    const { id } = await this.waiting()
    const sent = request({ socketPath: this.socket, path: `/v1/sign-ins/${id}/offers`, headers: { host: 'ksb' } }).end()
    const [answer] = await once(sent, 'response')
    const { offers } = JSON.parse(await text(answer))
    return offers.map((offer) => offer.user.name)
  }

  async signedIn () {
    const { out } = await this.run('status', '--json')
    return JSON.parse(out).sessions.map((session) => session.user.name)
  }

  // Forgets everybody, ends what waits, lets go of the port.
  async forget () {
    await this.run('logout', 'demo')
    for (const command of this.#running) command.kill()
    await free(this.port)
  }

  #spawn (args, program = this.ksb) {
    const command = new Command(spawn(program, args, { env: this.environment, stdio: ['pipe', 'pipe', 'pipe'] }))
    this.#running.add(command)
    command.ended.finally(() => this.#running.delete(command))
    return command
  }
}

// A sign-in that a command of the person's waits for.
class Attempt {
  constructor (broker, command, url) {
    Object.assign(this, { broker, command, url })
  }

  // Still under way, with the deadline it had; what the agent knows about it.
  async goesOn () {
    const now = await this.broker.waiting()
    if (!now) throw new Error(`the sign-in is over: ${JSON.stringify(await this.command.ended)}`)
    this.deadline ??= now.deadline
    if (now.deadline !== this.deadline) throw new Error(`the deadline moved from ${this.deadline} to ${now.deadline}`)
    return now
  }

  // Ends well, as this user.
  async endsAs (user) {
    const { code, out, err } = await within(this.command.ended, () => `the end of ${this.command.said}`)
    const signedIn = await this.broker.signedIn()
    if (code !== 0 || signedIn.join() !== user) {
      throw new Error(`expected to end as ${user}, not with ${code} and ${signedIn}:\n${out}\n${err}`)
    }
    return { out, err }
  }

  press (keys) {
    this.command.child.stdin.write(keys)
  }
}

class Command {
  #out = ''
  #err = ''
  #listeners = new Set()

  constructor (child) {
    this.child = child
    const hear = (text) => { for (const listener of this.#listeners) listener(text) }
    child.stdout.on('data', (text) => { this.#out += text; hear() })
    child.stderr.on('data', (text) => { this.#err += text; hear() })
    child.stdin.on('error', () => {})
    this.ended = once(child, 'close').then(([code]) => ({ code, out: this.#out, err: this.#err }))
    this.ended.then(hear)
  }

  // Waits until it has printed this; the first group of the match.
  says (pattern) {
    const said = new Promise((resolve, reject) => {
      const done = (settle, value) => { this.#listeners.delete(look); settle(value) }
      const look = () => {
        const match = pattern.exec(this.#err) ?? pattern.exec(this.#out)
        if (match) done(resolve, match[1] ?? match[0])
        else if (this.child.exitCode !== null) done(reject, new Error(`it ended without saying ${pattern}:\n${this.#out}\n${this.#err}`))
      }
      this.#listeners.add(look)
      look()
    })
    return within(said, () => `${pattern} in ${this.said}`)
  }

  get said () {
    return this.#out + this.#err
  }

  kill () {
    this.child.kill('SIGKILL')
  }
}

// Returns when nobody listens on the port.
async function free (port) {
  const taken = () => new Promise((resolve) => {
    const socket = createConnection({ port, host: '127.0.0.1' })
    socket.on('connect', () => { socket.destroy(); resolve(true) }).on('error', () => resolve(false))
  })
  await looking(`port ${port} to be free`, async () => !await taken())
}
