// Teacher's mode, lesson notes, glossary, and the links of terms to it. Gradio runs this once, with: element.

const find = (selector) => element.querySelector(selector);

// ---- teacher's mode: ?mode=teach

const teach = find('[data-do=teach]');
function setTeach(on) {
  document.documentElement.classList.toggle('teach', on);
  teach.setAttribute('aria-pressed', on);
}
setTeach(new URLSearchParams(location.search).get('mode') === 'teach');
teach.addEventListener('click', () => {
  const on = teach.getAttribute('aria-pressed') === 'false';
  setTeach(on);
  const address = new URL(location.href);
  if (on) address.searchParams.set('mode', 'teach');
  else address.searchParams.delete('mode');
  history.replaceState(history.state, '', address);
});

find('.skip').addEventListener('click', (event) => {
  event.preventDefault();
  document.querySelector('.path [aria-selected=true]')?.focus();
});

// Chromium's Tab key stops at a list that scrolls; the list of a dropdown closes then, and no element has the focus.
document.addEventListener('keydown', ({ key }) => {
  if (key === 'Tab') document.querySelectorAll('ul[role=listbox]').forEach((list) => { list.tabIndex = -1; });
}, true);

// ---- the notes of the lesson and the glossary

const [glossary, lesson] = element.querySelectorAll('dialog');
find('[data-do=glossary]').addEventListener('click', () => glossary.showModal());
for (const dialog of [glossary, lesson]) {
  dialog.addEventListener('click', ({ target }) => {
    if (target === dialog) dialog.close(); // a click outside the dialog
  });
}
find('[data-do=lesson]').addEventListener('click', () => {
  const notes = document.getElementById('lesson');
  if (notes && !lesson.contains(notes)) {
    lesson.append(notes);
    const tabs = new Map([...document.querySelectorAll('.path [role=tab]')].map((tab) => [tab.firstChild.textContent, tab]));
    for (const cell of notes.querySelectorAll('td')) { // link the name of a tab to the tab
      const tab = tabs.get(cell.textContent.trim());
      if (tab) cell.replaceChildren(Object.assign(document.createElement('a'), { href: `?tab=${tab.dataset.tab}`, textContent: cell.textContent }));
    }
  }
  lesson.showModal();
});
lesson.addEventListener('click', ({ target }) => {
  if (target.closest('a[href^="?tab="]')) lesson.close();
  if (target.dataset.do === 'print') print();
});
lesson.addEventListener('click', (event) => {
  if (!event.target.closest('a[href$="glossary.md"]')) return;
  event.preventDefault();
  lesson.close();
  glossary.showModal();
});

const note = find('.term-note');
document.addEventListener('click', (event) => {
  const link = event.target.closest?.('a[href^="#term-"]');
  const term = link && document.getElementById(link.getAttribute('href').slice(1));
  if (!term) return;
  event.preventDefault();
  const [name, meaning] = [...term.children].map((part) => part.textContent);
  note.firstChild.replaceChildren(Object.assign(document.createElement('b'), { textContent: name }), ` ${meaning}`);
  note.showPopover();
  const zoom = Number(getComputedStyle(document.documentElement).getPropertyValue('--zoom')) || 1;
  const [at, own] = [link.getBoundingClientRect(), note.getBoundingClientRect()];
  const left = Math.max(8, Math.min(at.left, innerWidth - own.width - 8));
  const top = at.bottom + own.height + 8 < innerHeight ? at.bottom + 6 : at.top - own.height - 6;
  Object.assign(note.style, { left: `${left / zoom}px`, top: `${Math.max(8, top) / zoom}px` });
});

// ---- the first mention of each term in a tab's text becomes a link to its meaning

const words = [...element.querySelectorAll('dl > div')]
  .flatMap(({ id, dataset }) => dataset.words.split('|').map((word) => [word.toLowerCase(), id]))
  .sort(([one], [other]) => other.length - one.length);
const escaped = words.map(([word]) => word.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
const pattern = new RegExp(`(?<![\\p{L}\\p{N}])(${escaped.join('|')})(?![\\p{L}\\p{N}])`, 'giu');
const idOf = new Map(words);

function link(text, seen) {
  const texts = document.createTreeWalker(text, NodeFilter.SHOW_TEXT);
  const nodes = [];
  while (texts.nextNode()) if (!texts.currentNode.parentElement.closest('a, code, pre, .katex')) nodes.push(texts.currentNode);
  for (const node of nodes) {
    const pieces = document.createDocumentFragment();
    let from = 0;
    for (const match of node.data.matchAll(pattern)) {
      const id = idOf.get(match[0].toLowerCase());
      if (seen.has(id)) continue;
      seen.add(id);
      pieces.append(node.data.slice(from, match.index));
      pieces.append(Object.assign(document.createElement('a'), { href: `#${id}`, className: 'term', textContent: match[0] }));
      from = match.index + match[0].length;
    }
    if (from) {
      pieces.append(node.data.slice(from));
      node.replaceWith(pieces);
    }
  }
}

const linked = new WeakSet();
function linkAll() {
  for (const tab of document.querySelectorAll('[role=tabpanel]')) {
    const seen = new Set([...tab.querySelectorAll('a.term')].map((one) => one.getAttribute('href').slice(1)));
    for (const text of tab.querySelectorAll('.look .prose, .look p')) {
      if (!linked.has(text) && text.textContent.trim()) {
        linked.add(text);
        link(text, seen);
      }
    }
  }
}

// Link the terms, and let the keyboard scroll whatever is wider than the page.
function tend() {
  linkAll();
  for (const table of document.querySelectorAll('.table, #right pre')) {
    const scrolls = table.scrollWidth > table.clientWidth;
    if (scrolls === table.hasAttribute('tabindex')) continue;
    ['tabindex', 'role', 'aria-label'].forEach((name, k) =>
      scrolls ? table.setAttribute(name, [0, 'region', table.tagName === 'PRE' ? 'Code' : 'Table'][k]) : table.removeAttribute(name));
  }
}
let timer;
const right = document.getElementById('right');
const soon = () => {
  clearTimeout(timer);
  timer = setTimeout(tend, 300);
};
new MutationObserver(soon).observe(right ?? document.body, { childList: true, subtree: true });
window.addEventListener('resize', soon);
