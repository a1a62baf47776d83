// Signs alice in for the first time, so that Keycloak lets her register a passkey; `stack up` runs it once.
import { launch } from './lib/launch.mjs'
import { signInAtKeycloak } from './lib/keycloak.mjs'
import { registered } from './lib/passkey.mjs'

const [, , url, picture] = process.argv
const { browser, close } = await launch()
const [page] = await browser.pages()
const keycloak = signInAtKeycloak(page, 'alice')
const deadline = Date.now() + 180_000
try {
  await page.goto(url, { waitUntil: 'domcontentloaded' })
  while (!registered()) {
    if (Date.now() > deadline) throw new Error('no passkey after 3 minutes')
    await keycloak.answer()
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
} catch (error) {
  console.error(error, page.url(), await page.evaluate(() => document.body.innerText).catch(() => ''))
  await page.screenshot({ path: picture }).catch(() => {})
  process.exitCode = 1
} finally {
  await close()
}
