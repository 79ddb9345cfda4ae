// The heading of a tab. When the page sends 'digit' because the drawing or the model has changed, it triggers its
// 'input' event. A hidden tab does so when it is shown.
let stale = true;
const refresh = () => {
  if (!stale || !element.offsetParent) return;
  stale = false;
  trigger('input');
};
document.addEventListener('digit', () => {
  stale = true;
  refresh();
});
new ResizeObserver(refresh).observe(element); // shown, hidden, or just built

// The buttons beside the heading: reset the controls (the 'clear' event), and copy a link.
element.addEventListener('click', async ({ target }) => {
  if (target.dataset.do === 'reset') trigger('clear');
  if (target.dataset.do !== 'link') return;
  const words = (await urlState.copy()) ? 'Copied' : 'Failed: copy the address';
  const say = (label, spoken) => {
    target.textContent = label;
    element.querySelector('[role=status]').textContent = spoken;
  };
  say(words, words);
  setTimeout(() => say('Copy link', ''), 2000);
});

// The task is done once the tab contains an element with data-done.
const task = element.querySelector('.task');
const panel = element.closest('[role=tabpanel]');
const solved = () => {
  if (!panel.querySelector('[data-done]')) return;
  task.classList.add('is-done');
  observer.disconnect();
  document.dispatchEvent(new CustomEvent('done', { detail: task.dataset.tab }));
};
const observer = new MutationObserver(solved);
if (task && panel) {
  observer.observe(panel, { childList: true, subtree: true });
  solved();
}
if (panel) panel.setAttribute('aria-labelledby', panel.id.replace('tab-', 'to-'));
