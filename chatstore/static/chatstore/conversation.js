// The open conversation: what is stored of it, what is told of it, and how both come together.

import { Problem, events } from './api.js';
import { pause } from './elements.js';

const POLL_MS = 500;
const RETRY_MS = 2_000;
const FIRST_BYTE_MS = 5_000;
const QUIET_POLLS = 10;
// What is followed by nothing for so long is the last.
const PATIENCE_MS = { user: 60_000, tool_call: 60_000, assistant: 2_000 };
const SAID = { interrupted: 'The reply was interrupted.', failed: 'The assistant failed.' };

export class Conversation {
  hasRun = false;
  hasEnded = false;
  wasStopped = false;
  earlier = null;

  /** `showRunning` is told whether a reply is being written, `note` what people should know. */
  constructor(api, ref, transcript, { showRunning, note }) {
    Object.assign(this, { api, ref, transcript, showRunning, note, path: `/api/sessions/${ref}` });
  }

  /** Read the newest messages; later, those before them. */
  async read(signal) {
    const { rows, next } = await this.api.page(this.earlier ?? `${this.path}/messages/?order=desc`, signal);
    for (const row of rows) this.take(row);
    this.earlier = next;
  }

  /** Read what changed since the last time. A text that is being written changes without a new version. */
  async catchUp(signal) {
    const { stored } = this.transcript;
    const running = stored.filter((row) => row.status === 'streaming').map((row) => row.version - 1);
    const since = running.length ? Math.min(...running) : Math.max(0, ...stored.map((row) => row.version));
    const first = this.earlier ? stored[0].position : 0;
    let next = `${this.path}/messages/?since_version=${since}&limit=500`;
    while (next) {
      const page = await this.api.page(next, signal);
      for (const row of page.rows) if (row.position >= first) this.take(row);
      next = page.next;
    }
  }

  take(row) {
    this.hasRun ||= row.status === 'streaming';
    if (row.deleted) this.transcript.remove((entry) => entry.row.id === row.id);
    else this.transcript.put(row);
  }

  get isWriting() {
    return this.transcript.stored.some((row) => row.status === 'streaming');
  }

  /** Whether a reply is being written, as far as the messages show it. */
  get isUnfinished() {
    const last = this.transcript.stored.at(-1);
    const mayGoOn = last?.status === 'complete' && (last.role !== 'assistant' || this.hasRun);
    const waits = mayGoOn && !this.wasStopped && this.api.since(last.updated_at) < PATIENCE_MS[last.role];
    return !this.hasEnded && (waits || this.isWriting);
  }

  /** Whether more may come. */
  get isRecent() {
    const last = this.transcript.stored.at(-1);
    return Boolean(last) && this.api.since(last.updated_at) < PATIENCE_MS.user;
  }

  /** Send, and show the reply as it comes. A connection that breaks is no failure: the reply goes on without us. */
  async say(sent, signal) {
    this.hasRun = true;
    this.hasEnded = this.wasStopped = false;
    if (!signal.aborted) this.transcript.draft('user', { content: sent.text, status: 'complete' });
    try {
      for await (const event of events(await this.deliver(sent, signal))) this.tell(event);
    } catch (error) {
      if (signal.aborted || error instanceof Problem) throw error;
    }
    await this.watch(signal);
    const isLost = !sent.isTaken && this.transcript.drafts.some(({ row }) => row.role === 'user');
    this.transcript.dropDrafts();
    if (isLost) throw new Error('This was not sent. Please try again.');
  }

  /** The answer to what is `sent`. Whoever goes elsewhere takes nothing back: `signal` ends only its reading. */
  async deliver(sent, signal) {
    const reading = new AbortController();
    const body = { message: sent.text, conversation_id: this.ref };
    const request = { body, key: sent.key, signal: reading.signal };
    const response = await this.api.ask('POST', '/api/chat/stream', request);
    sent.isTaken = true;
    signal.addEventListener('abort', () => reading.abort());
    if (signal.aborted) reading.abort();
    signal.throwIfAborted();
    return response;
  }

  async stop() {
    await this.api.ask('POST', `${this.path}/stop/`);
    this.wasStopped = true;
  }

  /** Take an event of `/api/chat/stream`, or of `/events/`, which tells of messages as they are stored. */
  tell(event) {
    const { type, message_id: id } = event ?? {};
    if (/^message_/.test(type) && event.position) this.take(event);
    else if (type === 'message_created') this.transcript.endText();
    else if (type === 'text_delta') this.transcript.say(event.content, id);
    else if (type === 'tool_call_started' && !id) this.transcript.draft('tool_call', { tool_name: event.tool_name });
    else if (type === 'tool_call_completed' && !id) this.transcript.endTool(event.tool_name, event.result_summary);
    if (!['done', 'error', 'session_deleted'].includes(type)) return;
    this.hasEnded = true;
    if (event.detail || SAID[event.status]) this.note(event.detail ?? SAID[event.status]);
  }

  /** Keep the transcript up to date until nothing is being written any more. Reading only: nothing is sent. */
  async watch(signal) {
    let streams = true;
    let isLost = false;
    for (let quiet = 0; quiet < QUIET_POLLS; ) {
      try {
        await this.catchUp(signal);
        if (this.isWriting) this.hasEnded = false; // What is stored counts.
        if (isLost) this.note('');
        isLost = false;
        this.showRunning(this.isUnfinished);
        if (streams && this.isUnfinished) streams = await this.follow(signal);
        else if (this.hasEnded) return;
        else await pause(POLL_MS);
        quiet = this.isUnfinished ? 0 : quiet + 1;
      } catch (error) {
        if (signal.aborted || (error instanceof Problem && !error.passes)) throw error;
        isLost = true;
        this.note('The connection is lost. Trying again ...');
        await pause(RETRY_MS);
      }
    }
  }

  /** Listen to the live events, until the reply's end. False where the server, or a proxy, has no such stream. */
  async follow(signal) {
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(), FIRST_BYTE_MS);
    const look = setInterval(() => this.showRunning(this.isUnfinished), 1_000);
    let isOpen = false;
    try {
      const both = AbortSignal.any([signal, late.signal]);
      for await (const event of events(await this.api.ask('GET', `${this.path}/events/`, { signal: both }))) {
        if (!isOpen) {
          clearTimeout(timer);
          isOpen = true;
          this.transcript.restart();
          await this.catchUp(signal); // What ended meanwhile is not told.
        }
        // The end of the reply before may be told once more.
        if (event?.type !== 'done' || !this.isWriting) this.tell(event);
        if (this.hasEnded || (!event && !this.isUnfinished)) break;
      }
    } catch (error) {
      if (signal.aborted || isOpen) throw error;
    } finally {
      clearTimeout(timer);
      clearInterval(look);
    }
    if (!this.hasEnded) await pause(POLL_MS);
    return isOpen;
  }
}
