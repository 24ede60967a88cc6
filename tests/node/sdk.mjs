// Speak to the sandbox with the official TypeScript SDKs: node sdk.mjs CLIENT TRANSPORT URL [cancel|long|across].
// CLIENT is v1, v2 or v2-auto, which probes for the newest revision; TRANSPORT is sse, http, or remote-sse or remote-http, by way
// of mcp-remote. URL is where the site is. Prints ok at the end.
import assert from 'node:assert/strict'
import { resolve } from 'node:path'

const [which, transport, site, mode] = process.argv.slice(2)
const sdk = which === 'v1'
	? {
			...await import('@modelcontextprotocol/sdk/client/index.js'),
			...await import('@modelcontextprotocol/sdk/client/sse.js'),
			...await import('@modelcontextprotocol/sdk/client/streamableHttp.js'),
			...await import('@modelcontextprotocol/sdk/client/stdio.js'),
		}
	: await import('@modelcontextprotocol/client')

const endpoint = transport.endsWith('sse') ? `${site}/mcp/sse` : `${site}/mcp`
const quick = 100_000 // limits, in milliseconds, that a machine under load does not reach either

async function connect() {
	const options = { capabilities: {}, ...(which === 'v2-auto' && { versionNegotiation: { mode: 'auto' } }) }
	const client = new sdk.Client({ name: 'tests', version: '1' }, options)
	let wire
	switch (transport) {
	case 'sse': wire = new sdk.SSEClientTransport(new URL(endpoint)); break
	case 'http': wire = new sdk.StreamableHTTPClientTransport(new URL(endpoint)); break
	default: wire = new sdk.StdioClientTransport({
		command: process.execPath,
		args: [resolve('node_modules/mcp-remote/dist/proxy.js'), endpoint, '--transport', transport.endsWith('sse') ? 'sse-only' : 'http-only'],
		env: { ...process.env, MCP_REMOTE_CONFIG_DIR: process.env.HOME },
	})
	}
	await client.connect(wire)
	if (which === 'v2-auto') {
		// SSE ends with the revision before: clients that probe must be told so.
		assert.equal(client.getNegotiatedProtocolVersion(), transport === 'sse' ? '2025-11-25' : '2026-07-28')
	}
	return client
}

function call(client, name, args, options = {}) {
	const request = { name, arguments: args }
	options = { timeout: quick, ...options }
	return which === 'v1' ? client.callTool(request, undefined, options) : client.callTool(request, options)
}

// run calls the tool; the SDK itself checks the structured content against the output schema.
async function run(client, code, more = {}, options = {}) {
	const result = await call(client, 'execute_python', { code, ...more }, options)
	assert.ok(!result.isError, JSON.stringify(result))
	assert.equal(result.content.length, 1)
	assert.deepEqual(JSON.parse(result.content[0].text), result.structuredContent)
	return result.structuredContent
}

async function leased(n, limit) {
	const begin = Date.now()
	for (;;) {
		const { workers } = await (await fetch(`${site}/health`)).json()
		if (workers.leased === n) return
		assert.ok(Date.now() - begin < limit, `after ${limit} ms ${workers.leased} workers are at work, not ${n}`)
		await new Promise(done => setTimeout(done, 10))
	}
}

async function everything(client) {
	const { tools } = await client.listTools()
	assert.deepEqual(tools.map(tool => tool.name).sort(), ['execute_python', 'pip_install'])
	const server = client.getServerVersion()
	assert.equal(server.name, 'python-sandbox')
	assert.match(client.getInstructions(), /execute_python/)

	let got = await run(client, "print('Hello, World!')\nprint(f'{2 + 2 = }')", { timeout: 10 })
	assert.equal(got.stdout, 'Hello, World!\n2 + 2 = 4\n')
	assert.equal(got.success, true)
	// Characters that end lines elsewhere, NUL, and bytes that are no text.
	got = await run(client, "print('a\\u0085b\\u2028c\\x00d', '\\U0001f600')\nimport sys; sys.stdout.flush()\nsys.stdout.buffer.write(b'\\xed\\xa0\\x80|\\xff|')")
	assert.ok(got.stdout.startsWith('a\u0085b\u2028c\x00d \u{1F600}\n') && got.stdout.endsWith('|'), JSON.stringify(got.stdout))
	got = await run(client, 'import sys; print(sys.stdin.read())', { stdin: 'é\u0085\u2028\u{1F600}', timeout: 2.5 })
	assert.equal(got.stdout, 'é\u0085\u2028\u{1F600}\n')
	// 5 million characters; the SDK takes 10 MiB from a program, in which the text is twice.
	const [piece, times] = transport.startsWith('remote') ? ['x', 4_500_000] : ['é\u0085', 2_500_000]
	got = await run(client, `print(${JSON.stringify(piece)} * ${times})`)
	assert.ok(got.stdout === piece.repeat(times) + '\n', `${got.stdout.length} characters`)
	got = await run(client, 'print(1 / 0)')
	assert.equal(got.exit_code, 1)
	assert.match(got.stderr, /ZeroDivisionError/)

	for (const [args, words] of [
		[{}, /code is missing/],
		[{ code: 'x', timeout: 121 }, /up to 120/],
		[{ code: "print('\ud800')" }, /surrogate/],
	]) {
		const refused = await call(client, 'execute_python', args)
		assert.equal(refused.isError, true)
		assert.match(refused.content[0].text, words)
	}
	const blocked = await call(client, 'pip_install', { package: 'forbidden-package' })
	assert.equal(blocked.structuredContent.status, 'blocked', JSON.stringify(blocked))
	await assert.rejects(call(client, 'no_such_tool', {}), /no_such_tool/)

	const begin = Date.now()
	await Promise.all(Array.from({ length: 4 }, () => run(client, 'import time; time.sleep(2)')))
	assert.ok(Date.now() - begin < 6000, `4 calls of 2 s took ${Date.now() - begin} ms`)

	const notes = []
	await run(client, 'import time; time.sleep(4.5)', {}, { onprogress: note => notes.push(note) })
	assert.ok(notes.length > 0, 'no progress')
	assert.equal((await run(client, "print('still here')")).stdout, 'still here\n')
}

// cancelling gives the worker back within a second, and the session goes on.
async function cancelling(client) {
	const stop = new AbortController()
	const cancelled = assert.rejects(run(client, 'import time\nwhile True: time.sleep(1)', { timeout: 60 }, { signal: stop.signal }))
	await leased(1, 20_000)
	stop.abort()
	await cancelled
	await leased(0, 1000)
	assert.equal((await run(client, "print('still here')")).stdout, 'still here\n')
}

const client = await connect()
if (mode === 'long') { // longer than the minute that the SDK waits unless it hears of progress
	const got = await run(client, "import time; time.sleep(70); print('at last')", { timeout: 100 },
		{ timeout: 20_000, onprogress() {}, resetTimeoutOnProgress: true })
	assert.equal(got.stdout, 'at last\n')
} else if (mode === 'across') { // the server is reloaded in the middle
	assert.equal((await run(client, "import time; time.sleep(15); print('across')")).stdout, 'across\n')
	assert.equal((await run(client, "print('after')")).stdout, 'after\n')
} else if (mode === 'cancel') {
	await cancelling(client)
} else {
	await everything(client)
}
await client.close()
console.log('ok')
process.exit(0)
