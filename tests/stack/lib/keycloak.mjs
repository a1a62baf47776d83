// Keycloak's pages, answered as a person would. `answer` is called with whatever page is shown, again and again.
import { authenticator, turn } from './passkey.mjs'
import { password, settings, totpKey } from './settings.mjs'
import { totp } from './totp.mjs'

// A person's answers at the identity provider. One per sign-in; close() it in the end.
export function signInAtKeycloak (page, user) {
  let passkey, release, spent
  const done = async () => {
    await release?.()
    release = undefined
  }

  // True when there was something to do on this page.
  async function answer () {
    if (!page.url().startsWith(settings.idp)) {
      await done()
      return false
    }
    if (await page.$('#password')) {
      const form = await page.$('#username')
      if (form) await type(page, '#username', user)
      await type(page, '#password', password(user))
      await follow(page, '#kc-login')
      return true
    }
    if (await page.$('#kc-otp-login-form')) {
      // A code counts once: after a refusal the person waits for the next one.
      const code = totp(totpKey(user))
      if (code === spent) return false
      spent = code
      await type(page, '#otp', code)
      await follow(page, '#kc-login')
      return true
    }
    if (await page.$('#authenticateWebAuthnButton')) {
      release ??= await turn()
      passkey ??= await authenticator(page)
      await passkey.present()
      await follow(page, '#authenticateWebAuthnButton')
      if (!page.url().startsWith(settings.idp)) await done()
      return true
    }
    // "Do you grant these access privileges?" to a device's client
    if (await page.$('form[action*="oauth_grant"] #kc-login, #kc-oauth #kc-login')) {
      await follow(page, '#kc-login')
      return true
    }
    return false
  }
  return { answer, close: done }
}

// Setting the value at once is what a password manager does, and does not take a round trip per key.
const type = (page, selector, text) =>
  page.$eval(selector, (field, value) => { field.value = value }, text)

// Clicks, and waits for the page that follows.
async function follow (page, selector) {
  await Promise.all([
    page.waitForNavigation({ waitUntil: 'domcontentloaded', timeout: 30_000 }),
    page.$eval(selector, (button) => button.click())
  ])
}
