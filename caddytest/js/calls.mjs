// SPDX-License-Identifier: Apache-2.0

// Makes calls with a client library: one line of JSON in is one call, one line
// of JSON out is what the library's user saw of it.

import { Console } from 'node:console';
import readline from 'node:readline';

// What libraries have to say is no line of the protocol.
globalThis.console = new Console(process.stderr);
globalThis.AI_SDK_LOG_WARNINGS = false;

export async function answerCalls(make) {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const seen = { images: [], text: '', chunks: 0 };
    try {
      await make(JSON.parse(line), seen);
    } catch (e) {
      seen.error = raised(e);
    }
    process.stdout.write(JSON.stringify(seen) + '\n');
  }
}

// raised is an error in the words of no library. Vercel's RetryError holds the
// last one of those that it is about.
function raised(e) {
  const last = e.lastError ?? e;
  return {
    name: e.constructor.name,
    status: last.status ?? last.statusCode ?? 0,
    code: String(last.code ?? last.data?.error?.code ?? ''),
    message: String(e.message),
  };
}

// dataURL is a picture, as base64, in a URL of its own.
export function dataURL(picture) {
  return 'data:image/png;base64,' + picture;
}

// pictureIn is the base64 of such a URL. Any other is as good as no picture.
export function pictureIn(url) {
  return /^data:image\/[^,]*;base64,(.*)$/s.exec(url)?.[1] ?? '';
}
