// SPDX-License-Identifier: Apache-2.0

// OpenAI's client, as it is used with the Gemini API; its package is named by
// the argument.

import { answerCalls } from './calls.mjs';

const { default: OpenAI } = await import(process.argv[2]);

await answerCalls(async (call, seen) => {
  const client = new OpenAI({ apiKey: call.key, baseURL: call.url + '/v1beta/openai' });
  if (call.method === 'images.generate') {
    const images = await client.images.generate({ model: call.model, prompt: call.prompt, response_format: 'b64_json' });
    seen.images = images.data.map((image) => image.b64_json);
    return;
  }
  const request = { model: call.model, messages: [{ role: 'user', content: call.prompt }], stream: call.stream };
  const answer = await client.chat.completions.create(request);
  if (!call.stream) {
    seen.text = answer.choices[0].message.content;
    return;
  }
  for await (const chunk of answer) {
    seen.chunks++;
    seen.text += chunk.choices[0]?.delta?.content ?? '';
  }
});
