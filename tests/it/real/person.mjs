// The people of world.rs: one browser with a private window for each of them, which stays open. Reads lines of
// {"id", "url", "person"}, opens the URL in a tab of that person, and answers {"id", "state"}: the last page's.
import { createInterface } from 'node:readline'

const lib = process.env.KSB_STACK_BROWSER_LIB
const { launch } = await import(`${lib}/launch.mjs`)
const { signInAtKeycloak } = await import(`${lib}/keycloak.mjs`)

const PATIENCE = 60_000
const PAUSE = 50
const ends = ['done', 'refused', 'unproven', 'expired', 'wrong-user', 'declined', 'failed']
// The page went away while it was looked at.
const isNavigation = (error) => /context|detached|navigat|frame|target closed|Cannot find|JSHandle/i.test(error.message)

async function signIn (page, keycloak) {
  const state = await page.evaluate(() => document.readyState === 'loading' ? 'starting' : document.body?.dataset.ksbState)
  if (ends.includes(state)) return state
  if (state === 'confirm') {
    // It takes no answer in its first moments, and only one.
    await page.$$eval('#ksb-accept[aria-disabled="false"]', ([button]) => button?.click())
  } else if (state === undefined && page.url() !== 'about:blank') {
    await keycloak.answer()
  }
}

async function browse (context, url, person) {
  const page = await context.newPage()
  const keycloak = signInAtKeycloak(page, person)
  const began = Date.now()
  page.goto(url, { waitUntil: 'domcontentloaded' }).catch(() => {})
  try {
    while (Date.now() - began < PATIENCE) {
      try {
        const end = await signIn(page, keycloak)
        if (end) return end
      } catch (error) {
        if (!isNavigation(error)) throw error
      }
      await new Promise((resolve) => setTimeout(resolve, PAUSE))
    }
    return `stuck at ${page.url()}: ${await page.evaluate(() => document.body?.innerText)}`
  } finally {
    await keycloak.close()
    await page.close()
  }
}

const { browser, close } = await launch()
const contexts = new Map()
const open = new Set()
for await (const line of createInterface({ input: process.stdin })) {
  const { id, url, person } = JSON.parse(line)
  if (!contexts.has(person)) contexts.set(person, browser.createBrowserContext())
  const answer = contexts.get(person)
    .then((context) => browse(context, url, person))
    .catch((error) => `broken: ${error.stack}`)
    .then((state) => { console.log(JSON.stringify({ id, state })); open.delete(answer) })
  open.add(answer)
}
await Promise.all(open)
await close()
