// SPDX-License-Identifier: Apache-2.0

// The official client of the Gemini API and of Vertex AI; its package is named
// by the argument.

import { OAuth2Client } from 'google-auth-library';

import { answerCalls } from './calls.mjs';

const { GoogleGenAI } = await import(process.argv[2]);

const methods = { 'interactions.create': interact, 'models.generateImages': imagine };

// ErrorEvent is an error in a stream of interactions: the library hands it over
// like any other event.
class ErrorEvent extends Error {
  constructor({ code, message }) {
    super(message);
    this.code = code;
  }
}

await answerCalls(async (call, seen) => {
  await (methods[call.method] ?? generate)(newClient(call), call, seen);
});

// newClient speaks to Vertex AI with an access token if there is a project, and
// else with a key. A token that does not expire is never refreshed.
function newClient({ key, url, vertexai, project, location }) {
  const httpOptions = { baseUrl: url };
  if (!project) {
    return new GoogleGenAI({ vertexai, apiKey: key, httpOptions });
  }
  const authClient = new OAuth2Client({ credentials: { access_token: key } });
  return new GoogleGenAI({ vertexai, project, location, googleAuthOptions: { authClient }, httpOptions });
}

async function generate(client, call, seen) {
  const pictures = call.images?.map((data) => ({ inlineData: { mimeType: 'image/png', data } }));
  const contents = pictures ? [{ text: call.prompt }, ...pictures] : call.prompt;
  const request = { model: call.model, contents, config: call.config };
  if (!call.stream) {
    addResponse(seen, await client.models.generateContent(request));
    return;
  }
  for await (const chunk of await client.models.generateContentStream(request)) {
    addResponse(seen, chunk);
  }
}

function addResponse(seen, response) {
  seen.chunks++;
  for (const part of response.candidates?.[0]?.content?.parts ?? []) {
    seen.text += part.text ?? '';
    if (part.inlineData) {
      seen.images.push(part.inlineData.data);
    }
  }
}

async function imagine(client, call, seen) {
  const config = { numberOfImages: call.n, ...call.config };
  const response = await client.models.generateImages({ model: call.model, prompt: call.prompt, config });
  seen.chunks++;
  for (const { image, raiFilteredReason } of response.generatedImages ?? []) {
    seen.text += raiFilteredReason ?? '';
    if (image?.imageBytes) {
      seen.images.push(image.imageBytes);
    }
  }
}

async function interact(client, call, seen) {
  const pictures = call.images?.map((data) => ({ type: 'image', mime_type: 'image/png', data }));
  const input = pictures ? [{ type: 'text', text: call.prompt }, ...pictures] : call.prompt;
  const answer = await client.interactions.create({ model: call.model, input, stream: call.stream, ...call.config });
  for await (const piece of call.stream ? answer : [answer]) {
    seen.chunks++;
    if (piece.event_type === 'error') {
      throw new ErrorEvent(piece.error);
    }
    const contents = piece.steps?.flatMap((step) => (step.type === 'model_output' ? step.content : []));
    for (const content of contents ?? [piece.delta]) {
      addContent(seen, content);
    }
  }
}

function addContent(seen, content) {
  seen.text += content?.text ?? '';
  if (content?.type === 'image') {
    seen.images.push(content.data);
  }
}
