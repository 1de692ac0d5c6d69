// What tests/serving/test_page.py has node run beside the scripts of the page.

import assert from "node:assert/strict";
import { ask, events } from "./api.mjs";
import { forget, known, remember, said, titleOf, withoutLast, withPicture } from "./talk.mjs";

const sent = new TextEncoder().encode('event: text\ndata: {"text": "größer"}\n\ndata: {"n": 1}\n\n: a comment\n\nevent: done\ndata: {}\n\nevent: cut');
for (const n of [1, 3, 7, 1000]) {
  const body = new ReadableStream({
    start(controller) {
      for (let i = 0; i < sent.length; i += n) controller.enqueue(sent.slice(i, i + n));
      controller.close();
    },
  });
  const heard = [];
  for await (const event of events({ body })) heard.push(event);
  assert.deepEqual(heard, [
    { name: "text", data: { text: "größer" } }, { name: "message", data: { n: 1 } }, { name: "done", data: {} },
  ]);
}

globalThis.fetch = async (path, { headers }) => {
  assert.equal(headers["content-type"], "application/json");
  return new Response(JSON.stringify({ error: { message: "no place" } }), { status: 429 });
};
await assert.rejects(ask("/a", { method: "POST", body: {} }), (error) => error.message === "no place" && error.status === 429);

const star = said(" a star ", ["001.png"]);
assert.deepEqual(star, { role: "user", content: [{ type: "picture", name: "001.png" }, { type: "text", text: "a star" }] });
const drawn = { role: "assistant", content: [{ type: "text", text: "so" }, { type: "picture", name: "002.png" }] };
assert.deepEqual(withPicture([star, drawn], "003.png")[1].content[1], { type: "picture", name: "003.png" });
assert.deepEqual(withoutLast([star, drawn, star, drawn]), [star, drawn]);
assert.deepEqual(withoutLast([star]), []);
assert.equal(titleOf([star]), "a star");

const storage = { items: {}, getItem(key) { return this.items[key] ?? null; }, setItem(key, value) { this.items[key] = value; } };
const [a, b] = ["a".repeat(32), "b".repeat(32)];
remember(a, "first", storage);
remember(b, "x".repeat(99), storage);
remember(a, "again", storage);
assert.deepEqual(known(storage).map((one) => [one.name, one.title.length]), [[a, 5], [b, 60]]);
forget(a, storage);
assert.deepEqual(known(storage).map((one) => one.name), [b]);
storage.items["omniimage conversations"] = "broken";
assert.deepEqual(known(storage), []);
