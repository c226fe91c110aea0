// SPDX-License-Identifier: Apache-2.0

// Makes calls with a client library: one line of JSON in is one call, one line
// of JSON out is what the library's user saw of it.

import readline from 'node:readline';

export async function answerCalls(make) {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const seen = { images: [], text: '', chunks: 0 };
    try {
      await make(JSON.parse(line), seen);
    } catch (e) {
      seen.error = {
        name: e.constructor.name,
        status: e.status ?? 0,
        code: String(e.code ?? ''),
        message: String(e.message),
      };
    }
    process.stdout.write(JSON.stringify(seen) + '\n');
  }
}
