// Random data from a seed.

import { faker } from "@faker-js/faker/locale/en";

export function work({ seed, count }) {
  faker.seed(seed);
  faker.setDefaultRefDate("2026-01-01T00:00:00.000Z");
  return {
    people: faker.helpers.multiple(() => ({ name: faker.person.fullName(), mail: faker.internet.email(), city: faker.location.city() }), { count }),
    id: faker.string.uuid(),
    words: faker.lorem.sentence(5),
    past: faker.date.past().toISOString(),
    price: faker.commerce.price(),
  };
}

export default async ({ after }) => ({ made: await work(after.given) });
