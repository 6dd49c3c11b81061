// A text from a template, which is compiled at run time.

import Handlebars from "handlebars/dist/cjs/handlebars.js";

Handlebars.registerHelper("money", (cents) => (cents / 100).toFixed(2));
Handlebars.registerPartial("line", "{{name}}: {{money cents}}");
const mail = Handlebars.compile("Dear {{customer}},\n{{#each lines}}{{@index}} {{> line}}{{#unless @last}}; {{/unless}}{{else}}nothing{{/each}}\n{{{raw}}}");

export function work(data) {
  return { mail: mail(data) };
}

export default async ({ after }) => ({ made: await work(after.given) });
