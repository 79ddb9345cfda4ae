// The list of tabs, in groups. Gradio runs this once, when the component mounts, with: element.
// It listens to the events 'tab' (a tab is shown; detail: its name), 'done' (its task is solved; detail: its name) and
// 'next' (detail: the container of the button to the next tab), and clicks Gradio's hidden tabs.

const STORE = 'bnmodel-done';
const tabs = [...element.querySelectorAll('[role=tab]')];
const names = tabs.map((tab) => tab.dataset.tab);
const withTask = tabs.filter((tab) => tab.querySelector('i'));
const find = (selector) => element.querySelector(selector);
let current;
let place; // below the tabs

function remembered() {
  try {
    return new Set(JSON.parse(localStorage.getItem(STORE) ?? '[]').filter((name) => names.includes(name)));
  } catch { // none, damaged, or not allowed here
    return new Set();
  }
}
const done = remembered();

function open(name) {
  document.querySelector(`.tab-container [data-tab-id="${name}"]`)?.click();
  urlState.show(name);
}

function mark() {
  tabs.forEach((tab) => {
    const solved = done.has(tab.dataset.tab);
    tab.classList.toggle('is-done', solved);
    if (solved) tab.setAttribute('aria-description', 'task done');
  });
  const solved = withTask.filter((tab) => done.has(tab.dataset.tab)).length;
  find('[data-progress]').textContent = withTask.length ? `${solved} of ${withTask.length} tasks done` : '';
}

function show(name) {
  if (!names.includes(name) || name === current) return;
  current = name;
  tabs.forEach((tab) => {
    const selected = tab.dataset.tab === name;
    tab.setAttribute('aria-selected', selected);
    tab.tabIndex = selected ? 0 : -1;
    tab.closest('.group').classList.toggle('is-current', tab.closest('.group').contains(chosen()));
  });
  const { title, says } = chosen().closest('.group').dataset;
  find('[data-aim]').innerHTML = '';
  find('[data-aim]').append(Object.assign(document.createElement('b'), { textContent: title }), `: ${says}`);
  reveal();
  offer();
}

const chosen = () => tabs[names.indexOf(current)];

function reveal() { // on a phone the list scrolls sideways
  if (!chosen()) return;
  const [from, to] = [strip, chosen()].map((part) => part.getBoundingClientRect());
  strip.scrollBy({ left: to.left - from.left - (from.width - to.width) / 2 });
}

const strip = find('.path');
strip.addEventListener('scroll', () => strip.classList.toggle('is-scrolled', strip.scrollLeft > 4));

function lead(name) {
  open(name);
  document.getElementById('path').scrollIntoView({ block: 'start' });
  tabs[names.indexOf(name)].focus({ preventScroll: true });
}

function offer() {
  const next = tabs[names.indexOf(current) + 1];
  if (!place) return;
  const button = Object.assign(document.createElement('button'), { type: 'button' });
  const target = next ?? tabs[0];
  const words = next ? 'Next' : 'From the start';
  button.append(
    Object.assign(document.createElement('b'), { textContent: `${words}: ${target.firstChild.textContent}` }),
    Object.assign(document.createElement('span'), { textContent: target.title }));
  button.addEventListener('click', () => lead(target.dataset.tab));
  place.replaceChildren(button);
}

element.addEventListener('click', ({ target }) => {
  const tab = target.closest('[role=tab]');
  if (tab) open(tab.dataset.tab);
});
element.addEventListener('keydown', (event) => {
  const at = tabs.indexOf(event.target.closest('[role=tab]'));
  const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
  if (at < 0 || to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  const tab = tabs.at(to % tabs.length);
  tab.focus();
  open(tab.dataset.tab);
});
document.addEventListener('click', (event) => { // a link to another tab keeps the page
  const link = event.target.closest('a[href^="?tab="]');
  const name = link && new URLSearchParams(link.search).get('tab');
  if (!names.includes(name) || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  lead(name);
});
document.addEventListener('next', ({ detail }) => {
  place = detail;
  offer();
});
document.addEventListener('tab', ({ detail }) => show(detail));
document.addEventListener('done', ({ detail }) => {
  if (done.has(detail)) return;
  done.add(detail);
  try {
    localStorage.setItem(STORE, JSON.stringify([...done]));
  } catch {} // then for this visit only
  mark();
  find('[role=status]').textContent = `Task done: ${tabs[names.indexOf(detail)]?.firstChild.textContent}`;
});

window.addEventListener('resize', reveal);

const asked = new URLSearchParams(location.search).get('tab');
mark();
show(names.includes(asked) ? asked : names[0]);
