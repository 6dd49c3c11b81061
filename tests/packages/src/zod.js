// Schemas: what an order may be.

import { z } from "zod";

const Order = z.object({
  customer: z.string().trim().min(2),
  email: z.email().optional(),
  items: z.array(z.object({ sku: z.string().regex(/^[A-Z]{2}-\d+$/), count: z.coerce.number().int().positive() })).min(1),
  paid: z.boolean().default(false),
  when: z.iso.datetime().optional(),
}).refine((order) => order.items.length < 4, { message: "too many items", path: ["items"] });

export function work(data) {
  const parsed = Order.safeParse(data);
  return parsed.success ? { ok: parsed.data } : { faults: parsed.error.issues.map(({ path, code, message }) => ({ path, code, message })) };
}

export default async ({ after }) => ({ made: await work(after.given) });
