// Tokens, greedy text and times of llama.cpp, for llama_cpp.py and by hand.
//
//     npm install --ignore-scripts node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64@3.22.1
//     node llama_cpp.mjs PACKAGE MODEL.gguf REQUEST.json ANSWER.json
//
// PACKAGE is node_modules/node-llama-cpp, a build of llama.cpp for Node. The request has `texts` (to be turned into
// tokens, special tokens not recognised), `prompts` (token ids, each continued greedily by `count` tokens, past the
// end of a text), `threads`, `cache`, the type of the keys and values that are kept (F32 here; llama.cpp's default is
// F16), and `flash`, whether the fused attention is used (no here; on a CPU it rounds queries to half precision).
// The answer has `tokens`, `greedy`, and seconds: `load_seconds`, and for each prompt `first_seconds` (up to the first
// token) and `rest_seconds` (for the other count - 1).

import {readFileSync, writeFileSync} from "node:fs";
import {resolve} from "node:path";
import {pathToFileURL} from "node:url";

const [packagePath, modelPath, requestPath, answerPath] = process.argv.slice(2);
if (answerPath === undefined) {
    console.error("usage: node llama_cpp.mjs PACKAGE MODEL.gguf REQUEST.json ANSWER.json");
    process.exit(2);
}
const {getLlama} = await import(pathToFileURL(resolve(packagePath, "dist/index.js")).href);
const {texts = [], prompts = [], count = 64, threads = 1, cache = "F32", flash = false} =
    JSON.parse(readFileSync(requestPath, "utf8"));
const seconds = (since) => Number(process.hrtime.bigint() - since) / 1e9;

const llama = await getLlama({gpu: false, build: "never", skipDownload: true, logLevel: "error"});
let since = process.hrtime.bigint();
const model = await llama.loadModel({modelPath});
const answer = {
    load_seconds: seconds(since),
    bos: model.tokens.bos,
    eos: model.tokens.eos,
    adds_bos: model.tokens.shouldPrependBosToken,
    tokens: texts.map((text) => model.tokenize(text, false)),
    greedy: [],
    first_seconds: [],
    rest_seconds: []
};
if (prompts.length > 0) {
    const longest = Math.max(...prompts.map((prompt) => prompt.length)) + count;
    const context = await model.createContext({
        contextSize: longest + 8,
        threads,
        flashAttention: flash,
        experimentalKvCacheKeyType: cache,
        experimentalKvCacheValueType: cache
    });
    const sequence = context.getSequence();
    for (const prompt of prompts) {
        await sequence.clearHistory();
        const greedy = [];
        since = process.hrtime.bigint();
        for await (const token of sequence.evaluate(prompt, {temperature: 0, yieldEogToken: true})) {
            greedy.push(token);
            if (greedy.length === 1) {
                answer.first_seconds.push(seconds(since));
                since = process.hrtime.bigint();
            }
            if (greedy.length >= count)
                break;
        }
        answer.rest_seconds.push(seconds(since));
        answer.greedy.push(greedy);
    }
}
writeFileSync(answerPath, JSON.stringify(answer));
process.exit(0);
