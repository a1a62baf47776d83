// "Keep me signed in while this tab is open". One request stays open for as long as the tab does, and its answer says
// when to go round again: nothing here counts time, which a browser's timers do not do well in the background or asleep.
(() => {
  const part = document.getElementById('ksb-keep');
  const box = document.getElementById('ksb-keep-box');
  const note = document.getElementById('ksb-keep-note');
  const explained = note.textContent;
  let proof = null;
  let name = '';
  let connection = null;

  ksb.keep = (secret, cloud, kept) => {
    proof = secret;
    name = cloud;
    box.checked = kept;
    part.hidden = false;
    hold();
  };

  // The title is what a person sees of a tab in the background.
  ksb.kept = () => {
    const kept = box.checked && connection !== null;
    document.body.dataset.ksbKept = String(kept);
    document.title = (kept ? 'Keeps you signed in: ' + name : 'You are signed in') + ' · keystone-broker';
    document.querySelector('[data-close]').hidden = kept;
  };

  async function hold() {
    connection?.abort();
    const mine = new AbortController();
    connection = mine;
    let last = null;
    try {
      const answer = await fetch('/keep', {
        method: 'POST',
        headers: {'Content-Type': 'application/json'},
        body: JSON.stringify({claim: '', ...proof, keep: box.checked}),
        cache: 'no-store',
        credentials: 'omit',
        redirect: 'error',
        signal: mine.signal,
      });
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let text = ''; ;) {
        const {value, done} = await reader.read();
        if (done) break;
        text += value;
        // After a sleep several words may have come at once: only the newest counts.
        const words = text.split('\n');
        text = words.pop();
        if (words.length === 0) continue;
        last = JSON.parse(words.at(-1));
        if (last.state === 'go' && /^\/begin\/[0-9a-f]+$/.test(last.begin)) {
          location.replace(last.begin);
          return;
        }
        if (last.state === 'over') return end();
        note.textContent = explained;
        ksb.kept();
      }
    } catch {
      // The connection is gone, or this page ended it.
    }
    if (connection !== mine) return;
    connection = null;
    // It worked until now: once more, at once. Else when the person, the network or the computer comes back.
    if (last) hold();
    else lost();
  }

  function lost() {
    note.textContent = 'The broker on this computer does not answer.';
    ksb.kept();
  }

  function end() {
    const was = box.checked;
    proof = null;
    connection = null;
    box.checked = false;
    box.disabled = true;
    ksb.kept();
    if (was) note.textContent = 'This tab does not keep you signed in any more: you signed out, or signed in again elsewhere.';
    else part.hidden = true;
  }

  // What was said to a frozen page is lost: it asks again when it comes back, whatever it comes back from.
  const back = () => { if (proof) hold(); };
  for (const event of ['pageshow', 'online']) addEventListener(event, back);
  for (const event of ['visibilitychange', 'resume']) document.addEventListener(event, back);
  box.addEventListener('change', () => { if (proof) hold(); });
})();
