// Pages of the attacker's in the same browser that try to make the victim use the attacker's account.
import { within } from './patience.mjs'
import { accept, atIdentityProvider, decline, go, names, shows, signIn, until } from './tabs.mjs'

// Another tab has no secret: its token is not used, and the real sign-in goes on.
export async function another_tab_posts_the_attackers_own_token ({ broker, tab, site, mallory, victim }) {
  const attempt = await broker.begin()
  const real = await tab()
  go(real, attempt.url)
  await atIdentityProvider(real)
  await attempt.goesOn()

  const other = await tab()
  go(other, site.posting(await mallory.token(), broker.callback))
  await shows(other, 'unproven')
  // The same with the origin that the attacker's site has: that is not Keystone's.
  go(other, site.posting(await mallory.token(), broker.callback, { referrer: 'unsafe-url' }))
  await shows(other, 'refused')
  await attempt.goesOn()

  await real.bringToFront()
  names((await signIn(real, victim, 'confirm')).text, victim)
  await accept(real)
  await attempt.endsAs(victim)
}

// A page that is loaded later in the tab that has the secret, and a popup, which gets a copy of it: the person is
// asked and sees another name.
export async function a_link_followed_in_the_same_tab ({ broker, tab, site, mallory, victim }) {
  const attempt = await broker.begin()
  const real = await tab()
  go(real, attempt.url)
  await atIdentityProvider(real)
  go(real, site.posting(await mallory.token(), broker.callback))
  names((await shows(real, 'confirm')).text, 'mallory')
  if ((await attempt.goesOn()).state !== 'confirming') throw new Error('the agent does not say that it asks')
  await decline(real)
  await attempt.goesOn()

  // Back to where the link was: the tab still has its secret.
  await until(real, 'the identity provider', async (now) => {
    if (!now.url.includes('/realms/')) await real.goBack({ waitUntil: 'domcontentloaded' }).catch(() => {})
    return now.url.includes('/realms/')
  })
  names((await signIn(real, victim, 'confirm')).text, victim)
  await accept(real)
  const { err } = await attempt.endsAs(victim)
  if (!err.includes('mallory (lab) was declined') && !err.includes('mallory was declined')) throw new Error(`the terminal does not tell: ${err}`)
}

export async function a_popup_of_the_tab ({ broker, tab, site, mallory, victim }) {
  const attempt = await broker.begin()
  const real = await tab()
  go(real, attempt.url)
  await atIdentityProvider(real)
  const popup = await popupFrom(real, site, site.posting(await mallory.token(), broker.callback))
  // Chromium copies the tab's storage into it, Firefox only when its opener is of that origin.
  const { state, text } = await until(popup, 'an end', (now) => ['confirm', 'unproven'].includes(now.state))
  if (state === 'confirm') {
    names(text, 'mallory')
    await decline(popup)
  }
  await attempt.goesOn()

  await real.bringToFront()
  go(real, attempt.url)
  await signIn(real, victim, 'confirm')
  await accept(real)
  await attempt.endsAs(victim)
  return `ok, the popup: ${state}`
}

// Nobody is asked when the agent knows whose session it was.
export async function with_a_pinned_user_nobody_is_asked ({ broker, tab, stranger, site, mallory, victim }) {
  const first = await broker.begin()
  const before = await tab()
  go(before, first.url)
  await signIn(before, victim, 'confirm')
  await accept(before)
  await first.endsAs(victim)

  const attempt = await broker.beginAgain()
  const real = await stranger()
  go(real, attempt.url)
  await atIdentityProvider(real)
  const popup = await popupFrom(real, site, site.posting(await mallory.token(), broker.callback))
  await until(popup, 'a refusal', (now) => ['wrong-user', 'unproven'].includes(now.state))
  go(real, site.posting(await mallory.token(), broker.callback))
  const { text } = await shows(real, 'wrong-user')
  if (!text.includes('mallory') || !text.includes(victim)) throw new Error(`the page does not say who is who: ${text}`)
  await attempt.goesOn()

  // The person signed in as somebody else by mistake.
  go(real, attempt.url)
  await signIn(real, 'mallory', 'wrong-user')
  await attempt.goesOn()

  // The right one, in a browser that is still signed in: comes back by itself and is not asked.
  await before.bringToFront()
  go(before, attempt.url)
  await shows(before, 'done')
  await attempt.endsAs(victim)
}

// Whoever can read the list of processes knows the link; a page of his in the victim's browser opens it itself.
export async function a_page_that_knows_the_link_opens_it ({ broker, tab, site, mallory, victim }) {
  const attempt = await broker.begin()
  const posting = site.posting(await mallory.token(), broker.callback)
  const evil = await tab()
  await evil.goto(site.page('<button>Go</button>'))
  await evil.evaluate((url, next) => {
    document.querySelector('button').onclick = () => {
      const popup = window.open(url)
      // By the time that it is at the identity provider, it has the secret.
      window.drive = () => { popup.location = next; return popup.closed }
    }
  }, attempt.url, posting)
  const real = await opened(evil, () => evil.click('button'))
  await atIdentityProvider(real)
  const lost = await evil.evaluate(() => window.drive())
  if (!lost) throw new Error('the page still has a hold of the tab')
  await attempt.goesOn()
  await signIn(real, victim, 'confirm')
  await accept(real)
  await attempt.endsAs(victim)
}

async function opened (page, act) {
  const popup = new Promise((resolve) => page.once('popup', resolve))
  await act()
  return within(popup, 'a popup')
}

// A link of the attacker's in this tab that opens another one, which is not cut off from it.
async function popupFrom (page, site, url) {
  await page.goto(site.page(`<a href="${url}" target="_blank" rel="opener">Your prize</a>`))
  return opened(page, () => page.click('a'))
}
