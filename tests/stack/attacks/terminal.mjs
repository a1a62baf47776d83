// A browser that can prove nothing, and the person at the terminal.
import { password } from '../lib/settings.mjs'
import { go, shoot, shows, signIn, until } from './tabs.mjs'

// Without JavaScript, or in a tab that did not come by the start page, a code is shown, and the person types c where
// `ksb login` waits. What is asked there is never unasked, and every line but y or yes is a no.
export async function without_a_proof_the_terminal_decides ({ broker, tab, site, mallory, victim, keystone, kind }) {
  const attempt = await broker.beginInTerminal()
  const real = await tab()
  if (kind === 'firefox') {
    // It offers no way to turn scripts off.
    go(real, `${keystone}/auth/OS-FEDERATION/websso/openid?origin=${encodeURIComponent(broker.callback)}`)
    await signIn(real, victim, 'unproven')
  } else {
    await real.setJavaScriptEnabled(false)
    go(real, attempt.url)
    await follow(real, 'go on without it')
    await follow(real, 'Go on to')
    await signInWithoutScripts(real, victim)
  }
  const { text } = await until(real, 'the code', (now) => code(now.text))
  await shoot(real, 'code')
  await attempt.goesOn()

  attempt.press('c')
  const question = await attempt.command.says(/Does your page show the code [^\n]*\[y\/N\]/)
  if (!question.includes(code(text)) || !question.includes(`${victim} `)) throw new Error(`${question} about ${code(text)}`)
  attempt.press('\n')
  await attempt.command.says(/\[y\/N\] \s*\n/)
  await attempt.goesOn()

  // A page of the attacker's waits too by now: both are offered, each with its name and its code.
  const other = await tab()
  go(other, site.posting(await mallory.token(), broker.callback))
  await shows(other, 'unproven')
  attempt.press('c')
  await attempt.command.says(new RegExp(`\\[y/N\\] \\s*\\n[^]*code ${code(text)}[^]*\\[y/N\\]`))
  attempt.press('n\n')
  await attempt.command.says(/you want to be mallory [^\n]*\[y\/N\]/)
  attempt.press(' \n')
  await attempt.command.says(/mallory [^\n]*\[y\/N\] \s*\n/)
  await attempt.goesOn()

  attempt.press('c')
  await attempt.command.says(new RegExp(`mallory[^]*code ${code(text)}[^]*\\[y/N\\]`))
  attempt.press('y\n')
  await attempt.endsAs(victim)
}

const code = (text) => /^\s*([2-9A-HJ-NP-Z]{6})\s*$/m.exec(text)?.[1]

// Clicks a link by its text, and waits for the page that follows.
async function follow (page, text) {
  await until(page, text, (now) => now.text.includes(text))
  const links = await page.$$('a')
  for (const link of links) {
    if ((await link.evaluate((element) => element.innerText)).includes(text)) return link.click()
  }
  throw new Error(`no link says ${text}`)
}

// Keystone's page has a button for browsers that run no scripts.
async function signInWithoutScripts (page, user) {
  await until(page, 'the page that answers', async (now) => {
    if (now.url.includes('/auth/websso/')) return true
    if (await page.$('#password')) {
      await page.type('#username', user)
      await page.type('#password', password(user))
      await page.click('#kc-login')
    } else if (now.url.includes(':500')) {
      await page.click('noscript input, noscript button, input[type=submit]').catch(() => {})
    }
    return false
  })
}
