// Keys, and the copy buttons. Without this file the page reads and links all the same.
"use strict";

const articles = [...document.querySelectorAll("article.said")];
const told = document.getElementById("told");
const keys = document.getElementById("keys");
let at = -1;

const linkOf = (key) => document.querySelector(`.places a[data-key="${key}"]`);

const tell = (text) => {
  told.textContent = text;
  clearTimeout(tell.timer);
  tell.timer = setTimeout(() => { told.textContent = ""; }, 3000);
};

const go = (index) => {
  at = index;
  const article = articles[at];
  article.focus({ preventScroll: true });
  article.scrollIntoView({ block: "start" });
};

// Where one reads: the message that has the focus, by a key or by a click, else the last one gone to.
const here = () => {
  const focused = articles.indexOf(document.activeElement.closest("article.said"));
  return focused >= 0 ? focused : at;
};

const follow = (key, otherwise) => {
  const link = linkOf(key);
  if (link) link.click();
  else tell(otherwise);
};

const step = (by, key, otherwise) => {
  const next = here() + by;
  if (articles[next]) go(next);
  else follow(key, otherwise);
};

const nextThat = (matches, key, otherwise) => {
  const from = here();
  const next = articles.findIndex((article, index) => index > from && matches(article));
  if (next >= 0) go(next);
  else follow(key, otherwise);
};

// The ends of the session, which this page may hold.
const end = (key, neighbour, index) => {
  if (articles.length && !linkOf(neighbour)) go(index);
  else follow(key, "There are no messages.");
};

const actions = {
  j: () => step(1, "j", "That was the last message."),
  k: () => step(-1, "k", "That was the first message."),
  u: () => nextThat((article) => article.dataset.role === "user", "u", "No later user message was found."),
  f: () => nextThat((article) => article.classList.contains("failed"), "f", "No later failure was found."),
  g: () => end("g", "k", 0),
  G: () => end("G", "j", articles.length - 1),
  r: () => {
    const link = linkOf("r");
    if (articles[here()]) link.hash = articles[here()].id;
    link.click();
  },
  "?": () => keys.showModal(),
};

const isTyping = (target) => target.isContentEditable || /^(input|textarea|select)$/i.test(target.tagName);

document.addEventListener("keydown", (event) => {
  const isOurs = Object.hasOwn(actions, event.key) && !event.ctrlKey && !event.altKey && !event.metaKey;
  if (!isOurs || event.isComposing || event.defaultPrevented || isTyping(event.target) || keys.open) return;
  event.preventDefault();
  actions[event.key]();
});

const copy = async (button) => {
  const text = button.dataset.copy;
  try {
    await navigator.clipboard.writeText(text);
    tell("Copied.");
  } catch {
    // A page without TLS has no clipboard: the id is selected, to be copied by hand.
    const range = document.createRange();
    range.selectNodeContents(button.parentElement.querySelector("code"));
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    tell("Selected: copy it with the keyboard.");
  }
};

for (const button of document.querySelectorAll("button.copy")) {
  button.hidden = false;
  button.addEventListener("click", () => copy(button));
}

const showKeys = document.getElementById("show-keys");
showKeys.hidden = false;
showKeys.addEventListener("click", () => keys.showModal());

// A page opened for one message begins there; a place in the address wins.
const place = location.hash ? document.getElementById(location.hash.slice(1)) : document.querySelector("article.marked");
const begin = articles.indexOf(place);
if (begin >= 0) {
  const details = place.querySelector("details");
  if (details) details.open = true;
  go(begin);
}
