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
// What was sent, by its conversation, until it is known to be stored: sent once more, it has the same key.
const unsure = new Map();
let isEntering = false;

// Who is there

async function enter(token) {
  if (!/^[\x21-\x7e]+$/.test(token)) return leave('A token has no spaces and no special letters.');
  if (isEntering) return;
  isEntering = true;
  try {
    api = new Api(token);
    const me = await api.json('GET', '/api/me/');
    page.who.textContent = me.email || me.username;
    list = new ConversationList(page.conversations, page.more, { api, rename, remove, fail });
    await list.read();
    sessionStorage.setItem(TOKEN, token);
    page.token.value = page.refused.textContent = '';
    page.again.hidden = true;
    shown.state = 'in';
    page.message.focus();
  } catch (error) {
    if (error.status === 401) leave(error.message);
    else showOut(error.message, () => enter(token));
    return;
  } finally {
    isEntering = false;
  }
  await open();
}

function leave(why = '') {
  sessionStorage.removeItem(TOKEN);
  showOut(why);
}

/** Ask for a token; or offer to try `again` with the one that is there. */
function showOut(why, again = null) {
  reading.abort();
  transcript.clear();
  page.conversations.replaceChildren();
  shown.state = 'out';
  shown.view = 'start';
  page.refused.textContent = why;
  page.again.hidden = !again;
  page.again.onclick = again;
  (again ? page.again : page.token).focus();
}

function fail(error) {
  if (error instanceof Problem && error.status === 401) leave(error.message);
  else note(error.message);
}

/** Say something, with what can be done about it, if anything. */
function note(text, act = null, label = 'Undo') {
  page.said.textContent = text;
  page.undo.textContent = label;
  page.undo.hidden = !act;
  page.undo.onclick = act;
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
  if (unsure.get(ref)?.isLost) giveBack(unsure.get(ref));
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
  const [from, to] = running ? [page.send, page.stop] : [page.stop, page.message];
  const hadFocus = document.activeElement === from;
  shown.running = running;
  page.stop.hidden = !running;
  page.send.hidden = running;
  if (hadFocus) to.focus();
}

/** On a phone the list covers the rest. */
function showList(isShown) {
  if (!isShown && page.list.contains(document.activeElement)) page.menu.focus();
  page.menu.ariaExpanded = String(isShown);
  shown.list = isShown ? 'shown' : 'hidden';
}

// What is sent

async function send(text) {
  if (shown.running === 'true' || !text.trim()) return;
  const before = unsure.get(conversation?.ref);
  const sent = { text, ref: conversation?.ref, key: before?.text === text ? before.key : newKey() };
  unsure.set(sent.ref, sent);
  note('');
  showRunning(true);
  page.message.value = '';
  const mine = list;
  await whileOpen(async (signal) => {
    try {
      const place = conversation ?? (await beginNew(sent, signal));
      if (!signal.aborted) transcript.isAtEnd = true;
      await place.say(sent, signal);
      settle(sent);
    } catch (error) {
      if (signal.aborted && mine === list) endElsewhere(sent, error);
      if (signal.aborted) throw error;
      transcript.dropDrafts();
      giveBack(sent);
      if (error.code !== 'turn_running') throw error;
      fail(error);
      await conversation.watch(signal);
    }
  });
}

/** A session of its own first: its address is there before the reply begins. */
async function beginNew(sent, signal) {
  const mine = list;
  const body = { title: brief(sent.text) };
  const session = await mine.api.json('POST', '/api/sessions/', { body, key: `${sent.key}-session` });
  const ref = session.session_id;
  settle(sent);
  sent.ref = ref;
  if (mine === list) {
    unsure.set(ref, sent);
    list.put(session);
  }
  if (signal.aborted) return new Conversation(mine.api, ref, transcript, { showRunning() {}, note() {} });
  history.pushState(null, '', `#${ref}`);
  show(ref);
  return conversation;
}

function brief(text) {
  const words = text.trim().replace(/\s+/g, ' ');
  return words.length > TITLE_LENGTH ? `${words.slice(0, TITLE_LENGTH).replace(/ \S*$/, '')}...` : words;
}

/** It is known to be stored. */
function settle(sent) {
  if (unsure.get(sent.ref) === sent) unsure.delete(sent.ref);
}

/** Put words that were not sent before those that were written since. */
function giveBack(sent) {
  sent.isLost = false;
  page.message.value = [sent.text, page.message.value].filter(Boolean).join('\n\n');
}

/** What was sent has an end, and people have gone elsewhere meanwhile. Words that were not sent wait where they
 * were written. */
function endElsewhere(sent, error) {
  const isHere = conversation?.ref === sent.ref;
  if (sent.isTaken) {
    settle(sent);
    if (isHere && shown.running !== 'true') open();
    else if (list.find(sent.ref)) list.refresh(sent.ref).catch(fail);
    return;
  }
  sent.isLost = true;
  unsure.set(sent.ref, sent);
  if (isHere) giveBack(sent);
  const what = error instanceof Problem ? `was not sent. ${error.message}` : 'may not have been sent.';
  const goThere = () => {
    location.hash = sent.ref ?? '';
  };
  note(`“${brief(sent.text)}” ${what}`, isHere ? null : goThere, 'Go there');
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
  if (page.earlier.hidden) page.pane.focus();
};
page.demo.hidden = !demo;
page.demo.onclick = () => enter(demo);
page.leave.onclick = () => {
  unsure.clear();
  page.message.value = '';
  list = null;
  leave();
};
page.menu.onclick = () => showList(page.menu.ariaExpanded !== 'true');
// No other conversation is opened by it, which would hide the list.
page.conversations.onclick = ({ target }) => target.closest('[aria-current]') && showList(false);
page.stop.onclick = stop;
// An Enter that is held down on Send is no wish to stop.
page.stop.onkeydown = (event) => event.repeat && event.preventDefault();
page.starters.onclick = ({ target }) => {
  if (!target.matches('button')) return;
  page.message.focus();
  send(target.textContent);
};
document.onkeydown = (event) => {
  if (event.key !== 'Escape' || event.isComposing) return;
  if (page.menu.ariaExpanded === 'true') showList(false);
  else stop();
};
window.onhashchange = () => shown.state === 'in' && open();

const token = sessionStorage.getItem(TOKEN) || demo;
if (token) enter(token);
else shown.state = 'out';
