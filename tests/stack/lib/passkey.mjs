// Alice's second factor: a virtual authenticator (CDP, so Chromium only) that is given her passkey and forgets it
// with its tab. Her sign-ins take turns, because a passkey's counter must rise from each use to the next.
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { once } from 'node:events'
import { settings } from './settings.mjs'

const AUTHENTICATOR = {
  protocol: 'ctap2',
  transport: 'internal',
  hasResidentKey: true,
  hasUserVerification: true,
  isUserVerified: true,
  automaticPresenceSimulation: true
}
const COUNT_MILLISECONDS = 50 // a counter made of the time needs no file to be kept in

export async function authenticator (page) {
  if (page.browser().process()?.spawnfile.includes('firefox')) {
    throw new Error('this user has a passkey, and Firefox has no virtual authenticator: use Chromium or another user')
  }
  const session = await page.createCDPSession()
  await session.send('WebAuthn.enable')
  const { authenticatorId } = await session.send('WebAuthn.addVirtualAuthenticator', { options: AUTHENTICATOR })
  return {
    async present () {
      const { credential, since } = JSON.parse(readFileSync(settings.passkey, 'utf8'))
      const signCount = credential.signCount + Math.floor((Date.now() - since) / COUNT_MILLISECONDS)
      await session.send('WebAuthn.clearCredentials', { authenticatorId })
      await session.send('WebAuthn.addCredential', { authenticatorId, credential: { ...credential, signCount } })
    }
  }
}

// Waits for its turn among all browsers of this machine; flock(1) lets go when we end, however we end.
export async function turn () {
  const holder = spawn('flock', [settings.passkey + '.lock', 'sh', '-c', 'echo mine; exec cat'], { stdio: ['pipe', 'pipe', 'inherit'] })
  await Promise.race([
    once(holder.stdout, 'data'),
    once(holder, 'error').then(([error]) => { throw error }),
    once(holder, 'exit').then(() => { throw new Error('flock ended') })
  ])
  return async () => {
    await new Promise((resolve) => setTimeout(resolve, 2 * COUNT_MILLISECONDS))
    holder.stdin.end()
  }
}
