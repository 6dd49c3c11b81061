// The demo with a client whose types are those of the server's OpenAPI document (`api.d.ts`, made by openapi-typescript):
// create, list with a filter, update with `If-Match`, delete, a problem. Usage: node demo.js URL TOKEN
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

declare const process: { argv: string[] };

const [baseUrl, token] = process.argv.slice(2);
if (baseUrl === undefined || token === undefined) throw new Error("usage: node demo.js URL TOKEN");
const api = createClient<paths>({
  baseUrl,
  headers: { Authorization: `Bearer ${token}` },
  // Lists are written as the document says: `sort=-total,name`.
  querySerializer: { array: { style: "form", explode: false } },
});

function check(holds: boolean, what: string): asserts holds {
  if (!holds) throw new Error(what);
}

// What the model requires, the compiler requires, too.
const order: components["schemas"]["order.data"] = { name: "first", total: 7.5, customer: { name: "Ada", city: "London" } };
// @ts-expect-error: `name` is missing
const nameless: components["schemas"]["order.data"] = { total: 1 };
// @ts-expect-error: a number is no text
const numbered: components["schemas"]["order.data"] = { name: 1 };
void [nameless, numbered];

const created = await api.POST("/models/order/instances", {
  params: { header: { "Idempotency-Key": "demo-1" } },
  body: { id: "o-1", data: order },
});
check(created.response.status === 201 && created.data !== undefined, "it is created");
const etag = created.response.headers.get("etag");
check(etag !== null && created.response.headers.get("location") === "/api/models/order/instances/o-1", "it has a place");
await api.POST("/models/order/instances", { body: { id: "o-2", data: { name: "second", total: 1 } } });

const page = await api.GET("/models/order/instances", {
  params: { query: { "filter[total][gte]": 5, sort: ["-total", "name"], count: true } },
});
check(page.data?.count === 1 && page.data.items[0]?.data.total === 7.5, "one matches the filter");

const path = { id: "o-1" };
const data = { ...order, total: 8, paid: true };
const updated = await api.PUT("/models/order/instances/{id}", {
  params: { path, header: { "If-Match": etag } },
  body: { data },
});
check(updated.data !== undefined && "revision" in updated.data && updated.data.revision === 2, "it has another revision");

const stale = await api.PUT("/models/order/instances/{id}", {
  params: { path, header: { "If-Match": etag } },
  body: { data },
});
check(stale.response.status === 412 && stale.error?.type === "/problems/precondition-failed", "somebody was faster");

const wrong = await api.POST("/models/order/instances", {
  body: { data: { name: "", total: 1 } },
});
check(wrong.response.status === 422 && wrong.error !== undefined, "the name is too short");
check(wrong.error.type === "/problems/invalid" && wrong.error.errors?.[0]?.pointer === "/data/name", "and it says so");

const patched = await api.PATCH("/models/order/instances/{id}", {
  params: { path },
  body: { total: 9 },
  headers: { "Content-Type": "application/merge-patch+json" },
});
check(patched.data !== undefined && "data" in patched.data && patched.data.data.total === 9, "a part is changed");

const deleted = await api.DELETE("/models/order/instances/{id}", { params: { path } });
check(deleted.response.status === 204, "it is gone");
const gone = await api.GET("/models/order/instances/{id}", { params: { path } });
check(gone.error?.type === "/problems/not-found", "it is gone for readers, too");
console.log("the demo has passed");
