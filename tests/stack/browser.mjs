// The person at the browser: opens the URL that a program wants opened, signs in, answers the broker's pages.
// README.md lists the environment variables. Exit: 0 done, 1 the broker said no, 2 stuck, 3 the browser failed.
import { appendFileSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { launch } from './lib/launch.mjs'
import { signInAtKeycloak } from './lib/keycloak.mjs'

const env = process.env
const url = process.argv.at(-1)
const user = env.KSB_BROWSER_USER || 'alice'
const patience = Number(env.KSB_BROWSER_TIMEOUT || 60) * 1000
const refusals = ['refused', 'unproven', 'expired', 'wrong-user', 'declined', 'failed']
const began = Date.now()

const log = (line) => {
  if (env.KSB_BROWSER_LOG) appendFileSync(env.KSB_BROWSER_LOG, `${new Date().toISOString()} ${process.pid} ${line}\n`)
}

// Numbered screenshots, one for each page that looks new.
function camera (page) {
  let count = 0
  let last
  return async (name) => {
    if (!env.KSB_BROWSER_SHOTS || name === last) return
    last = name
    mkdirSync(env.KSB_BROWSER_SHOTS, { recursive: true })
    const file = `${String(++count).padStart(2, '0')}-${name.replace(/[^a-z0-9]+/gi, '-').slice(0, 60)}.png`
    // A page that moves on while its picture is taken may never give it: the person goes on.
    const picture = page.screenshot({ path: join(env.KSB_BROWSER_SHOTS, file) }).catch(() => {})
    await Promise.race([picture, new Promise((resolve) => setTimeout(resolve, 2000))])
  }
}

const look = (page) => page.evaluate(() => ({
  ready: document.readyState !== 'loading',
  state: document.body?.dataset.ksbState,
  text: document.body?.innerText ?? ''
}))

// One look at the page and, if there is something to do, one act. Returns the state that ended it all, or nothing.
async function step (page, keycloak, shoot, clicked) {
  if (page.url() === 'about:blank') return
  const { ready, state, text } = await look(page)
  if (!ready) return
  const { host, pathname } = new URL(page.url())
  await shoot(state ?? `${host.replace(/\..*/, '')}-${pathname.split('/').at(-1)}`)
  if (state === 'done') return { state, text }
  if (refusals.includes(state)) return { state, text }
  if (state === 'confirm') {
    const button = env.KSB_BROWSER_ANSWER === 'decline' ? '#ksb-decline' : '#ksb-accept'
    if (clicked.has(page.url())) return
    clicked.add(page.url())
    await page.click(button)
  } else if (state === undefined && !await keycloak.answer() && /device login successful/i.test(text)) {
    return { state: 'done', text }
  }
}

async function person (page) {
  const keycloak = signInAtKeycloak(page, user)
  const shoot = camera(page)
  const clicked = new Set()
  // A page that never ends to load must not stop the person from looking at it.
  page.goto(url, { waitUntil: 'domcontentloaded', timeout: patience }).catch((error) => log(`goto ${error.message}`))
  try {
    while (Date.now() - began < patience) {
      try {
        const end = await step(page, keycloak, shoot, clicked)
        if (end) return end
      } catch (error) {
        if (!isNavigation(error)) throw error
      }
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    await shoot('stuck')
    return { state: 'stuck', text: (await look(page).catch(() => ({ text: '(no page)' }))).text }
  } finally {
    await keycloak.close()
  }
}

// The page went away while it was looked at: look again.
const isNavigation = (error) =>
  /context|detached|navigat|frame|no such|target closed|DiscardedBrowsingContext|Cannot find|JSHandle/i.test(error.message)

async function main () {
  log(`open ${url}`)
  const { browser, close } = await launch({
    kind: env.KSB_BROWSER || 'chromium',
    profile: env.KSB_BROWSER_PROFILE,
    args: (env.KSB_BROWSER_ARGS || '').split(/\s+/).filter(Boolean),
    visible: env.KSB_BROWSER_VISIBLE === '1' && Boolean(env.DISPLAY || env.WAYLAND_DISPLAY)
  })
  const hangUp = async () => { log('end killed'); await close(); process.exit(143) }
  process.once('SIGTERM', hangUp)
  process.once('SIGINT', hangUp)
  try {
    const page = (await browser.pages())[0] ?? await browser.newPage()
    const { state, text } = await person(page)
    log(`end ${state} ${((Date.now() - began) / 1000).toFixed(1)}s ${page.url()}`)
    if (state === 'done') return 0
    console.error(`browser: ${state} at ${page.url()}\n${text.trim()}`)
    return state === 'stuck' ? 2 : 1
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
