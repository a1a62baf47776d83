(() => {
  // Before anything else: a reload must not post Keystone's form again.
  history.replaceState(null, '', '/signing-in');

  const {claim, code} = ksb.data();
  const STATES = ['confirm', 'done', 'wrong-user', 'unproven', 'refused', 'expired', 'failed', 'declined'];
  const buttons = [document.getElementById('ksb-accept'), document.getElementById('ksb-decline')];
  let proof = readProof();
  // Whether the question stands, and whether its answer is on the way.
  let asking = false;
  let answering = false;

  // The secret that the first page left in this tab, if this tab had one.
  function readProof() {
    try {
      const {id, secret} = JSON.parse(sessionStorage.getItem('ksb'));
      return typeof id === 'string' && typeof secret === 'string' ? {id, secret} : {};
    } catch {
      return {};
    }
  }

  function forgetProof() {
    proof = {};
    try {
      sessionStorage.removeItem('ksb');
    } catch {
      // Nothing was kept then.
    }
  }

  async function ask(path, extra) {
    // Not mode 'same-origin': with Referrer-Policy no-referrer the browser would then send "Origin: null".
    const answer = await fetch(path, {
      method: 'POST',
      headers: {'Content-Type': 'application/json'},
      body: JSON.stringify({claim, ...proof, ...extra}),
      cache: 'no-store',
      credentials: 'omit',
      redirect: 'error',
    });
    const reply = await answer.json().catch(() => null);
    const shown = {};
    for (const [name, value] of Object.entries(reply ?? {})) shown[name] = text(value);
    if (STATES.includes(shown.state)) return shown;
    // A problem document, a bare refusal, or a state that this page does not know.
    const message = shown.detail ?? `The broker did not accept what this page sent (HTTP ${answer.status}).`;
    return {state: 'failed', message, remedy: shown.remedy};
  }

  // A field of a reply, or null. What would turn the text around or hide part of it is made visible: names come from
  // an identity provider, and the person decides by them.
  const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/gu;
  const text = (value) => (typeof value === 'string' && value.trim() !== '' ? value.replace(HIDDEN, '\ufffd') : null);

  function isolated(value) {
    const element = document.createElement('bdi');
    element.textContent = value;
    return element;
  }

  function facts(reply) {
    const list = document.createElement('dl');
    list.className = 'facts';
    const domain = reply.user_domain ? [' (domain ', isolated(reply.user_domain), ')'] : [];
    const rows = [
      ['User', reply.user, domain],
      ['Identity provider', reply.identity_provider, []],
      ['Cloud', reply.cloud, []],
      ['Keystone', reply.keystone, []],
    ];
    for (const [name, value, more] of rows) {
      if (!value) continue;
      const row = document.createElement('div');
      const term = document.createElement('dt');
      const detail = document.createElement('dd');
      term.textContent = name;
      detail.append(isolated(value), ...more);
      row.append(term, detail);
      list.append(row);
    }
    return list.childElementCount > 0 ? [list] : [];
  }

  // For a shell: only what needs quotes gets them.
  const quoted = (word) => (/^[\w.@%+=:,/-]+$/.test(word) ? word : "'" + word.replaceAll("'", "'\\''") + "'");

  function render(reply) {
    const section = document.querySelector(`section[data-state="${reply.state}"]`);
    const {cloud} = reply;
    for (const element of section.querySelectorAll('[data-switch]')) {
      element.textContent = cloud ? `ksb login ${quoted(cloud)} --switch-user` : 'ksb login --switch-user';
    }
    for (const element of section.querySelectorAll('[data-text]')) {
      const value = reply[element.dataset.text];
      if (value) ksb.fill(element, value);
    }
    for (const element of section.querySelectorAll('[data-field]')) {
      const value = reply[element.dataset.field] ?? (element.dataset.field === 'code' ? code : null);
      element.replaceChildren(...(value ? [isolated(value)] : []));
      (element.closest('dl > div') ?? element).hidden = !value;
    }
    for (const element of section.querySelectorAll('[data-facts]')) element.replaceChildren(...facts(reply));

    if (reply.state === 'confirm') {
      const question = ['Use ', isolated(reply.user ?? 'this user')];
      if (reply.identity_provider) question.push(' at ', isolated(reply.identity_provider));
      if (cloud) question.push(' for cloud ', isolated(cloud));
      const heading = section.querySelector('[data-question]');
      heading.replaceChildren(...question, '?');
      heading.classList.toggle('long', heading.textContent.length > 72);
    }
    if (reply.state === 'done') {
      const command = cloud ? `openstack --os-cloud ${quoted(cloud)} catalog list` : 'openstack catalog list';
      section.querySelector('[data-command] code').textContent = command;
      for (const step of document.querySelectorAll('#ksb-steps li')) {
        step.removeAttribute('aria-current');
        step.classList.add('past');
      }
    }
    document.getElementById('ksb-steps').hidden = !['checking', 'confirm', 'done'].includes(reply.state);
    // In every other state the sign-in may go on in this tab, and the secret must prove it.
    if (reply.state === 'done') {
      const last = proof;
      forgetProof();
      if (reply.keep) ksb.keep(last, cloud ?? 'cloud', reply.keep === 'kept');
    }
    asking = reply.state === 'confirm';
    answering = false;
    ksb.show(reply.state, !asking);
    if (reply.state === 'done' && reply.keep === 'kept') ksb.kept();
    if (asking) guard();
  }

  const gone = () => render({
    state: 'failed',
    message: 'The broker on this computer does not answer. It may have stopped.',
    remedy: 'Go back to the terminal and run your command again: that starts the broker when it is needed.',
  });

  const setReady = (ready) => {
    for (const button of buttons) button.setAttribute('aria-disabled', String(!ready));
  };

  // A click that was meant for something else must not answer: see the template.
  let arming = 0;
  function guard() {
    setReady(false);
    clearTimeout(arming);
    arming = setTimeout(() => {
      setReady(true);
      document.body.dataset.ksbState = 'confirm';
    }, 500);
  }
  let away = false;
  addEventListener('blur', () => { away = true; });
  document.addEventListener('visibilitychange', () => { away ||= document.hidden; });
  addEventListener('focus', () => {
    if (away && asking && !answering) guard();
    away = false;
  });

  for (const [index, button] of buttons.entries()) {
    button.addEventListener('click', () => {
      if (answering || button.getAttribute('aria-disabled') === 'true') return;
      answering = true;
      clearTimeout(arming);
      setReady(false);
      document.getElementById('ksb-live').textContent = 'Sending your answer.';
      ask('/answer', {accept: index === 0}).then(render, gone);
    });
  }

  const slow = setTimeout(() => {
    const still = 'Still checking. Keystone is slow to answer.';
    document.getElementById('ksb-wait').textContent = still;
    document.getElementById('ksb-live').textContent = still;
  }, 6000);
  ask('/claim').then(render, gone).finally(() => clearTimeout(slow));
})();
