// SPDX-License-Identifier: Apache-2.0

// Vercel's AI SDK; the package of its provider is named by the argument.

import { generateImage, generateText, streamText } from 'ai';

import { answerCalls } from './calls.mjs';

const library = await import(process.argv[2]);

// OpenAI's provider would rather speak the Responses API.
const providers = {
  '@ai-sdk/google': {
    connect: ({ key, url, base }) => library.createGoogleGenerativeAI({ apiKey: key, baseURL: url + (base ?? '/v1beta') }),
    words: (provider, model) => provider(model),
  },
  '@ai-sdk/openai': {
    connect: ({ key, url, base }) => library.createOpenAI({ apiKey: key, baseURL: url + (base ?? '/v1') }),
    words: (provider, model) => provider.chat(model),
  },
};
const { connect, words } = providers[process.argv[2]];

const methods = { generateImage: draw, streamText: stream };

await answerCalls(async (call, seen) => {
  await (methods[call.method] ?? answer)(connect(call), call, seen);
});

async function draw(provider, call, seen) {
  const prompt = call.images ? { text: call.prompt, images: call.images } : call.prompt;
  const { images } = await generateImage({ model: provider.image(call.model), prompt, n: call.n, ...call.config });
  seen.chunks++;
  seen.images = images.map((image) => image.base64);
}

async function answer(provider, call, seen) {
  const { text, files } = await generateText(request(provider, call));
  seen.chunks++;
  seen.text = text;
  seen.images = files.map((file) => file.base64);
}

async function stream(provider, call, seen) {
  const { fullStream } = streamText({ ...request(provider, call), onError() {} });
  for await (const part of fullStream) {
    seen.chunks++;
    switch (part.type) {
      case 'text-delta':
        seen.text += part.text;
        break;
      case 'file':
        seen.images.push(part.file.base64);
        break;
      case 'error':
        throw part.error;
    }
  }
}

function request(provider, call) {
  const pictures = call.images?.map((image) => ({ type: 'image', image, mediaType: 'image/png' }));
  const content = [{ type: 'text', text: call.prompt }, ...(pictures ?? [])];
  return { model: words(provider, call.model), messages: [{ role: 'user', content }], ...call.config };
}
