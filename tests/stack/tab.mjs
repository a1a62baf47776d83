// A person whose tab keeps them signed in: opens the URL given last, signs in, ticks the box, and works in another tab.
// A line on stdin is what happens next (`look`, `freeze`, `thaw`, `forget`, `sign in`, `close`), a line of JSON on stdout
// what is seen then. Background timers are throttled after a second, as hard as Chromium ever does it.
import { createInterface } from 'node:readline'
import { join } from 'node:path'
import { mkdirSync } from 'node:fs'
import { launch } from './lib/launch.mjs'
import { signInAtKeycloak } from './lib/keycloak.mjs'

const env = process.env
const PATIENCE = 60_000
const { browser, close } = await launch({
  throttled: true,
  args: ['--enable-features=IntensiveWakeUpThrottling:grace_period_seconds/1']
})
const tab = (await browser.pages())[0] ?? await browser.newPage()
const devtools = await tab.createCDPSession()

async function shoot (name) {
  if (!env.KSB_BROWSER_SHOTS) return
  mkdirSync(env.KSB_BROWSER_SHOTS, { recursive: true })
  await tab.screenshot({ path: join(env.KSB_BROWSER_SHOTS, `${name}.png`), fullPage: true })
}

// Until the last page is there, with whatever is asked on the way.
async function signIn () {
  const keycloak = signInAtKeycloak(tab, env.KSB_BROWSER_USER)
  const end = Date.now() + PATIENCE
  let accepted = false
  try {
    while (Date.now() < end) {
      const state = await tab.evaluate(() => document.body?.dataset.ksbState).catch(() => null)
      if (state === 'done') return
      if (state === 'confirm' && !accepted) {
        await tab.click('#ksb-accept')
        accepted = true
      } else if (state === undefined) {
        await keycloak.answer().catch(() => {})
      }
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    throw new Error(`stuck at ${tab.url()}`)
  } finally {
    await keycloak.close()
  }
}

// Counts a timer's ticks in the tab, to show that it is throttled.
const count = () => tab.evaluate(() => {
  window.ticks = 0
  setInterval(() => { window.ticks += 1 }, 100)
})

const acts = {
  look: async () => {},
  freeze: () => devtools.send('Page.setWebLifecycleState', { state: 'frozen' }),
  thaw: () => devtools.send('Page.setWebLifecycleState', { state: 'active' }),
  // Signed out everywhere: the identity provider asks again.
  forget: async () => browser.deleteCookie(...await browser.cookies()),
  'sign in': signIn,
  close: () => tab.close()
}

async function see (act) {
  if (['freeze', 'close'].includes(act)) return { act }
  const front = await work.evaluate(() => ({ visible: document.visibilityState, focus: document.hasFocus() }))
  const seen = await tab.evaluate(() => ({
    title: document.title,
    state: document.body?.dataset.ksbState,
    kept: document.body?.dataset.ksbKept,
    visible: document.visibilityState,
    focus: document.hasFocus(),
    ticks: window.ticks
  })).catch((error) => ({ error: error.message }))
  return { act, url: tab.url(), ...seen, front }
}

const say = (what) => process.stdout.write(JSON.stringify(what) + '\n')

tab.goto(process.argv.at(-1)).catch(() => {})
await signIn()
await shoot('offered')
await tab.click('#ksb-keep-box')
await tab.waitForFunction(() => document.body.dataset.ksbKept === 'true', { timeout: PATIENCE, polling: 100 })
await shoot('kept')
await count()
const work = await browser.newPage()
await work.goto('data:text/html,<title>Work</title><textarea autofocus>')
await work.bringToFront()
say(await see('open'))
for await (const act of createInterface({ input: process.stdin })) {
  await acts[act]()
  if (act === 'look') await shoot(`look-${Date.now()}`)
  say(await see(act))
}
await close()
