// The user at the browser: opens the URL that a program wants opened, signs in, answers the broker's pages.
// README.md lists the environment variables. Exit: 0 done, 1 the broker said no, 2 stuck, 3 the browser failed.
import { appendFileSync } from 'node:fs'
import { visit as visitByHttp } from './lib/http.mjs'
import { jarOf } from './lib/jar.mjs'
import { refusals } from './lib/states.mjs'

const env = process.env
const wanted = {
  url: process.argv.at(-1),
  user: env.KSB_BROWSER_USER || 'alice',
  decline: env.KSB_BROWSER_ANSWER === 'decline',
  milliseconds: Number(env.KSB_BROWSER_TIMEOUT || 60) * 1000,
  profile: env.KSB_BROWSER_PROFILE,
  shots: env.KSB_BROWSER_SHOTS
}
const kind = env.KSB_BROWSER || 'chromium'
const began = Date.now()

const log = (line) => {
  if (env.KSB_BROWSER_LOG) appendFileSync(env.KSB_BROWSER_LOG, `${new Date().toISOString()} ${process.pid} ${line}\n`)
}

// Each takes what is wanted, and returns `end`, the last page as a promise, and `close`.
const browsers = {
  // Without a screen: see lib/http.mjs. A page on which there is nothing to do stays open, as a tab would.
  async http () {
    const jar = jarOf(wanted.profile)
    const end = visitByHttp({ ...wanted, jar }).then(async (end) => {
      if (end.state !== 'stuck') return end
      await new Promise((resolve) => setTimeout(resolve, began + wanted.milliseconds - Date.now()))
      return end
    })
    return { end, close: async () => jar.save() }
  },

  // A window of the Chromium that the tests share.
  async shared () {
    const { connect } = await import('./lib/shared.mjs')
    return connect(env.KSB_BROWSER_SERVER, wanted, log)
  },

  // One of its own.
  async own () {
    const [{ launch }, { camera }, { visit }] =
      await Promise.all(['launch', 'camera', 'visit'].map((name) => import(`./lib/${name}.mjs`)))
    const { browser, close } = await launch({
      kind,
      profile: wanted.profile,
      args: (env.KSB_BROWSER_ARGS || '').split(/\s+/).filter(Boolean),
      visible: env.KSB_BROWSER_VISIBLE === '1' && Boolean(env.DISPLAY || env.WAYLAND_DISPLAY)
    })
    const page = (await browser.pages())[0] ?? await browser.newPage()
    return { end: visit(page, { ...wanted, shoot: camera(page, wanted.shots), log }), close }
  }
}

function choose () {
  if (kind === 'http') return 'http'
  return kind === 'chromium' && env.KSB_BROWSER_SERVER && !env.KSB_BROWSER_ARGS ? 'shared' : 'own'
}

async function main () {
  log(`open ${wanted.url}`)
  const { end, close } = await browsers[choose()]()
  const hangUp = async () => { log('end killed'); await close(); process.exit(143) }
  process.once('SIGTERM', hangUp)
  process.once('SIGINT', hangUp)
  try {
    const { state, text, url } = await end
    log(`end ${state} ${((Date.now() - began) / 1000).toFixed(1)}s ${url}`)
    if (state === 'done') return 0
    console.error(`browser: ${state} at ${url}\n${text.trim()}`)
    return refusals.includes(state) ? 1 : 2
  } finally {
    await close()
  }
}

try {
  process.exitCode = await main()
} catch (error) {
  log(`end broken ${error.message.split('\n')[0]}`)
  console.error(error)
  process.exitCode = 3
}
