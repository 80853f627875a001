// A client of Heed from the .proto files alone: no generated code.
//
//   npm install
//   node client.mjs 127.0.0.1:50051 "Guten Morgen!"
//
// Prints the translation, its links, and the greatest weight of each row of the token matrix; then shows an error's
// details. Set HEED_PROTO when this folder is not inside the repository.

import { fileURLToPath } from 'node:url';
import path from 'node:path';
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';

const here = path.dirname(fileURLToPath(import.meta.url));
const proto = process.env.HEED_PROTO ?? path.join(here, '..', '..', '..', 'proto');
const includeDirs = [proto, path.join(proto, 'third_party')];
const load = (file) =>
  grpc.loadPackageDefinition(
    protoLoader.loadSync(file, { includeDirs, keepCase: false, longs: Number, enums: String, defaults: true }),
  );

const { heed } = load('heed/v1/translation_service.proto');
const [address = '127.0.0.1:50051', ...texts] = process.argv.slice(2);
const client = new heed.v1.TranslationService(address, grpc.credentials.createInsecure(), {
  'grpc.max_receive_message_length': 32 * 1024 * 1024,
});

function call(method, request) {
  return new Promise((resolve, reject) => {
    const deadline = new Date(Date.now() + 10_000);
    client[method](request, { deadline }, (error, reply) => (error ? reject(error) : resolve(reply)));
  });
}

// Offsets count code points; a JavaScript string counts UTF-16 units.
const slice = (text, begin, end) => Array.from(text).slice(begin, end).join('');

// Packed float32, little-endian, row-major: (heads, rows, columns).
function unpack(matrix) {
  const [heads, rows, columns] = matrix.shape;
  const view = new DataView(matrix.data.buffer, matrix.data.byteOffset, matrix.data.byteLength);
  const weight = (head, row, column) => view.getFloat32(4 * ((head * rows + row) * columns + column), true);
  return Array.from({ length: heads }, (_, head) =>
    Array.from({ length: rows }, (_, row) => Array.from({ length: columns }, (_, column) => weight(head, row, column))),
  );
}

const contents = texts.length ? texts : ['Guten Morgen!'];
const reply = await call('translate', { contents, attention: { view: 'ATTENTION_VIEW_TOKEN' } });
reply.translations.forEach((translation, place) => {
  if (translation.status.code !== 0) {
    console.log(`${contents[place]} -> error ${translation.status.code}: ${translation.status.message}`);
    return;
  }
  console.log(`${contents[place]} -> ${translation.hypotheses[0].text}`);
  // A text of several sentences has its words and its attention by sentence; source offsets count the whole text.
  const parts = translation.sentences.length ? translation.sentences.map((sentence) => sentence.translation) : [translation];
  parts.forEach((part) => show(contents[place], part));
});

function show(text, { hypotheses: [best], sourceWords, sourceTokens }) {
  for (const link of best.attention.links) {
    const source = sourceWords[link.sourceWord];
    const target = best.words[link.targetWord];
    const from = slice(text, source.beginOffset, source.endOffset);
    const to = slice(best.text, target.beginOffset, target.endOffset);
    console.log(`  ${from} => ${to} ${link.weight.toFixed(2)}`);
  }
  const [head] = unpack(best.attention.matrices[0]);
  head.forEach((row, at) => {
    const sum = row.reduce((total, weight) => total + weight, 0);
    const greatest = row.indexOf(Math.max(...row));
    const from = slice(text, sourceTokens[greatest].beginOffset, sourceTokens[greatest].endOffset);
    console.log(`  ${best.tokens[at].piece} looked at "${from}"; the row sums to ${sum.toFixed(3)}`);
  });
}

const { models } = await call('listModels', {});
console.log(`models: ${models.map((model) => `${model.name}/${model.version}`).join(', ')}`);

try {
  await call('translate', { contents, model: 'nobody' });
} catch (error) {
  const [binary] = error.metadata.get('grpc-status-details-bin');
  console.log(`${grpc.status[error.code]}: ${error.details} (${binary.length} bytes of details)`);
}
client.close();
