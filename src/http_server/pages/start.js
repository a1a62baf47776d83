'use strict';
(async () => {
  const {clean, begin} = JSON.parse(document.getElementById('ksb-data').textContent);
  const ask = (url) => fetch(url, {
    mode: 'no-cors',
    credentials: 'include',
    cache: 'no-store',
    signal: AbortSignal.timeout(20000),
  });
  // Clears what another program may have left on the callback's origin: a service worker there would read the token,
  // a page that the browser keeps in its cache could read the secret. Without this the tab must not go there:
  // whoever left it may also keep the request from getting through, by taking every connection of the browser.
  try {
    const cache = ask(clean + '/cache');
    cache.catch(() => {});
    await ask(clean);
    // A large cache takes a browser seconds. It goes on with that when this page is gone.
    await Promise.race([cache, new Promise((resolve) => { setTimeout(resolve, 1000); })]);
  } catch {
    document.getElementById('ksb-starting').hidden = true;
    const failed = document.getElementById('ksb-failed');
    failed.hidden = false;
    failed.querySelector('h1').focus();
    document.body.dataset.ksbState = 'failed';
    document.getElementById('ksb-again').addEventListener('click', () => location.reload());
    return;
  }
  setTimeout(() => { document.getElementById('ksb-onward').hidden = false; }, 2500);
  location.replace(begin);
})();
