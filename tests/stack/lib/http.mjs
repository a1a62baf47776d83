// A browser without a screen: follows redirects and forms, keeps cookies, sends the Fetch Metadata that belong to
// each step, and does what the scripts of the broker's pages do. It costs a hundredth of a Chromium, and is for
// tests that need somebody to be signed in. What a page looks like and what a script may do is shown in Chromium.
import { readFileSync } from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import { Jar } from './jar.mjs'
import { password, settings } from './settings.mjs'
import { refusals } from './states.mjs'

const HOPS = 30
const NAVIGATION = {
  'sec-fetch-mode': 'navigate',
  'sec-fetch-dest': 'document',
  'sec-fetch-user': '?1',
  'upgrade-insecure-requests': '1',
  accept: 'text/html,application/xhtml+xml,*/*;q=0.8'
}

const authority = { ca: readFileSync(settings.ca) }

// One request with this host's cookies. Redirects are not followed.
function request (jar, method, address, headers, body) {
  const url = new URL(address)
  const options = { method, headers: { host: url.host, ...jar.header(url), ...headers }, family: 4 }
  if (body !== undefined) options.headers['content-length'] = Buffer.byteLength(body)
  return new Promise((resolve, reject) => {
    const call = url.protocol === 'https:' ? https.request(url, { ...options, ...authority }) : http.request(url, options)
    call.on('error', reject)
    call.on('response', (response) => {
      const chunks = []
      response.on('data', (chunk) => chunks.push(chunk))
      response.on('error', reject)
      response.on('end', () => {
        for (const cookie of response.headers['set-cookie'] ?? []) jar.take(url, cookie)
        resolve({ status: response.statusCode, headers: response.headers, text: Buffer.concat(chunks).toString() })
      })
    })
    call.end(body)
  })
}

const unescape = (text) => text.replace(/&#x([0-9a-f]+);/gi, (_, digits) => String.fromCodePoint(parseInt(digits, 16)))
  .replace(/&#(\d+);/g, (_, digits) => String.fromCodePoint(Number(digits)))
  .replace(/&quot;/g, '"').replace(/&lt;/g, '<').replace(/&gt;/g, '>').replace(/&amp;/g, '&')

const attribute = (tag, name) => {
  const found = new RegExp(`\\s${name}\\s*=\\s*(?:"([^"]*)"|'([^']*)'|([^\\s>]+))`, 'i').exec(tag)
  return found && unescape(found[1] ?? found[2] ?? found[3])
}

// The page's first form: where it goes, and the fields that it sends by itself.
function form (html, page) {
  const [tag, rest] = /<form\b[^>]*>([\s\S]*?)(?:<\/form>|$)/i.exec(html) ?? []
  if (!tag) return null
  const fields = new Map()
  for (const [input] of rest.matchAll(/<(?:input|button)\b[^>]*>/gi)) {
    const name = attribute(input, 'name')
    if (name && attribute(input, 'type') !== 'checkbox') fields.set(name, attribute(input, 'value') ?? '')
  }
  return { action: new URL(attribute(tag, 'action') ?? '', page).href, fields }
}

const data = (html) => {
  const found = /<script[^>]*id="ksb-data"[^>]*>([\s\S]*?)<\/script>/.exec(html)
  return found ? JSON.parse(found[1]) : {}
}

const stateOf = (html) => /data-ksb-state="([^"]*)"/.exec(html)?.[1]

const textOf = (html) => unescape(html.replace(/<(script|style)[\s\S]*?<\/\1>/gi, '').replace(/<[^>]+>/g, ' ')).replace(/\s+/g, ' ')

const encoded = (fields) => new URLSearchParams([...fields]).toString()

// What the user answers on a page of Keycloak: fields for its form, or nothing if there is nothing to answer.
function answered (html, user, fields) {
  if (fields.has('otp') || /id="webauthn|registerWebAuthn/i.test(html)) {
    throw new Error(`${user} has a second factor, which takes a real browser`)
  }
  if (fields.has('password')) {
    if (fields.has('username')) fields.set('username', user)
    fields.set('password', password(user))
  } else if (/oauth_grant|kc-oauth/.test(html)) {
    fields.delete('cancel')
  } else {
    return null
  }
  return fields
}

// options: url, user, decline, jar. Returns { state, text, url } of the last page, as `visit` does in a tab; a page
// on which there is nothing to do for the user is `stuck`.
export async function visit ({ url, user, decline = false, jar = new Jar() }) {
  const notes = new Map() // sessionStorage: what the first page at the callback's origin leaves there
  let site = 'none'
  const go = (method, address, headers = {}, body) =>
    request(jar, method, address, { ...NAVIGATION, 'sec-fetch-site': site, ...headers }, body)
  const post = (address, fields, origin) =>
    go('POST', address, { 'content-type': 'application/x-www-form-urlencoded', ...origin }, encoded(fields))
  const ask = async (page, path, body) => {
    const { origin } = new URL(page)
    const headers = {
      origin, 'content-type': 'application/json', accept: '*/*',
      'sec-fetch-site': 'same-origin', 'sec-fetch-mode': 'cors', 'sec-fetch-dest': 'empty'
    }
    const reply = await request(new Jar(), 'POST', origin + path, headers, JSON.stringify({ ...body, ...notes.get(origin) }))
    return JSON.parse(reply.text)
  }

  let page = await go('GET', url)
  for (let hop = 0; hop < HOPS; hop++) {
    if (page.headers.location) {
      url = new URL(page.headers.location, url).href
      site = 'cross-site'
      page = await go('GET', url)
      continue
    }
    const known = data(page.text)
    const next = known.begin ?? known.websso
    if (known.begin) {
      for (const clean of [known.clean + '/cache', known.clean]) {
        await request(jar, 'GET', clean, { accept: '*/*', 'sec-fetch-site': 'same-site', 'sec-fetch-mode': 'no-cors', 'sec-fetch-dest': 'empty' })
      }
    } else if (known.websso) {
      notes.set(new URL(url).origin, { id: known.id, secret: known.secret })
    } else if (known.claim) {
      let reply = await ask(url, '/claim', { claim: known.claim })
      if (reply.state === 'confirm') reply = await ask(url, '/answer', { claim: known.claim, accept: !decline })
      return { state: reply.state ?? 'failed', text: JSON.stringify(reply), url }
    }
    if (next) {
      url = next
      page = await go('GET', url)
      continue
    }
    const state = stateOf(page.text)
    if (state === 'done' || refusals.includes(state)) return { state, text: textOf(page.text), url }
    const found = form(page.text, url)
    if (found && /id="sso"/.test(page.text)) {
      // Keystone's page has `Referrer-Policy: no-referrer`: the browser then sends no origin.
      [url, site] = [found.action, 'cross-site']
      page = await post(url, found.fields, { origin: 'null' })
      continue
    }
    if (found && url.startsWith(settings.idp)) {
      const fields = answered(page.text, user, found.fields)
      if (fields) {
        const { origin } = new URL(url)
        ;[url, site] = [found.action, 'same-origin']
        page = await post(url, fields, { origin })
        continue
      }
    }
    const text = textOf(page.text)
    return { state: /device login successful/i.test(text) ? 'done' : 'stuck', text, url }
  }
  return { state: 'stuck', text: `more than ${HOPS} redirects`, url }
}
