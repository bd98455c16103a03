// The real better-auth on PostgreSQL, in one process and without a port. Each line of stdin is a command in JSON:
// {options, environment, plugins, pool} say how it is set up, `method`, `path`, `headers` and `body` are a request;
// {migrate: true} makes its tables, {end: true} closes its connections. Each is answered by a line of JSON.
import { createInterface } from "node:readline";
import { betterAuth } from "better-auth";
import { getMigrations } from "better-auth/db/migration";
import { admin, bearer, jwt } from "better-auth/plugins";
import pg from "pg";

console.log = console.info = console.warn = console.error; // stdout is for the answers.

const PLUGINS = { admin, bearer, jwt };
const running = new Map();

async function start({ options, environment, plugins, pool }) {
  const database = new pg.Pool(pool);
  database.on("error", () => {}); // Of an idle connection whose database is dropped: nobody waits for it.
  Object.assign(process.env, environment);
  const auth = betterAuth({ ...options, database, plugins: plugins.map((name) => PLUGINS[name]()) });
  await auth.$context;
  for (const name of Object.keys(environment)) delete process.env[name];
  return { auth, database };
}

async function started({ options, environment, plugins, pool }) {
  const key = JSON.stringify([options, environment, plugins, pool]);
  if (!running.has(key)) running.set(key, await start({ options, environment, plugins, pool }));
  return running.get(key).auth;
}

async function end() {
  for (const { database } of running.values()) await database.end();
  running.clear();
  return {};
}

async function migrate(auth) {
  await (await getMigrations(auth.options)).runMigrations();
  return {};
}

async function request(auth, { method, path, headers, body }) {
  const url = `${auth.options.baseURL}/api/auth${path}`;
  const answer = await auth.handler(new Request(url, { method, headers, body: body && JSON.stringify(body) }));
  const text = await answer.text();
  return { status: answer.status, headers: Object.fromEntries(answer.headers), body: text && JSON.parse(text) };
}

async function done(command) {
  if (command.end) return end();
  const auth = await started(command);
  return command.migrate ? migrate(auth) : request(auth, command);
}

for await (const line of createInterface({ input: process.stdin })) {
  const answer = await done(JSON.parse(line)).catch((error) => ({ error: String(error.stack) }));
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await end();
