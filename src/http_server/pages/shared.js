'use strict';
const ksb = {
  // What the broker put into this page. Taken out of the document once it is read.
  data() {
    const element = document.getElementById('ksb-data');
    element.remove();
    return JSON.parse(element.textContent);
  },

  // Text with `commands` in it. Only ever text nodes: nothing here can become markup.
  fill(element, text) {
    const pieces = text.includes('`') ? text.split('`')
      : text.startsWith('ksb ') && !text.split(/\s+/).some((word) => /[.,:;]$/.test(word)) ? ['', text] : [text];
    element.replaceChildren(...pieces.map((piece, index) => {
      if (index % 2 === 0) return document.createTextNode(piece);
      const code = document.createElement('code');
      code.textContent = piece;
      return code;
    }));
  },

  // Shows the section of one state, says so to a screen reader and puts the focus on its heading. The body's
  // data-ksb-state follows, at once unless the section is not ready to be used yet.
  show(state, ready = true) {
    let shown = null;
    for (const section of document.querySelectorAll('section[data-state]')) {
      section.hidden = section.dataset.state !== state;
      if (!section.hidden) shown = section;
    }
    if (ready) document.body.dataset.ksbState = state;
    const heading = shown.querySelector('h1');
    document.title = heading.textContent + ' · keystone-broker';
    heading.focus({preventScroll: true});
    // The heading is read because it has the focus; the live region adds the sentence below it.
    document.getElementById('ksb-live').textContent = shown.querySelector('p')?.textContent ?? '';
  },
};
