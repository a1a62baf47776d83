// Pages that try the facade: of another site, of another port of this machine, and of a name that leads here (DNS
// rebinding). Each knows the lease's secret and a token of it, which is more than it could. Nothing may come back.
// Started by tests/it/real/facade_attacks.rs. Environment: KSB_FACADE_PORT, KSB_FACADE_BODY (what a program would post,
// with one `=` in it), KSB_FACADE_TOKEN, KSB_ATTACK_BROWSER (chromium | firefox), NODE_EXTRA_CA_CERTS.
import { launch } from '../lib/launch.mjs'
import { Site } from './attacker.mjs'
import { Relay } from './relay.mjs'
import { within } from './patience.mjs'

const env = process.env
const port = Number(env.KSB_FACADE_PORT)
const secrets = { body: env.KSB_FACADE_BODY, token: env.KSB_FACADE_TOKEN }
const expect = (told, what, wanted) => {
  if (JSON.stringify(told) !== JSON.stringify(wanted)) throw new Error(`${what}: ${JSON.stringify(told)}, not ${JSON.stringify(wanted)}`)
}

const own = ['127.0.0.1', 'localhost']
const site = await new Site().open()
// Browsers are asked to try the port itself, and one that tells what came and goes on to it.
const relay = await new Relay(port).open()
const { browser, close, kind } = await launch({
  kind: env.KSB_ATTACK_BROWSER,
  // A current Chromium lets no page of the web reach this machine unasked; an older one does.
  args: env.KSB_ATTACK_BROWSER === 'firefox' ? [] : ['--host-resolver-rules=MAP evil.example 127.0.0.1', '--disable-features=Translate,MediaRouter,OptimizationHints,LocalNetworkAccessChecks']
})

// Everything that a page's script can send, in the page. What it learns of each answer.
const everything = async (base, { body, token }) => {
  const tokens = `${base}/v3/auth/tokens`
  const [name, value] = body.split('=')
  const json = { 'content-type': 'application/json' }
  const learned = {}
  const late = (what) => new Promise((resolve) => setTimeout(() => resolve(what), 8000))
  const fetched = (url, options) => fetch(url, { credentials: 'include', ...options })
    .then(async (answer) => answer.type === 'opaque' ? 'opaque' : `${answer.status} ${await answer.text()}`, () => 'nothing')
  const loaded = (tag, attributes) => new Promise((resolve) => {
    const element = Object.assign(document.createElement(tag), attributes)
    element.onload = () => resolve('loaded')
    element.onerror = () => resolve('nothing')
    document.body.append(element)
  })
  const framed = (fill) => new Promise((resolve) => {
    const frame = document.createElement('iframe')
    frame.name = `frame${Math.random()}`
    document.body.append(frame)
    frame.onload = () => {
      // What a frame shows can be read by its own origin alone.
      try { resolve(frame.contentDocument ? frame.contentDocument.body.innerText : 'nothing') } catch { resolve('nothing') }
    }
    fill(frame)
  })
  const form = (enctype, fields) => framed((frame) => {
    const form = Object.assign(document.createElement('form'), { method: 'post', action: tokens, enctype, target: frame.name })
    for (const [name, value] of fields) form.append(Object.assign(document.createElement('input'), { name, value }))
    document.body.append(form)
    form.submit()
  })
  const xhr = (type) => new Promise((resolve) => {
    const sent = new XMLHttpRequest()
    sent.onloadend = () => resolve(sent.status ? `${sent.status} ${sent.responseText}` : 'nothing')
    sent.open('POST', tokens)
    sent.withCredentials = true
    sent.setRequestHeader('content-type', type)
    sent.send(body)
  })
  const beacon = (type) => {
    try { navigator.sendBeacon(tokens, new Blob([body], { type })) } catch {}
    return 'nothing'
  }
  const opened = (make) => new Promise((resolve) => {
    const stream = make()
    stream.onopen = () => resolve('open')
    stream.onmessage = ({ data }) => resolve(data)
    stream.onerror = () => { stream.close(); resolve('nothing') }
  })
  const attempts = {
    'fetch of JSON': () => fetched(tokens, { method: 'POST', headers: json, body }),
    'fetch of text': () => fetched(tokens, { method: 'POST', body }),
    'fetch without CORS': () => fetched(tokens, { method: 'POST', mode: 'no-cors', body }),
    'fetch of JSON without CORS': () => fetched(tokens, { method: 'POST', mode: 'no-cors', headers: json, body }),
    'fetch that outlives the page': () => fetched(tokens, { method: 'POST', mode: 'no-cors', keepalive: true, body }),
    'fetch with the token': () => fetched(`${base}/v3/auth/projects`, { headers: { 'x-auth-token': token } }),
    'fetch of the version': () => fetched(`${base}/v3`, {}),
    'fetch of the version without CORS': () => fetched(`${base}/v3`, { mode: 'no-cors', referrerPolicy: 'no-referrer' }),
    'deletion without CORS': () => fetched(tokens, { method: 'DELETE', headers: { 'x-auth-token': token, 'x-subject-token': token } }),
    'XHR of JSON': () => xhr('application/json'),
    'XHR of text': () => xhr('text/plain'),
    'beacon of text': () => beacon('text/plain'),
    'beacon of JSON': () => beacon('application/json'),
    'text form with JSON in a name': () => form('text/plain', [[name, value]]),
    'ordinary form': () => form('application/x-www-form-urlencoded', [[name, value]]),
    'form of parts': () => form('multipart/form-data', [[name, value]]),
    frame: () => framed((frame) => { frame.src = `${base}/v3` }),
    image: () => loaded('img', { src: `${base}/v3` }),
    script: () => loaded('script', { src: `${base}/v3` }),
    'style sheet': () => loaded('link', { rel: 'stylesheet', href: `${base}/v3` }),
    WebSocket: () => opened(() => new WebSocket(`${base.replace('http', 'ws')}/v3`)),
    'event stream': () => opened(() => new EventSource(`${base}/v3`))
  }
  await Promise.all(Object.entries(attempts).map(async ([what, attempt]) => {
    learned[what] = await Promise.race([attempt(), late('nothing')])
  }))
  return learned
}

// A page of somebody else's: it learns that something answers, and no more.
async function foreign (origin, base) {
  const page = await (await browser.createBrowserContext()).newPage()
  await page.goto(site.page('').replace(site.origin, origin))
  const learned = await within(page.evaluate(everything, base, secrets), `the attempts of ${origin}`)
  for (const [what, told] of Object.entries(learned)) {
    if (!['nothing', 'opaque'].includes(told)) throw new Error(`${what} tells a page of ${origin}: ${told}`)
  }
  return Object.keys(learned).length
}

// A whole tab goes there: the person sees a refusal, and there is no token in it.
async function navigation (base) {
  for (const [name, value, enctype] of [[...secrets.body.split('='), 'text/plain'], ['x', 'y', 'application/x-www-form-urlencoded']]) {
    const page = await (await browser.createBrowserContext()).newPage()
    await page.goto(site.page(`<form method="post" enctype="${enctype}" action="${base}/v3/auth/tokens"><input></form>`))
    const gone = page.waitForNavigation()
    await page.evaluate((name, value) => {
      Object.assign(document.querySelector('input'), { name, value })
      document.forms[0].submit()
    }, name, value)
    const answer = await gone
    expect([answer.status(), answer.headers()['x-subject-token']], `a tab that posts ${enctype}`, [403, undefined])
  }
}

const REFUSAL = JSON.stringify({ error: {
  code: 421, title: 'Misdirected Request', message: 'this is a Keystone on the loopback addresses of this computer only'
} })

// A name of the attacker's that leads here by now: the page has the origin of what it asks, so that it may read every
// answer and set every header. The page itself came before, when the name still led to him.
async function rebound (host, there) {
  const base = `http://${host}:${there}`
  const page = await (await browser.createBrowserContext()).newPage()
  await page.setRequestInterception(true)
  page.once('request', (sent) => sent.respond({ status: 200, contentType: 'text/html', body: '<!doctype html><h1>You have won!</h1>' }))
  await page.goto(`${base}/`)
  await page.setRequestInterception(false)
  expect(await page.evaluate(() => origin), 'the page', base)
  const learned = await within(page.evaluate(everything, base, secrets), `the attempts of ${base}`)
  const bare = (told) => told.replace(REFUSAL, '').replace(/^421 $/, '')
  const told = Object.entries(learned).filter(([, told]) => !['nothing', ''].includes(bare(told)))
  // Nothing but the refusal, which is the same for everybody; a frame or an image that has no content may well count as loaded.
  const odd = told.filter(([what, told]) => told !== 'loaded')
  if (odd.length) throw new Error(`${base} tells its own page ${JSON.stringify(odd)}`)
}

try {
  const origins = [site.origin, ...['localhost', '127.0.0.1'].map((host) => site.origin.replace('attacker.localhost', host))]
  for (const host of own) {
    for (const there of [port, relay.port]) {
      const base = `http://${host}:${there}`
      await Promise.all(origins.map(async (origin) => {
        const tried = await foreign(origin, base)
        console.log(`${kind}: ${tried} attempts of ${origin} at ${base} learned nothing`)
      }))
      await navigation(base)
    }
  }
  // They were made: this is what arrived, and how it was answered.
  const seen = relay.summary(...own)
  console.log(`${kind}: ${JSON.stringify(seen)}`)
  const wanted = [
    'OPTIONS empty', 'POST text/plain', 'POST application/x-www-form-urlencoded', 'POST multipart/form-data', 'GET image',
    'GET script', 'GET style', 'GET iframe', 'GET empty', 'GET websocket', 'POST document text/plain'
  ]
  const missing = wanted.filter((what) => !Object.keys(seen).some((one) => one.startsWith(what)))
  if (missing.length) throw new Error(`the browser never sent ${missing}`)
  const answered = Object.keys(seen).filter((one) => !one.endsWith(' 403'))
  if (answered.length) throw new Error(`not refused: ${answered}`)
  if (!relay.bodies(...own).some((body) => body.trim() === secrets.body)) throw new Error('the JSON that a form makes never arrived')

  for (const host of ['evil.localhost', ...(kind === 'chromium' ? ['evil.example'] : [])]) {
    for (const there of [port, relay.port]) await rebound(host, there)
    const seen = relay.summary(host)
    console.log(`${kind}: ${host}: ${JSON.stringify(seen)}`)
    expect(Object.keys(seen).filter((one) => !one.endsWith(' 421')), `answers to ${host}`, [])
    if (!relay.bodies(host).some((body) => body.trim() === secrets.body)) throw new Error(`${host} never posted`)
  }
} finally {
  await close()
  site.close()
  relay.close()
}
