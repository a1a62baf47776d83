'use strict';
(async () => {
  const {clean, begin} = JSON.parse(document.getElementById('ksb-data').textContent);
  // Clears what another program may have left on the callback's origin: a service worker there could read the token.
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(), 3000);
  try {
    await fetch(clean, {mode: 'no-cors', credentials: 'include', cache: 'no-store', signal: stop.signal});
  } catch {
    // Go on: the callback takes nothing without the proof anyway.
  }
  clearTimeout(timer);
  setTimeout(() => { document.getElementById('ksb-onward').hidden = false; }, 2500);
  location.replace(begin);
})();
