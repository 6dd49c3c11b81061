// A hook that imports, rejects, amends and logs. The tests also check its types.

import type { PreCreate, PostCreate } from "@snaphook/hook";
import { LIMIT } from "./rules";

interface Order {
  total: number;
  currency?: string;
}

export const preCreate: PreCreate<Order> = ({ after, log, read }) => {
  log.info("total", after.total);
  if (after.total > LIMIT) throw new Reject("too much", { "/total": `at most ${LIMIT}` });
  if (after.total === 7) read.get<Order>("customer", "x");
  return { ...after, currency: after.currency ?? "EUR" };
};

export const postCreate: PostCreate<Order> = async ({ after, event, write, fetch }) => {
  if (event.position < 0) {
    const response = await fetch("https://example.com/", { method: "POST", body: JSON.stringify(after) });
    write.create("audit", { status: response.status });
  }
};
