// One sign-in in a browser's tab: opens the URL, signs the user in at Keycloak and answers the broker's pages.
import { signInAtKeycloak } from './keycloak.mjs'
import { refusals } from './states.mjs'

const PAUSE = 50

// The page went away while it was looked at: look again.
const isNavigation = (error) =>
  /context|detached|navigat|frame|no such|target closed|DiscardedBrowsingContext|Cannot find|JSHandle/i.test(error.message)

const look = (page) => page.evaluate(() => ({
  ready: document.readyState !== 'loading',
  state: document.body?.dataset.ksbState,
  text: document.body?.innerText ?? ''
}))

// One look at the page and, if there is something to do, one act. Returns the state that ended it all, or nothing.
async function step (page, keycloak, { decline, shoot }) {
  if (page.url() === 'about:blank') return
  const { ready, state, text } = await look(page)
  if (!ready) return
  const { host, pathname } = new URL(page.url())
  await shoot(state ?? `${host.replace(/\..*/, '')}-${pathname.split('/').at(-1)}`)
  if (state === 'done' || refusals.includes(state)) return { state, text }
  if (state === 'confirm') {
    // It takes no answer in its first moments, and only one.
    const button = decline ? '#ksb-decline' : '#ksb-accept'
    await page.$$eval(`${button}[aria-disabled="false"]`, ([button]) => button?.click())
  } else if (state === undefined && !await keycloak.answer() && /device login successful/i.test(text)) {
    return { state: 'done', text }
  }
}

// options: url, user, decline, milliseconds, shoot (is called with a name for what the page shows), log.
// Returns { state, text, url } of the last page; the state is `stuck` if the time is over.
export async function visit (page, { url, user, decline = false, milliseconds, shoot = async () => {}, log = () => {} }) {
  const began = Date.now()
  const keycloak = signInAtKeycloak(page, user)
  // A page that never ends to load must not stop the user from looking at it.
  page.goto(url, { waitUntil: 'domcontentloaded', timeout: milliseconds }).catch((error) => log(`goto ${error.message}`))
  try {
    while (Date.now() - began < milliseconds) {
      try {
        const end = await step(page, keycloak, { decline, shoot })
        if (end) return { ...end, url: page.url() }
      } catch (error) {
        if (!isNavigation(error)) throw error
      }
      await new Promise((resolve) => setTimeout(resolve, PAUSE))
    }
    await shoot('stuck')
    const { text } = await look(page).catch(() => ({ text: '(no page)' }))
    return { state: 'stuck', text, url: page.url() }
  } finally {
    await keycloak.close()
  }
}
