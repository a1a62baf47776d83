// Attacks on a sign-in that is under way: the real `ksb`, the real Keystone, one real browser with many tabs.
// Started by tests/it/real/attacks.rs in a home of its own. Environment: KSB_ATTACK_KSB (the program),
// KSB_ATTACK_SOCKET (its agent's), KSB_ATTACK_BROWSER (chromium | firefox), KSB_ATTACK_FRONT (N of ports 500N and
// 999N), KSB_ATTACK_VICTIM (a user), KSB_ATTACK_ONLY (part of a case's name), KSB_ATTACK_SHOTS (a directory for
// screenshots), NODE_EXTRA_CA_CERTS.
import { launch } from '../lib/launch.mjs'
import { Account, Site } from './attacker.mjs'
import { Broker } from './broker.mjs'
import { within } from './patience.mjs'
import { chapter } from './tabs.mjs'
import * as machine from './machine.mjs'
import * as port from './port.mjs'
import * as tabs from './foreign-tabs.mjs'
import * as terminal from './terminal.mjs'
import * as tokens from './tokens.mjs'

const env = process.env
const PATIENCE = 90_000 // for one case, on a machine that does much else

const front = Number(env.KSB_ATTACK_FRONT)
const keystone = `https://keystone.localhost:${5000 + front}/v3`
const callbackPort = 9990 + front
const victim = env.KSB_ATTACK_VICTIM

const broker = new Broker({ ksb: env.KSB_ATTACK_KSB, port: callbackPort, keystone, socket: env.KSB_ATTACK_SOCKET })
const account = (user) => new Account({ keystone, callback: broker.callback, user })
const mallory = account('mallory')
const site = await new Site().open()
const { browser, close, kind } = await launch({
  kind: env.KSB_ATTACK_BROWSER,
  // Firefox has no such switch that works.
  args: env.KSB_ATTACK_BROWSER === 'firefox' ? [] : ['--host-resolver-rules=MAP evil.example 127.0.0.1']
})

// What the victim got before. Keystone's times are whole seconds, so a moment is not enough.
const early = { token: await account(victim).token(), since: Date.now() }
const old = async () => {
  await new Promise((resolve) => setTimeout(resolve, Math.max(0, early.since + 4000 - Date.now())))
  return early.token
}
const world = { broker, kind, keystone, port: callbackPort, victim, account, mallory, site, old }

let failures = 0
for (const [name, attack] of [tabs, port, tokens, machine, terminal].flatMap((module) => Object.entries(module))) {
  if (!name.includes(env.KSB_ATTACK_ONLY ?? '')) continue
  chapter.name = name
  const began = Date.now()
  // A person's browser profile: cookies, storage and workers are apart from the other cases'.
  const contexts = [await browser.createBrowserContext()]
  const tab = () => contexts[0].newPage()
  // A tab of another profile.
  const stranger = async () => {
    contexts.push(await browser.createBrowserContext())
    return contexts.at(-1).newPage()
  }
  let outcome = 'ok'
  try {
    outcome = await within(attack({ ...world, tab, stranger }), 'its end', PATIENCE) ?? 'ok'
  } catch (error) {
    failures += 1
    outcome = `FAILED ${error.stack}`
  }
  console.log(`${kind}: ${name.replaceAll('_', ' ')}: ${outcome} (${((Date.now() - began) / 1000).toFixed(1)} s)`)
  for (const context of contexts) await context.close().catch(() => {})
  await broker.forget()
}
await close()
site.close()
process.exit(failures ? 1 : 0)
