// What the page asks of the server. Its token, where it has one, is kept for this tab alone.

export class Problem extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

const TOKEN = "omniimage token";

export function setToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

/** The response to a request; a Problem, with the server's words, where it refuses. `body`: a Blob, or what becomes JSON. */
export async function ask(path, { method = "GET", body = undefined, signal = undefined } = {}) {
  const headers = {};
  const token = globalThis.sessionStorage?.getItem(TOKEN);
  if (token) headers.authorization = `Bearer ${token}`;
  if (body !== undefined && !(body instanceof Blob)) {
    headers["content-type"] = "application/json";
    body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, { method, headers, body, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The server does not answer.", 0);
  }
  if (response.ok) return response;
  throw new Problem(await reason(response), response.status);
}

async function reason(response) {
  const text = await response.text();
  try {
    return JSON.parse(text).error.message;
  } catch {
    return text || `The server answers with ${response.status}.`;
  }
}

/** The events of a stream of server-sent ones, {name, data}, as they come. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const event = parsed(block);
        if (event) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** One event of its lines; null where it has no data. */
export function parsed(block) {
  let name = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) name = line.slice(6).trim();
    else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
  }
  return data.length ? { name, data: JSON.parse(data.join("\n")) } : null;
}
