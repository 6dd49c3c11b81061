// Runs before an order is stored: rejects totals above a million, and fills in the currency.

import type { PreCreate } from "./order";

export const preCreate: PreCreate = ({ after, log }) => {
  if (after.total > 1_000_000) {
    throw new Reject("at most a million", { "/total": `${after.total} is too much` });
  }
  log.info(`an order of ${after.customer}`);
  return { ...after, currency: after.currency?.toUpperCase() ?? "EUR" };
};
