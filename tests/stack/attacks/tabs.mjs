// What a person sees and does in a tab.
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { signInAtKeycloak } from '../lib/keycloak.mjs'
import { settings } from '../lib/settings.mjs'
import { PATIENCE, looking, within } from './patience.mjs'

// The page as it is now; while one goes and the next comes there is none. One that has gone may never answer.
export const look = (page) => within(page.evaluate(() => ({
  ready: document.readyState !== 'loading',
  url: location.href,
  state: document.body?.dataset.ksbState,
  text: document.body?.innerText ?? ''
})), 'the page', PATIENCE / 6).catch(() => ({ ready: false, url: page.url(), text: '' }))

// Waits until `seen` says that the page is the one.
export async function until (page, what, seen) {
  let last
  return looking(() => `${what}, but there is ${last.state ?? 'no state'} at ${last.url}:\n${last.text}`, async () => {
    last = await look(page)
    return last.ready && await seen(last) && last
  })
}

// One of the broker's own pages in this state.
export const shows = async (page, state) => {
  const seen = await until(page, `the state ${state}`, (now) => now.state === state)
  await shoot(page, state)
  return seen
}

export const atIdentityProvider = (page) =>
  until(page, 'the identity provider', (now) => now.url.startsWith(settings.idp) && page.$('#password'))

// Signs in at the identity provider if it asks, and waits for this state of the broker's page.
export async function signIn (page, user, state) {
  const keycloak = signInAtKeycloak(page, user)
  const seen = await until(page, `${state} after ${user} signed in`, async (now) => {
    if (now.state === state) return true
    if (now.state === undefined) await keycloak.answer().catch(() => {})
    return false
  })
  await shoot(page, state)
  return seen
}

// The person reads whose sign-in it is.
export const names = (text, user) => {
  if (!text.includes(`Use ${user} `)) throw new Error(`the question is not about ${user}:\n${text}`)
}

export const accept = (page) => answer(page, '#ksb-accept', 'done')
export const decline = (page) => answer(page, '#ksb-decline', 'declined')

async function answer (page, button, state) {
  await page.bringToFront()
  await shows(page, 'confirm')
  // Coming to the front makes the page deaf to clicks for a moment: click until it listens.
  return until(page, `the state ${state}`, async (now) => {
    if (now.state === 'confirm') await page.click(button).catch(() => {})
    return now.state === state
  })
}

// Opens an address without waiting for what becomes of it.
export const go = (page, url) => { page.goto(url, { waitUntil: 'domcontentloaded', timeout: PATIENCE }).catch(() => {}) }

// Screenshots, numbered, if asked for.
let count = 0
export let chapter = { name: '' }
export async function shoot (page, what) {
  const folder = process.env.KSB_ATTACK_SHOTS
  if (!folder) return
  mkdirSync(folder, { recursive: true })
  const name = `${String(++count).padStart(3, '0')}-${chapter.name}-${what}`.replace(/[^a-z0-9]+/gi, '-').slice(0, 100)
  await page.screenshot({ path: join(folder, `${name}.png`) }).catch(() => {})
}
