// The API with the caller's token (docs/api.md), and how its server-sent events are read.

// Streams say something every 15 seconds; one that is silent for longer is broken.
const SILENCE_MS = 40_000;

/** What the server refused: its `detail` is the message. */
export class Problem extends Error {
  constructor(status, { detail, code }) {
    super(detail || `The server answered ${status}.`);
    Object.assign(this, { status, code, passes: status >= 500 || status === 429 });
  }
}

/** An Idempotency-Key. (`crypto.randomUUID` is missing on plain http.) */
export function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

export class Api {
  // How far the server's clock is ahead of ours.
  aheadMs = 0;

  constructor(token) {
    this.token = token;
  }

  /** A response that is no problem. */
  async ask(method, path, { body, key, signal } = {}) {
    const headers = { Authorization: `Bearer ${this.token}` };
    if (body) headers['Content-Type'] = 'application/json';
    if (key) headers['Idempotency-Key'] = key;
    const how = { credentials: 'omit', cache: 'no-store', signal };
    const request = { method, headers, body: body && JSON.stringify(body), ...how };
    const response = await fetch(path, request).catch((error) => {
      throw error instanceof TypeError ? new Error('The server cannot be reached.') : error;
    });
    if (!response.ok) throw new Problem(response.status, await response.json().catch(() => ({})));
    const date = Date.parse(response.headers.get('Date'));
    if (date) this.aheadMs = date - Date.now();
    return response;
  }

  async json(...request) {
    return (await this.ask(...request)).json();
  }

  /** One page of a list, and the address of the next one, if any. */
  async page(path, signal) {
    const response = await this.ask('GET', path, { signal });
    const link = /<([^>]+)>;\s*rel="next"/.exec(response.headers.get('Link') ?? '');
    // Behind a proxy the server may not know its own scheme and name.
    const next = link && new URL(link[1], location);
    return { rows: await response.json(), next: next && next.pathname + next.search };
  }

  /** The milliseconds since a moment, by the server's clock. */
  since(moment) {
    return Date.now() + this.aheadMs - Date.parse(moment);
  }
}

/** The events of a stream; null where it only says that it is there. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  try {
    for (;;) {
      const { value, done } = await inTime(reader.read());
      if (done) return;
      const frames = (text + value).split('\n\n');
      text = frames.pop();
      for (const frame of frames) {
        // No regular expression: to it a line also ends at U+2028 and U+2029, which stand in texts.
        const data = frame.split('\n').find((line) => line.startsWith('data:'));
        yield JSON.parse(data?.slice(5) ?? 'null');
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function inTime(promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(reject, SILENCE_MS, new Error('The connection is silent.'));
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
