// What the page is built with. Stored text is hostile: it goes in as text, never as markup.

/** A copy of what a template of the page holds, and its parts by class. */
export function copyOf(template, ...parts) {
  const node = document.getElementById(template).content.firstElementChild.cloneNode(true);
  return { node, ...Object.fromEntries(parts.map((part) => [part, node.querySelector(`.${part}`)])) };
}

/** Put a node into a list, before another. One that is there already is not moved: it would lose its focus. */
export function place(list, node, before = null) {
  if (node.parentNode !== list || (node !== before && node.nextSibling !== before)) list.insertBefore(node, before);
}

/** A moment for people: the time of day for today's, the date for all others. */
export function momentOf(text) {
  const at = new Date(text);
  if (at.toDateString() === new Date().toDateString()) return at.toLocaleTimeString([], { timeStyle: 'short' });
  return at.toLocaleDateString([], { dateStyle: 'medium' });
}

export const pause = (milliseconds) => new Promise((resume) => setTimeout(resume, milliseconds));
