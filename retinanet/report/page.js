// Answers of the page to its reader: tables sort, a slider moves the score threshold.
// Nothing of the data is part of this text; the counts stand beside it as JSON.
'use strict';
{
  const number = text => parseFloat(text.replaceAll(',', ''));

  function sort(head) {
    const column = head.cellIndex, body = head.closest('table').tBodies[0];
    const largestFirst = head.ariaSort ? head.ariaSort === 'ascending' : column > 0;
    for (const other of head.parentNode.cells) other.ariaSort = null;
    head.ariaSort = largestFirst ? 'descending' : 'ascending';
    const text = row => row.cells[column].textContent.trim();
    const order = (a, b) => {
      const x = number(text(a)), y = number(text(b));
      if (column === 0) return text(a).localeCompare(text(b)) * (largestFirst ? -1 : 1);
      if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y);  // no number comes last
      return largestFirst ? y - x : x - y;
    };
    body.append(...[...body.rows].sort(order));
  }

  for (const head of document.querySelectorAll('.sortable thead tr:last-child th')) {
    head.tabIndex = 0;
    head.addEventListener('click', () => sort(head));
    head.addEventListener('keydown', event => { if (event.key === 'Enter') sort(head); });
  }

  // Detections say at which step of the slider they still count (data-at), and the number of the
  // annotation that they found (data-found), if any.
  function draw(photo, at) {
    const hits = new Set();
    let wrong = 0;
    for (const box of photo.querySelectorAll('[data-at]')) {
      const counts = Number(box.dataset.at) >= at;
      box.toggleAttribute('hidden', !counts);
      if (counts && box.dataset.found) hits.add(box.dataset.found);
      if (counts && !box.dataset.found) wrong += 1;
    }
    const truth = [...photo.querySelectorAll('.truth')];
    truth.forEach((box, k) => box.classList.toggle('missed', !hits.has(String(k))));
    const tally = [hits.size, wrong, truth.length - hits.size];
    photo.querySelectorAll('.tally b').forEach((cell, k) => { cell.textContent = tally[k]; });
  }

  const slider = document.getElementById('threshold');
  const counts = slider && JSON.parse(document.getElementById('counts').textContent);

  function show() {
    const at = Number(slider.value);
    document.getElementById('threshold-value').textContent = (at / 100).toFixed(2);
    for (const cell of document.querySelectorAll('[data-count]')) {
      const [group, kind] = cell.dataset.count.split(' ');
      cell.textContent = counts[group][at][kind].toLocaleString('en');
    }
    for (const photo of document.querySelectorAll('.photo')) draw(photo, at);
  }

  if (slider) {
    slider.addEventListener('input', show);
    show();
    // A page that renews itself comes back as its reader left it, where the browser keeps anything.
    const key = 'threshold ' + location.pathname;
    slider.addEventListener('input', () => sessionStorage.setItem(key, slider.value));
    const kept = document.querySelector('meta[http-equiv=refresh]') && sessionStorage.getItem(key);
    if (kept) {
      slider.value = kept;
      show();
    }
  }
}
