// The official TypeScript SDKs: node sdk.mjs CLIENT TRANSPORT SITE EXTENDED. CLIENT is v1, v2, auto (v2 when it probes for the
// newest revision) or remote (mcp-remote behind v1), or remote-auto; TRANSPORT is sse or http; EXTENDED is a site with the tools
// of the fixtures besides. Reads the names of scenarios and answers them as ../clients/scenarios.py does.
import assert from 'node:assert/strict'
import { resolve } from 'node:path'
import { createInterface } from 'node:readline'

const [which, transport, site, extended] = process.argv.slice(2)
const remote = which.startsWith('remote')
const isV1 = which === 'v1' || remote
const sdk = isV1
	? {
			...await import('@modelcontextprotocol/sdk/client/index.js'),
			...await import('@modelcontextprotocol/sdk/client/sse.js'),
			...await import('@modelcontextprotocol/sdk/client/streamableHttp.js'),
			...await import('@modelcontextprotocol/sdk/client/stdio.js'),
		}
	: await import('@modelcontextprotocol/client')

const quick = 100_000 // limits, in milliseconds, that a machine under load does not reach either
const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=='
const endless = ['import time\nwhile True: time.sleep(1)', { timeout: 110 }]

async function connect(site) {
	const endpoint = transport === 'sse' ? `${site}/mcp/sse` : `${site}/mcp`
	const options = { capabilities: {}, ...(which === 'auto' && { versionNegotiation: { mode: 'auto' } }) }
	const client = new sdk.Client({ name: 'tests', version: '1' }, options)
	let wire
	if (remote) {
		wire = new sdk.StdioClientTransport({
			command: process.execPath,
			args: [resolve('node_modules/mcp-remote/dist/proxy.js'), endpoint, '--transport', `${transport}-only`,
				...(which === 'remote-auto' ? ['--protocol', 'auto'] : [])],
			env: { ...process.env, MCP_REMOTE_CONFIG_DIR: process.env.HOME },
		})
	} else {
		wire = transport === 'sse' ? new sdk.SSEClientTransport(new URL(endpoint)) : new sdk.StreamableHTTPClientTransport(new URL(endpoint))
	}
	await client.connect(wire)
	if (which === 'auto') {
		// SSE ends with the revision before: clients that probe must be told so.
		assert.equal(client.getNegotiatedProtocolVersion(), transport === 'sse' ? '2025-11-25' : '2026-07-28')
	}
	return client
}

function call(client, name, args, options = {}) {
	const request = { name, arguments: args }
	options = { timeout: quick, ...options }
	return isV1 ? client.callTool(request, undefined, options) : client.callTool(request, options)
}

// run calls the tool; the SDK itself checks the structured content against the output schema.
async function run(client, code, more = {}, options = {}) {
	const result = await call(client, 'execute_python', { code, ...more }, options)
	assert.ok(!result.isError, JSON.stringify(result))
	assert.equal(result.content.length, 1)
	assert.deepEqual(JSON.parse(result.content[0].text), result.structuredContent)
	return result.structuredContent
}

async function long(client, options) {
	const got = await run(client, "import time; time.sleep(70); print('at last')", { timeout: 110 }, options)
	assert.equal(got.stdout, 'at last\n')
}

const scenarios = {
	async 'list'(client) {
		const { tools } = await client.listTools()
		assert.deepEqual(tools.map(tool => tool.name).sort(), ['execute_python', 'pip_install'])
		assert.equal(client.getServerVersion().name, 'python-sandbox')
		assert.match(client.getInstructions(), /execute_python/)
	},
	async 'call'(client) {
		let got = await run(client, "print('Hello, World!')\nprint(f'{2 + 2 = }')", { timeout: 10 })
		assert.equal(got.stdout, 'Hello, World!\n2 + 2 = 4\n')
		assert.equal(got.success, true)
		got = await run(client, 'import sys; print(sys.stdin.read())', { stdin: 'é\u0085\u2028\u{1F600}', timeout: 2.5 })
		assert.equal(got.stdout, 'é\u0085\u2028\u{1F600}\n')
		const blocked = await call(client, 'pip_install', { package: 'forbidden-package' })
		assert.equal(blocked.structuredContent.status, 'blocked', JSON.stringify(blocked))
	},
	// Characters that end lines elsewhere, NUL, and bytes that are no text: a lone surrogate and a stray one.
	async 'odd'(client) {
		const got = await run(client, "print('a\\u0085b\\u2028c\\x00d', '\\U0001f600', flush=True)\nimport sys; sys.stdout.buffer.write(b'\\xed\\xa0\\x80|\\xff|')")
		assert.ok(got.stdout.startsWith('a\u0085b\u2028c\x00d \u{1F600}\n') && got.stdout.endsWith('|') && got.stdout.isWellFormed(), JSON.stringify(got.stdout))
	},
	// The SDK takes 10 MiB from a program, in which the text is twice.
	async '5 MB'(client) {
		const [piece, times] = remote ? ['x', 4_500_000] : ['é\u0085 and six', 500_000]
		const got = await run(client, `print(${JSON.stringify(piece)} * ${times})`)
		assert.ok(got.stdout === piece.repeat(times) + '\n', `${got.stdout.length} characters`)
	},
	// A program that prints an image: its bytes are no text, and in base64 it comes as it is.
	async 'picture'(client) {
		const got = await run(client, `import base64, sys\nsys.stdout.buffer.write(base64.b64decode('${PNG}'))\nprint('${PNG}', file=sys.stderr)`)
		assert.ok(got.stdout.includes('PNG\r\n\x1a\n') && got.stdout.includes('IEND') && got.stdout.isWellFormed(), JSON.stringify(got))
		assert.equal(got.stderr, PNG + '\n')
	},
	async 'image'() {
		const other = await connect(extended)
		const { content } = await call(other, 'test_image_content', {})
		assert.deepEqual(content, [{ type: 'image', mimeType: 'image/png', data: PNG }])
		await other.close()
	},
	async 'failure'(client) {
		let got = await run(client, 'print(1 / 0)')
		assert.equal(got.exit_code, 1)
		assert.match(got.stderr, /ZeroDivisionError/)
		got = await run(client, "import time; print('one', flush=True); time.sleep(9)", { timeout: 1 })
		assert.equal(got.exit_code, 124)
		assert.equal(got.stdout, 'one\n')
	},
	async 'refused'(client) {
		for (const [args, words] of [
			[{}, /code is missing/],
			[{ code: 'x', timeout: 121 }, /up to 120/],
			[{ code: "print('\ud800')" }, /surrogate/],
		]) {
			const refused = await call(client, 'execute_python', args)
			assert.equal(refused.isError, true)
			assert.match(refused.content[0].text, words)
		}
		await assert.rejects(call(client, 'no_such_tool', {}), /no_such_tool/)
	},
	async 'together'(client) {
		const begin = Date.now()
		await Promise.all(Array.from({ length: 4 }, () => run(client, 'import time; time.sleep(3)')))
		assert.ok(Date.now() - begin < 10_000, `4 calls of 3 s took ${Date.now() - begin} ms`)
	},
	async 'progress'(client) {
		const notes = []
		await run(client, 'import time; time.sleep(4.5)', {}, { onprogress: note => notes.push(note) })
		assert.ok(notes.length > 0, 'no progress')
	},
	async 'again'(client) {
		assert.equal((await run(client, "print('still here')")).stdout, 'still here\n')
	},
	async 'cancel'(client, now) {
		const stop = new AbortController()
		const cancelled = assert.rejects(run(client, ...endless, { signal: stop.signal, timeout: 2 * quick }))
		await now
		stop.abort()
		await cancelled
	},
	async 'abandon'(client) { // as cancel, but the server does not hear of it
		const [code] = endless
		await assert.rejects(run(client, code, { timeout: 6 }, { signal: AbortSignal.timeout(1000) }))
	},
	async 'leave'(client, now) { // in the middle of a call
		const left = assert.rejects(run(client, ...endless, { timeout: 2 * quick }))
		await now
		await client.close()
		await left
	},
	async 'reload'(client) {
		assert.equal((await run(client, "import time; time.sleep(10); print('across')")).stdout, 'across\n')
	},
	// The SDK waits for a minute, here for 20 s, unless it hears of progress.
	'70 s': client => long(client, { timeout: 20_000, onprogress() {}, resetTimeoutOnProgress: true }),
	'70 s, silent': client => long(client, { timeout: quick }),
}

const client = await connect(site)
console.log('ok connect')
let open
for await (const name of createInterface({ input: process.stdin })) {
	if (name === 'now') {
		open()
		continue
	}
	// One that fails is not handled, and ends the program.
	scenarios[name](client, new Promise(resolve => { open = resolve })).then(() => console.log(`ok ${name}`))
}
await client.close()
process.exit(0)
