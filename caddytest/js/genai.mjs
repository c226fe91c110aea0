// SPDX-License-Identifier: Apache-2.0

// The official client of the Gemini API; its package is named by the argument.

import { answerCalls } from './calls.mjs';

const { GoogleGenAI } = await import(process.argv[2]);

await answerCalls(async (call, seen) => {
  const client = new GoogleGenAI({ apiKey: call.key, httpOptions: { baseUrl: call.url } });
  const request = { model: call.model, contents: call.prompt, config: call.config };
  if (!call.stream) {
    add(seen, await client.models.generateContent(request));
    return;
  }
  for await (const chunk of await client.models.generateContentStream(request)) {
    add(seen, chunk);
  }
});

function add(seen, response) {
  seen.chunks++;
  for (const part of response.candidates?.[0]?.content?.parts ?? []) {
    seen.text += part.text ?? '';
    if (part.inlineData) {
      seen.images.push(part.inlineData.data);
    }
  }
}
