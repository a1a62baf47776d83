// Starts Chromium or Firefox with a profile of its own and trust in the stack's authority.
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { puppeteer, settings } from './settings.mjs'

const CHROMIUM_FLAGS = [
  '--no-sandbox', // as root there is none
  '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage', '--password-store=basic',
  '--disable-features=Translate,MediaRouter,OptimizationHints'
]

const FIREFOX_PREFERENCES = {
  'app.normandy.enabled': false,
  'browser.shell.checkDefaultBrowser': false,
  'datareporting.policy.dataSubmissionEnabled': false,
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
  'signon.rememberSignons': false
}

// Puppeteer spares background tabs what a person's browser does to them.
const SPARED = ['--disable-background-timer-throttling', '--disable-backgrounding-occluded-windows', '--disable-renderer-backgrounding']

// options: kind (chromium | firefox), profile (a directory that stays; without one a fresh one that goes), args, visible,
// throttled (Chromium: background tabs are slowed down as a person's are)
export async function launch ({ kind = 'chromium', profile, args = [], visible = false, throttled = false } = {}) {
  const temporary = profile ? null : mkdtempSync(join(tmpdir(), 'ksb-browser-'))
  const folder = profile ?? temporary
  mkdirSync(folder, { recursive: true })
  const home = join(folder, 'home')
  // Chromium reads $HOME/.pki/nssdb: this makes the authority one that the person has installed.
  cpSync(settings.home, home, { recursive: true })
  const common = {
    browser: kind === 'firefox' ? 'firefox' : 'chrome',
    userDataDir: join(folder, kind),
    headless: !visible,
    args,
    env: { ...process.env, HOME: home },
    defaultViewport: { width: 900, height: 760 },
    timeout: 60_000
  }
  const browser = await puppeteer.launch(kind === 'firefox'
    ? { ...common, executablePath: program('firefox-esr', 'firefox'), acceptInsecureCerts: true, extraPrefsFirefox: FIREFOX_PREFERENCES }
    // By a pipe: no debugging port that a page could find, and the browser ends with us, however we end.
    : { ...common, executablePath: program('chromium', 'chromium-browser', 'google-chrome'), args: [...CHROMIUM_FLAGS, ...args], ignoreDefaultArgs: throttled ? SPARED : [], pipe: true })
  // Sign-in cookies are session cookies, which a browser forgets when it ends; a profile that stays keeps them.
  const jar = profile && join(folder, 'cookies.json')
  if (jar && existsSync(jar)) await browser.setCookie(...JSON.parse(readFileSync(jar, 'utf8')))
  const close = async () => {
    if (jar) {
      const cookies = await browser.cookies().catch(() => null)
      if (cookies) writeFileSync(jar, JSON.stringify(cookies), { mode: 0o600 })
    }
    await browser.close().catch(() => browser.process()?.kill('SIGKILL'))
    if (temporary) rmSync(temporary, { recursive: true, force: true, maxRetries: 5 })
  }
  return { browser, close, kind }
}

function program (...names) {
  for (const name of names) {
    for (const folder of (process.env.PATH ?? '/usr/bin').split(':').concat('/usr/bin')) {
      const path = join(folder, name)
      if (existsSync(path)) return path
    }
  }
  throw new Error(`not installed: ${names[0]}`)
}
