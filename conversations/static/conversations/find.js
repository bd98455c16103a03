// The key / leads to the search box on top of every page. Without this file Tab does.
"use strict";

document.addEventListener("keydown", (event) => {
  const box = document.getElementById("staff-find-text");
  const isTyping = event.target.isContentEditable || /^(input|textarea|select)$/i.test(event.target.tagName);
  const isOurs = event.key === "/" && !event.ctrlKey && !event.altKey && !event.metaKey && !event.isComposing;
  if (!box || !isOurs || isTyping || event.defaultPrevented || document.querySelector("dialog[open]")) return;
  event.preventDefault();
  box.focus();
  box.select();
});
