// Tokens in the tab that has the secret, none of which is what this sign-in asked for.
import { accept, atIdentityProvider, go, shows, signIn } from './tabs.mjs'

export async function tokens_that_this_sign_in_did_not_ask_for ({ broker, tab, site, victim, account, old }) {
  const early = await old()
  const attempt = await broker.begin()
  const real = await tab()
  go(real, attempt.url)
  await atIdentityProvider(real)
  const self = account(victim)
  const refusals = [
    [early, 'older than this sign-in'],
    [await self.rescoped(await self.token(), 'demo'), 'does not come from a browser sign-in'],
    [await self.token('other-idp'), 'it comes from other-idp by openid'],
    ['gAAAAAnonsense', 'Keystone does not know it']
  ]
  for (const [token, why] of refusals) {
    go(real, site.posting(token, broker.callback))
    const { text } = await shows(real, 'refused')
    if (!text.includes(why)) throw new Error(`not refused as expected (${why}): ${text}`)
    await attempt.goesOn()
    // Somewhere else, so that the next page is not taken for this one.
    await real.goto(site.page(''))
  }
  go(real, attempt.url)
  await signIn(real, victim, 'confirm')
  await accept(real)
  const { err } = await attempt.endsAs(victim)
  for (const [, why] of refusals) {
    if (!err.includes(why)) throw new Error(`the terminal does not tell ${why}:\n${err}`)
  }
}
