// The list of conversations: open, rename, delete. The newest stands first.

import { copyOf, momentOf, place } from './elements.js';

export class ConversationList {
  items = [];
  next = '/api/sessions/?limit=50';

  /** `rename` and `remove` do it on the server, `fail` is told what went wrong. */
  constructor(list, more, { api, rename, remove, fail }) {
    Object.assign(this, { list, more, api, rename, remove, fail });
    list.replaceChildren();
    list.onkeydown = (event) => this.press(event);
    more.onclick = () => this.read().catch(fail);
  }

  async read() {
    const { rows, next } = await this.api.page(this.next);
    for (const session of rows) this.put(session);
    this.next = next;
    this.more.hidden = !next;
  }

  /** Read one conversation again; it may have a new place. */
  async refresh(ref) {
    this.put(await this.api.json('GET', `/api/sessions/${ref}/`));
  }

  find(ref) {
    return this.items.find((item) => item.session.session_id === ref);
  }

  put(session) {
    const item = this.find(session.session_id) ?? this.itemOf(session);
    item.session = session;
    item.title.textContent = session.title;
    const count = `${session.message_count} message${session.message_count === 1 ? '' : 's'}`;
    item.about.textContent = `${count} · ${momentOf(session.updated_at)}`;
    item.edit.ariaLabel = `Rename ${session.title}`;
    item.trash.ariaLabel = `Delete ${session.title}`;
    this.items.sort((one, other) => (one.session.updated_at < other.session.updated_at ? 1 : -1));
    place(this.list, item.node, this.items[this.items.indexOf(item) + 1]?.node);
  }

  itemOf(session) {
    const item = { ...copyOf('item', 'link', 'title', 'about', 'edit', 'trash'), session };
    item.link.href = `#${session.session_id}`;
    item.edit.onclick = () => this.editTitle(item);
    item.trash.onclick = () => this.remove(item.session).catch(this.fail);
    this.items.push(item);
    return item;
  }

  take(ref) {
    this.find(ref)?.node.remove();
    this.items = this.items.filter((item) => item !== this.find(ref));
  }

  /** Show which conversation is open. */
  mark(ref) {
    for (const item of this.items) item.link.ariaCurrent = item === this.find(ref) ? 'page' : null;
  }

  // Up and down go through the list; F2 renames, Delete deletes.
  press(event) {
    const index = this.items.findIndex((item) => item.link === event.target);
    const item = this.items[index];
    const keys = {
      ArrowDown: () => this.items[index + 1]?.link.focus(),
      ArrowUp: () => this.items[index - 1]?.link.focus(),
      F2: () => this.editTitle(item),
      Delete: () => item.trash.click(),
    };
    if (!item || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  }

  editTitle({ node, link, session }) {
    const { node: form } = copyOf('title-form');
    const input = form.elements.title;
    const end = (title) => {
      form.onsubmit = input.onblur = null;
      const hadFocus = form.contains(document.activeElement);
      form.remove();
      if (hadFocus) link.focus();
      if (title && title !== session.title) this.rename(session, title).catch(this.fail);
    };
    input.value = session.title;
    input.onblur = () => end(input.value.trim());
    form.onsubmit = (event) => {
      event.preventDefault();
      end(input.value.trim());
    };
    input.onkeydown = (event) => {
      event.stopPropagation();
      if (event.key === 'Escape' && !event.isComposing) end(null);
    };
    node.prepend(form);
    input.select();
  }
}
