// The messages of the open conversation. An entry shows a stored message, or a draft: what a stream has told before
// the message was read. Drafts stand last, in the order of the messages that they become.

import { copyOf, momentOf, place } from './elements.js';

const SPEAKERS = { user: 'You', assistant: 'Assistant', system: 'System', tool: 'Tool' };
const MARKERS = {
  streaming: (name) => `Calling ${name}...`,
  complete: (name) => `${name} ran`,
  interrupted: (name) => `${name} was interrupted`,
  failed: (name) => `${name} failed`,
};
const FENCE = /(?<![^\n])```[^\n`]*(?:\n|$)/;

export class Transcript {
  entries = [];
  isAtEnd = true;

  /** `pane` scrolls; `list` is in it. */
  constructor(pane, list) {
    Object.assign(this, { pane, list });
    pane.onscroll = () => {
      this.isAtEnd = pane.scrollHeight - pane.scrollTop - pane.clientHeight < 60;
    };
  }

  clear() {
    this.entries = [];
    this.list.replaceChildren();
    this.pane.scrollTop = 0;
    this.isAtEnd = true;
  }

  get stored() {
    return this.entries.filter((entry) => entry.row.id).map((entry) => entry.row);
  }

  get drafts() {
    return this.entries.filter((entry) => !entry.row.id);
  }

  /** Show a stored message, or what changed in it. The first draft becomes the first new message of its role. */
  put(row) {
    const known = this.entries.find((entry) => entry.row.id === row.id);
    const [first] = this.drafts.filter((entry) => entry.row.role === row.role);
    this.show(known ?? first ?? this.entryOf(row), row);
  }

  draft(role, fields) {
    const row = { role, content: '', status: 'streaming', ...fields };
    return this.show(this.entryOf(row), row);
  }

  dropDrafts() {
    this.remove((entry) => !entry.row.id);
  }

  remove(isGone) {
    this.entries.filter(isGone).forEach((entry) => entry.node.remove());
    this.entries = this.entries.filter((entry) => !isGone(entry));
  }

  // What a stream tells

  /** The stream begins again: a running text comes once more from its beginning. */
  restart() {
    for (const entry of this.entries) entry.heard = '';
  }

  /** More of a running text: of a message that is known, or of the one that this stream writes. */
  say(content, id) {
    const isRunning = ({ row }) => (id ? row.id === id : row.role === 'assistant' && row.status === 'streaming');
    const entry = this.entries.findLast(isRunning) ?? this.draft('assistant');
    entry.heard += content;
    this.show(entry);
  }

  endText() {
    const last = this.entries.at(-1);
    if (last?.row.role === 'assistant') this.show(last, { ...last.row, content: last.heard, status: 'complete' });
  }

  endTool(name, outcome) {
    const entry = this.drafts.find(({ row }) => row.tool_name === name && row.status === 'streaming');
    if (entry) this.show(Object.assign(entry, { outcome }), { ...entry.row, status: 'complete' });
  }

  // How an entry looks

  entryOf(row) {
    const isMarker = row.role === 'tool_call';
    const parts = isMarker ? ['what', 'result', 'trace', 'span'] : ['speaker', 'text', 'label'];
    const entry = { ...copyOf(isMarker ? 'marker' : 'line', ...parts), heard: '' };
    entry.node.classList.add(row.role);
    if (!isMarker) entry.speaker.textContent = SPEAKERS[row.role];
    this.entries.push(entry);
    return entry;
  }

  show(entry, row = entry.row) {
    const { node } = entry;
    entry.row = row;
    this.entries.sort((one, other) => rank(one) - rank(other));
    place(this.list, node, this.entries[this.entries.indexOf(entry) + 1]?.node);
    node.dataset.status = row.status;
    // Read out when it is whole, not word by word.
    node.ariaBusy = String(row.status === 'streaming');
    if (row.created_at) node.title = momentOf(row.created_at);
    if (row.role === 'tool_call') showMarker(entry);
    else showText(entry);
    if (this.isAtEnd) this.pane.scrollTop = this.pane.scrollHeight;
    return entry;
  }
}

const rank = ({ row }) => row.position ?? Number.MAX_SAFE_INTEGER;

function showText(entry) {
  const { row, heard, text, label } = entry;
  // What is stored of a running text lags behind what was heard, or is ahead of it: one begins with the other.
  const shown = row.status === 'streaming' && heard.length > row.content.length ? heard : row.content;
  if (entry.shown !== shown) text.replaceChildren(...blocksOf(shown));
  entry.shown = shown;
  label.textContent = ['interrupted', 'failed'].includes(row.status) ? row.status : '';
}

/** A text's paragraphs, and its code between lines of ```, of which the last may still be to come. */
function blocksOf(text) {
  return text.split(FENCE).map((part, index, { length }) => {
    if (index % 2) return Object.assign(document.createElement('pre'), { textContent: part.replace(/\n$/, '') });
    const words = index ? part.replace(/^\n+/, '') : part;
    return index < length - 1 ? words.replace(/(?<!\n)\n+$/, '') : words;
  });
}

function showMarker({ row, outcome, what, ...parts }) {
  what.textContent = MARKERS[row.status](row.tool_name || 'a tool');
  const facts = { result: outcome, trace: row.trace_id, span: row.span_id };
  for (const [part, fact] of Object.entries(facts)) parts[part].textContent = fact ?? '';
}
