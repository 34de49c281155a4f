// Reads a list of AsyncAPI documents from stdin and prints what the official parser says of each, as JSON.
const { Parser } = require("@asyncapi/parser");

async function told(source) {
  const { document, diagnostics } = await new Parser().parse(JSON.stringify(source));
  return {
    operations: document ? document.operations().all().map((operation) => operation.id()).sort() : [],
    channels: document ? document.channels().all().map((channel) => channel.address()).sort() : [],
    diagnostics: diagnostics.map(({ code, severity, message, path }) => ({ code, severity, message, path })),
  };
}

const documents = JSON.parse(require("fs").readFileSync(0, "utf8"));
Promise.all(documents.map(told)).then((all) => console.log(JSON.stringify(all)));
