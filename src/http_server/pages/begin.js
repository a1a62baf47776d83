(() => {
  const {id, secret, websso} = ksb.data();
  try {
    const note = JSON.stringify({id, secret});
    sessionStorage.clear();
    sessionStorage.setItem('ksb', note);
    if (sessionStorage.getItem('ksb') !== note) throw new Error('not kept');
  } catch {
    ksb.show('failed');
    return;
  }
  setTimeout(() => { document.getElementById('ksb-onward').hidden = false; }, 10000);
  location.replace(websso);
})();
