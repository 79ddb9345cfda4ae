// The ear of a tab. The page says 'digit' when the drawing or the model has changed; the tab's heading hears it and
// passes it on as its 'input' event, but only while it is visible: a hidden tab catches up when it is shown.
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
new ResizeObserver(refresh).observe(element); // shown, hidden, or only just built

// Beside the heading: the controls as at first (the 'clear' event), and a link to them as they are now.
element.addEventListener('click', async ({ target }) => {
  if (target.dataset.do === 'reset') trigger('clear');
  if (target.dataset.do !== 'link') return;
  const words = (await urlState.copy()) ? 'Copied' : 'Not copied: take the address';
  const say = (label, spoken) => {
    target.textContent = label;
    element.querySelector('[role=status]').textContent = spoken;
  };
  say(words, words);
  setTimeout(() => say('Copy link', ''), 2000);
});
