// SPDX-License-Identifier: Apache-2.0

// OpenAI's client, as it is used with the Gemini API and with gateways; its
// package is named by the argument.

import { answerCalls, dataURL, pictureIn } from './calls.mjs';

const { default: OpenAI, toFile } = await import(process.argv[2]);

const methods = { 'images.generate': generate, 'images.edit': edit };

await answerCalls(async (call, seen) => {
  const client = new OpenAI({ apiKey: call.key, baseURL: call.url + (call.base ?? '/v1beta/openai') });
  await (methods[call.method] ?? chat)(client, call, seen);
});

async function generate(client, call, seen) {
  const request = { model: call.model, prompt: call.prompt, n: call.n, response_format: 'b64_json', ...call.config };
  addImages(seen, await client.images.generate(request));
}

async function edit(client, call, seen) {
  const files = await Promise.all(
    call.images.map((picture, i) => toFile(Buffer.from(picture, 'base64'), `picture-${i}.png`, { type: 'image/png' })),
  );
  const image = files.length === 1 ? files[0] : files; // which are two spellings of the form's field
  addImages(seen, await client.images.edit({ model: call.model, prompt: call.prompt, image, n: call.n, ...call.config }));
}

async function chat(client, call, seen) {
  const pictures = call.images?.map((picture) => ({ type: 'image_url', image_url: { url: dataURL(picture) } }));
  const content = pictures ? [{ type: 'text', text: call.prompt }, ...pictures] : call.prompt;
  const request = { model: call.model, messages: [{ role: 'user', content }], stream: call.stream, n: call.n, ...call.config };
  const answer = await client.chat.completions.create(request);
  for await (const piece of call.stream ? answer : [answer]) {
    seen.chunks++;
    for (const choice of piece.choices) {
      addMessage(seen, choice.delta ?? choice.message);
    }
  }
}

function addImages(seen, answer) {
  seen.chunks++;
  seen.images.push(...answer.data.map((image) => image.b64_json ?? pictureIn(image.url)));
}

// addMessage finds images where providers put them: in a list of the message's
// own, or among the parts of its content.
function addMessage(seen, { content, images }) {
  const parts = Array.isArray(content) ? content : [{ text: content }];
  for (const part of [...parts, ...(images ?? [])]) {
    seen.text += part.text ?? '';
    if (part.image_url) {
      seen.images.push(pictureIn(part.image_url.url));
    }
  }
}
