// The playground: who is there, which conversation is open, and what is sent.

import { Api, Problem, newKey } from './api.js';
import { Conversation } from './conversation.js';
import { ConversationList } from './conversations.js';
import { Transcript } from './transcript.js';

const TOKEN = 'chatstore-token';
const TITLE_LENGTH = 60;
const REF = /^#([0-9a-f-]{36})$/;

const page = Object.fromEntries([...document.querySelectorAll('[id]')].map((node) => [node.id, node]));
const shown = document.body.dataset;
const demo = document.querySelector('meta[name=demo-token]').content;
const transcript = new Transcript(page.pane, page.transcript);

let api = null;
let list = null;
let conversation = null;
// Ends the reading of what is open, never the reply itself: that belongs to the server.
let reading = new AbortController();
// What was sent last, until it is known to be stored: sent once more, it has the same key.
let unsure = null;

// Who is there

async function enter(token) {
  try {
    if (!/^[\x21-\x7e]+$/.test(token)) throw new Error('A token has no spaces and no special letters.');
    api = new Api(token);
    const me = await api.json('GET', '/api/me/');
    page.who.textContent = me.email || me.username;
    list = new ConversationList(page.conversations, page.more, { api, rename, remove, fail });
    await list.read();
    sessionStorage.setItem(TOKEN, token);
    page.token.value = page.refused.textContent = '';
    shown.state = 'in';
    page.message.focus();
  } catch (error) {
    leave(error.message);
    return;
  }
  await open();
}

function leave(why = '') {
  reading.abort();
  sessionStorage.removeItem(TOKEN);
  transcript.clear();
  page.conversations.replaceChildren();
  shown.state = 'out';
  shown.view = 'start';
  page.refused.textContent = why;
  page.token.focus();
}

function fail(error) {
  if (error instanceof Problem && error.status === 401) leave(error.message);
  else note(error.message);
}

/** Say something, with an undo where there is one. */
function note(text, undo = null) {
  page.said.textContent = text;
  page.undo.hidden = !undo;
  page.undo.onclick = undo;
}

// Which conversation is open

function show(ref) {
  conversation = ref ? new Conversation(api, ref, transcript, { showRunning, note }) : null;
  transcript.clear();
  shown.view = ref ? 'conversation' : 'start';
  page.earlier.hidden = true;
  showList(false);
  list.mark(ref);
  note('');
}

/** Open what the address names, and watch the reply that is being written, if one is. */
async function open() {
  show(REF.exec(location.hash)?.[1]);
  showRunning(false);
  await whileOpen(async (signal) => {
    if (conversation) await readBack(signal);
    if (conversation?.isUnfinished || conversation?.isRecent) await conversation.watch(signal);
  });
}

/** Do one thing with the open conversation, until the next. Its failure is shown, unless that has begun. */
async function whileOpen(work) {
  reading.abort();
  reading = new AbortController();
  const { signal } = reading;
  try {
    await work(signal);
    if (signal.aborted || !conversation) return;
    await list.refresh(conversation.ref);
    list.mark(conversation.ref);
  } catch (error) {
    if (!signal.aborted) fail(error);
  }
  if (!signal.aborted) showRunning(false);
}

async function readBack(signal) {
  await conversation.read(signal);
  page.earlier.hidden = !conversation.earlier;
}

function showRunning(running) {
  const hadFocus = document.activeElement === page.stop;
  shown.running = running;
  page.stop.hidden = !running;
  page.send.hidden = running;
  if (hadFocus && !running) page.message.focus();
}

function showList(isShown) {
  page.menu.ariaExpanded = String(isShown);
  shown.list = isShown ? 'shown' : 'hidden';
}

// What is sent

async function send(text) {
  if (shown.running === 'true' || !text.trim()) return;
  const isAgain = unsure?.text === text && unsure.ref === conversation?.ref;
  unsure = { text, ref: conversation?.ref, key: isAgain ? unsure.key : newKey() };
  note('');
  showRunning(true);
  page.message.value = '';
  await whileOpen(async (signal) => {
    try {
      if (!conversation) await beginNew(text, signal);
      transcript.isAtEnd = true;
      await conversation.say(text, unsure.key, signal);
      unsure = null;
    } catch (error) {
      if (signal.aborted) throw error;
      transcript.dropDrafts();
      page.message.value ||= text;
      if (error.code !== 'turn_running') throw error;
      fail(error);
      await conversation.watch(signal);
    }
  });
}

/** A session of its own first: its address is there before the reply begins. */
async function beginNew(text, signal) {
  const words = text.trim().replace(/\s+/g, ' ');
  const title = words.length > TITLE_LENGTH ? `${words.slice(0, TITLE_LENGTH).replace(/ \S*$/, '')}...` : words;
  const session = await api.json('POST', '/api/sessions/', { body: { title }, key: `${unsure.key}-session` });
  list.put(session);
  signal.throwIfAborted();
  unsure.ref = session.session_id;
  history.pushState(null, '', `#${session.session_id}`);
  show(session.session_id);
}

async function rename(session, title) {
  list.put(await api.json('PATCH', `/api/sessions/${session.session_id}/`, { body: { title } }));
}

async function remove(session) {
  const ref = session.session_id;
  const wasOpen = conversation?.ref === ref;
  await api.ask('DELETE', `/api/sessions/${ref}/`);
  list.take(ref);
  if (wasOpen) {
    history.replaceState(null, '', location.pathname);
    await open();
  }
  note(`“${session.title}” was deleted.`, () => restore(ref, wasOpen).catch(fail));
  page.undo.focus();
}

async function restore(ref, wasOpen) {
  list.put(await api.json('POST', `/api/sessions/${ref}/restore/`));
  list.find(ref).link.focus();
  note('');
  if (wasOpen) location.hash = ref;
}

// What people do

function stop() {
  if (shown.running === 'true') conversation?.stop().catch(fail);
}

function submitted(form, act) {
  form.onsubmit = (event) => {
    event.preventDefault();
    act();
  };
}

submitted(page.login, () => enter(page.token.value.trim()));
submitted(page.composer, () => send(page.message.value));
page.message.onkeydown = (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send(page.message.value);
};
page.new.onclick = () => {
  if (conversation) location.hash = '';
  showList(false);
  page.message.focus();
};
page.earlier.onclick = async () => {
  const below = page.pane.scrollHeight - page.pane.scrollTop;
  await readBack(reading.signal).catch(fail);
  page.pane.scrollTop = page.pane.scrollHeight - below;
};
page.demo.hidden = !demo;
page.demo.onclick = () => enter(demo);
page.leave.onclick = () => leave();
page.menu.onclick = () => showList(page.menu.ariaExpanded !== 'true');
page.stop.onclick = stop;
page.starters.onclick = ({ target }) => target.matches('button') && send(target.textContent);
document.onkeydown = (event) => {
  if (event.key !== 'Escape') return;
  if (page.menu.ariaExpanded === 'true') showList(false);
  else stop();
};
window.onhashchange = () => shown.state === 'in' && open();

const token = sessionStorage.getItem(TOKEN) || demo;
if (token) enter(token);
else shown.state = 'out';
