// The callback's port: who had it before, and what else is sent there.
import { request } from 'node:http'
import { once } from 'node:events'
import { accept, atIdentityProvider, go, shows, signIn, until } from './tabs.mjs'
import { looking } from './patience.mjs'
import { Squatter } from './squatter.mjs'

// Another program that had the port left a service worker there, which tells the attacker what is posted.
export async function a_service_worker_left_on_the_port ({ broker, tab, site, mallory, victim, port }) {
  const squatter = await new Squatter(port, `${site.origin}/thief`).open()
  const before = await tab()
  go(before, `${squatter.origin}/plant`)
  await shows(before, 'planted')
  // It works: what is posted here is stolen.
  go(before, site.posting('canary', broker.callback))
  await shows(before, 'taken')
  await stolen(site, 'token=canary')
  // Cookies know no ports, but paths: with these, a request that is to remove the worker is as large as can be.
  await before.evaluate(() => {
    for (let count = 0; count < 175; count++) document.cookie = `c${count}=${'x'.repeat(4000)}; path=/clean; max-age=3600`
  })
  await before.close()
  await squatter.close()

  const attempt = await broker.begin()
  const real = await tab()
  go(real, attempt.url)
  await signIn(real, victim, 'confirm')
  await accept(real)
  await attempt.endsAs(victim)
  const taken = site.received.filter((body) => /token=gAAA|claim/.test(body))
  if (taken.length) throw new Error(`the worker got ${taken.map((body) => body.slice(0, 20))}`)
  const left = await real.evaluate(() => navigator.serviceWorker.getRegistrations().then((all) => all.length))
  if (left) throw new Error('the worker is still there')
}



// A page of the earlier owner that the browser keeps in its cache has the callback's origin and needs no network. In a
// tab with the secret it could prove anything, and answer the question itself.
export async function a_page_left_in_the_cache ({ broker, tab, site, mallory, victim, port }) {
  const squatter = await new Squatter(port, `${site.origin}/thief`).open()
  const link = (token) => site.page(`<a href="${squatter.origin}/accomplice#${token}">Next</a>`)
  const before = await tab()
  await before.goto(link('none'))
  await before.click('a')
  await shows(before, 'accomplice')
  await stolen(site, 'secret null')
  await before.close()
  await squatter.close()

  const attempt = await broker.begin()
  const real = await tab()
  go(real, attempt.url)
  await atIdentityProvider(real)
  await real.goto(link(await mallory.token()))
  await real.click('a')
  const { state } = await until(real, 'a page of the origin', (now) => now.state)
  if (state === 'accomplice') {
    await real.click('h1')
    throw new Error(`the page came from the cache: ${JSON.stringify(await attempt.command.ended)}`)
  }
  await shows(real, 'refused')
  go(real, attempt.url)
  await signIn(real, victim, 'confirm')
  await accept(real)
  await attempt.endsAs(victim)
  if (site.received.some((body) => body.includes('secret {'))) throw new Error('the page got the secret')
}

// A page of the earlier owner that is still open, and a link that somebody read in the list of processes.
export async function a_page_of_the_earlier_owner_that_is_still_open ({ broker, tab, context, site, victim, port }) {
  const squatter = await new Squatter(port, `${site.origin}/thief`).open()
  const page = await tab()
  await page.goto(`${squatter.origin}/lingering`)
  await squatter.close()

  const attempt = await broker.begin()
  await page.evaluate((url) => { location.hash = url }, attempt.url)
  const opened = new Promise((resolve) => page.once('popup', resolve))
  await page.click('h1')
  const popup = await opened
  await signIn(popup, victim, 'confirm')
  await accept(popup)
  await attempt.endsAs(victim)
  if (site.received.some((body) => body.startsWith('secret {'))) throw new Error('the page got the secret')
}

// Requests to the callback that are not a whole tab's navigation, or not to its name: their tokens are not even kept.
export async function requests_that_no_tab_of_the_persons_makes ({ broker, kind, tab, site, mallory, victim, port }) {
  const attempt = await broker.begin()
  await attempt.goesOn()
  const token = await mallory.token()
  // The last one is a name of the public web that an attacker's DNS server answers with 127.0.0.1.
  for (const host of ['127.0.0.1', 'evil.localhost', ...(kind === 'chromium' ? ['evil.example'] : [])]) {
    const other = await tab()
    go(other, site.posting(token, `http://${host}:${port}/auth/websso/`))
    const there = ({ url }) => url !== 'about:blank' && !url.startsWith(site.origin)
    const { state, text } = await until(other, `an answer of ${host}`, there)
    if (state) throw new Error(`${host} is answered: ${text}`)
  }
  const evil = await tab()
  await evil.goto(site.page('<iframe name="inside"></iframe>'))
  const answers = await evil.evaluate(async (callback, token) => {
    const body = `token=${token}`
    const type = { 'content-type': 'application/x-www-form-urlencoded' }
    const json = { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{"claim":"0"}' }
    const outcome = (promise) => promise.then((answer) => `${answer.type} ${answer.status}`, () => 'nothing')
    const xhr = new Promise((resolve) => {
      const sent = new XMLHttpRequest()
      sent.onloadend = () => resolve(sent.status ? `XHR ${sent.status}` : 'nothing')
      sent.open('POST', callback)
      sent.setRequestHeader('content-type', type['content-type'])
      sent.send(body)
    })
    const frame = new Promise((resolve) => {
      document.querySelector('iframe').onload = ({ target }) => resolve(target.contentDocument ? 'a page of this origin' : 'nothing')
      const form = document.body.appendChild(document.createElement('form'))
      Object.assign(form, { method: 'post', action: callback, target: 'inside' })
      form.innerHTML = `<input name="token" value="${token}">`
      form.submit()
    })
    return Promise.all([
      outcome(fetch(callback, { method: 'POST', mode: 'no-cors', body, headers: type, credentials: 'include' })),
      outcome(fetch(callback, { method: 'POST', body, headers: type })),
      outcome(fetch(new URL('/claim', callback), json)), outcome(fetch(new URL('/answer', callback), json)),
      outcome(fetch(new URL('/claim', callback), { ...json, mode: 'no-cors', headers: {} })), xhr, frame
    ])
  }, broker.callback, token)
  // An opaque answer is one that the page cannot look into.
  const wanted = ['nothing', 'nothing', 'nothing', 'nothing', 'opaque 0', 'nothing', 'nothing']
  if (answers.join() !== wanted.join()) throw new Error(`a foreign page got ${answers}`)
  await noCors(port)
  const offers = await broker.offers()
  if (offers.length) throw new Error(`kept: ${offers}`)
  const known = await attempt.goesOn()
  if (known.offers) throw new Error('the person is offered something')

  const real = await tab()
  go(real, attempt.url)
  await signIn(real, victim, 'confirm')
  await accept(real)
  await attempt.endsAs(victim)
}

// Whatever is asked, no header lets another origin read the answer.
async function noCors (port) {
  const asked = ['/auth/websso/', '/claim', '/answer', '/begin/0', '/clean/0', '/'].flatMap((path) =>
    ['OPTIONS', 'POST', 'GET'].map((method) => [method, path]))
  for (const [method, path] of asked) {
    const headers = { host: `localhost:${port}`, origin: 'https://evil.example', 'access-control-request-method': 'POST', 'access-control-request-private-network': 'true' }
    const sent = request({ port, host: '127.0.0.1', method, path, headers }).end()
    const [answer] = await once(sent, 'response')
    answer.resume()
    const cors = Object.keys(answer.headers).filter((name) => name.startsWith('access-control'))
    if (cors.length) throw new Error(`${method} ${path} answers ${cors}`)
    if (method === 'OPTIONS' && answer.statusCode < 400) throw new Error(`OPTIONS ${path}: ${answer.statusCode}`)
  }
}

// A claim counts once, and only with the secret; so does an answer.
export async function replayed_and_unproven_claims ({ broker, tab, site, mallory, victim }) {
  const attempt = await broker.begin()
  const real = await tab()
  await overhear(real)
  go(real, attempt.url)
  await signIn(real, victim, 'confirm')
  const say = (page, path, body) => page.evaluate((path, body) =>
    fetch(path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) })
      .then((answer) => answer.json()), path, body)
  const [proof] = await real.evaluate(() => window.heard)
  if (!proof.secret || !proof.id) throw new Error('the page proves nothing')
  const expect = async (page, path, body, wanted) => {
    const { state } = await say(page, path, body)
    if (state !== wanted) throw new Error(`${path} with ${Object.keys(body)} says ${state}`)
    await attempt.goesOn()
  }
  await expect(real, '/claim', proof, 'expired')

  const other = await tab()
  await overhear(other)
  go(other, site.posting(await mallory.token(), broker.callback))
  await shows(other, 'unproven')
  const [foreign] = await other.evaluate(() => window.heard)
  await expect(other, '/claim', foreign, 'unproven')
  await expect(other, '/claim', { ...foreign, id: proof.id, secret: '0'.repeat(64) }, 'unproven')
  await expect(other, '/claim', { ...foreign, id: '0'.repeat(32), secret: proof.secret }, 'unproven')
  await expect(other, '/answer', { ...foreign, accept: true }, 'expired')
  await expect(other, '/answer', { claim: proof.claim, accept: true }, 'expired')
  await expect(other, '/answer', { ...proof, secret: '0'.repeat(64), accept: true }, 'expired')
  await expect(real, '/answer', { ...proof, claim: foreign.claim, accept: true }, 'expired')

  await accept(real)
  await attempt.endsAs(victim)
}

// What the page's own script sends.
const overhear = (page) => page.evaluateOnNewDocument(() => {
  window.heard = []
  const send = window.fetch
  window.fetch = (path, options) => {
    if (options.body) window.heard.push(JSON.parse(options.body))
    return send(path, options)
  }
})

// The request that cleans the callback's origin does not get through: then the tab does not go there.
export async function the_cleaning_is_kept_from_happening ({ broker, tab, victim }) {
  const attempt = await broker.begin()
  const real = await tab()
  await real.setRequestInterception(true)
  let blocked = true
  real.on('request', (sent) => {
    const done = blocked && sent.url().includes('/clean/') ? sent.abort() : sent.continue()
    done.catch(() => {})
  })
  go(real, attempt.url)
  const { url } = await shows(real, 'failed')
  if (url !== attempt.url) throw new Error(`it went on to ${url}`)
  blocked = false
  await real.click('#ksb-again')
  await atIdentityProvider(real)
  await signIn(real, victim, 'confirm')
  await accept(real)
  await attempt.endsAs(victim)
}

// What the attacker's site was sent. Without this the test would show nothing.
const stolen = (site, what) => looking(`${what} to be stolen`, () => site.received.some((body) => body.includes(what)))
